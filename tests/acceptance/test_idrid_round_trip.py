"""Real photographs, as a camera sends them, through the whole product and foreign checkers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from factories import save, wrap_jpeg
from medlocker_dicom.cli.main import app
from medlocker_dicom.dicom.fundus import read_fundus

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT = 4
BUDGET = 24  # the round trip is the subject here, not the strength of the lock


def medlocker(*words: str | Path, code: int = 0) -> str:
    """Run a command; return what it printed."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def shared_photographs(shared_data: Path) -> list[Path]:
    """Return the first images of IDRiD grading."""
    return sorted((shared_data / "idrid_grading" / "images").glob("*.jpg"))[:COUNT]


@pytest.fixture(scope="module")
def run(shared_photographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lock a few photographs for two recipients."""
    work = tmp_path_factory.mktemp("idrid")
    (work / "source").mkdir()
    for number, path in enumerate(shared_photographs, 1):
        uid = f"1.2.826.0.1.3680043.10.1.{number}"
        ds = wrap_jpeg(path.read_bytes(), instance_number=number, instance_uid=uid)
        save(ds, work / "source", f"{path.stem}.dcm")
    for name in ("alice", "bob", "mallory", "issuer"):
        medlocker("identity", "new", work / f"{name}.key", "--no-passphrase")
    medlocker(
        *("lock", work / "source", work / "locked", "--budget", str(BUDGET)),
        *("--to", work / "alice.key.pub", "--to", work / "bob.key.pub"),
        *("--issuer", work / "issuer.key"),
    )
    return work


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_each_recipient_gets_every_original_back(run: Path, name: str) -> None:
    """Every photograph comes back bit-equal to the decoded originals."""
    medlocker("unlock", run / "locked", run / name, "--identity", run / f"{name}.key")
    equal = 0
    for path in sorted((run / "source").iterdir()):
        before, after = read_fundus(path), read_fundus(run / name / path.name)
        locked = json.loads((run / "locked" / "lock.json").read_bytes())
        assert len(locked["instances"]) == COUNT
        assert before.ds.SOPInstanceUID == after.ds.SOPInstanceUID
        equal += np.array_equal(before.pixels, after.pixels)
    assert equal == COUNT


def test_locked_objects_pass_dciodvfy(run: Path, peer: Callable[[str], Callable[..., str]]) -> None:
    """Dciodvfy finds no error in any of the locked objects."""
    dciodvfy = peer("dciodvfy")
    locked = sorted((run / "locked").glob("*.dcm"))
    assert len(locked) == COUNT
    for path in locked:
        found = dciodvfy(path).splitlines()
        assert [line for line in found if line.startswith("Error")] == [], path.name


def test_a_third_identity_is_refused(run: Path) -> None:
    """Mallory has no key and gets nothing."""
    medlocker(
        *("unlock", run / "locked", run / "mallory", "--identity", run / "mallory.key"), code=7
    )
    assert not (run / "mallory").exists()


def test_a_flipped_byte_is_refused(run: Path, tmp_path: Path) -> None:
    """One changed bit of the pixels, and nothing is written."""
    source = min((run / "locked").glob("*.dcm"))
    data = bytearray(source.read_bytes())
    data[len(data) // 2] ^= 1
    changed = tmp_path / "changed.dcm"
    changed.write_bytes(data)
    key = run / "locked" / "keys" / "alice.mlkey"
    words = ("unlock", changed, tmp_path / "out", "--identity", run / "alice.key", "--key", key)
    medlocker(*words, code=8)
    assert not list((tmp_path / "out").glob("*.dcm"))
