"""A user's desk: a folder, an environment, people's keys, eyes to lock, and the command."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from factories import make_fundus
from medlocker_dicom.cli.main import app
from medlocker_dicom.dicom.fundus import read_fundus
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.keyfile import Identity, dump_identity, dump_public, load_identity
from medlocker_dicom.phantom import phantom

QUICK = ("--models", "dr_classifier_tiny", "--budget", "12")
"""Options that make a lock take a fifth of a second."""


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The error lines; there is one an error, whatever else is said."""
        return [line for line in self.err.splitlines() if line.startswith("medlocker: error: ")]


@cache
def eye_pixels(number: int, size: int = 160) -> NDArray[np.uint8]:
    """Return phantom `number`: uint8 (1, size, size, 3)."""
    return phantom(np.random.default_rng(number), (size, size)).image[None]


@dataclass(frozen=True)
class Desk:
    """Where a test works.

    Attributes
    ----------
    root
        A folder of its own.
    """

    root: Path

    def __truediv__(self, name: str) -> Path:
        """Return a path on the desk."""
        return self.root / name

    def run(self, *arguments: str | Path) -> Outcome:
        """Run ``medlocker`` in this process; a traceback fails the test."""
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    def good(self, *arguments: str | Path) -> Outcome:
        """Run ``medlocker`` and expect it to succeed."""
        outcome = self.run(*arguments)
        assert outcome.code == 0, outcome.err
        return outcome

    def lock(self, source: Path, target: Path, *more: str | Path, to: str = "alice") -> Outcome:
        """Lock quickly for one person, who is made if need be."""
        return self.run("lock", source, target, "--to", self.public(to), *QUICK, *more)

    def unlock(self, source: Path, target: Path, person: str, *more: str | Path) -> Outcome:
        """Unlock as a person."""
        return self.run("unlock", source, target, "--identity", self.person(person), *more)

    def verify(self, source: Path, person: str, *more: str | Path) -> Outcome:
        """Verify as a person."""
        return self.run("verify", source, "--identity", self.person(person), *more)

    def person(self, name: str) -> Path:
        """Return a private key file without passphrase, new at the first call."""
        path = self.root / f"{name}.key"
        if not path.exists():
            identity = Identity.generate(name=name)
            path.touch(mode=0o600)
            path.write_bytes(dump_identity(identity, None))
            self.public(name).write_bytes(dump_public(identity.public))
        return path

    def identity(self, name: str) -> Identity:
        """Return a person's identity."""
        return load_identity(self.person(name).read_bytes(), bytes)

    def public(self, name: str) -> Path:
        """Return a person's public key file."""
        path = self.root / f"{name}.key.pub"
        if not path.exists():
            self.person(name)
        return path

    def eye(self, path: str, number: int = 0, **shot: Any) -> Path:
        """Write an eye of 160 px as DICOM; its UIDs are its number's unless given."""
        shot = {"instance_uid": f"1.2.826.0.1.3680043.10.9.{number + 1}"} | shot
        return self.put(path, to_bytes(make_fundus(eye_pixels(number), **shot)))

    def eyes(self, folder: str, count: int) -> Path:
        """Write a folder of eyes named ``eye0.dcm`` and so on; return it."""
        for number in range(count):
            self.eye(f"{folder}/eye{number}.dcm", number)
        return self.root / folder

    def secret(self, path: str, data: bytes) -> Path:
        """Write a file for its owner alone; return it."""
        whole = self.put(path, data)
        whole.chmod(0o600)
        return whole

    def put(self, path: str, data: bytes) -> Path:
        """Write bytes to a path on the desk; return it."""
        whole = self.root / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_bytes(data)
        return whole

    def spawn(self, *arguments: str | Path, err: int = subprocess.PIPE) -> "subprocess.Popen[str]":
        """Start ``medlocker`` as a process of its own, its streams piped."""
        command = [sys.executable, "-u", "-m", "medlocker_dicom.cli.main", *map(str, arguments)]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            # Whoever runs the tests in the background has it ignored, which is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  no threads
        )


@contextmanager
def unprivileged() -> Iterator[Path]:
    """Give up root, to whom every file is open, and give a new folder that is left to fill."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    folder = Path(tempfile.mkdtemp(prefix="medlocker-"))
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        for parent, folders, _ in os.walk(folder):
            for name in folders:
                Path(parent, name).chmod(0o700)
        shutil.rmtree(folder)


def tree(folder: Path) -> set[str]:
    """Return every file below a folder, hidden ones too, relative to it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def results(folder: Path) -> set[str]:
    """Return the files of a lock or unlock run that hold instances."""
    own = {"lock.json", "report.html", ".medlocker-journal"}
    return {path for path in tree(folder) - own if not path.startswith("keys/")}


def record_of(folder: Path) -> dict[str, Any]:
    """Read a lock run's lock.json."""
    record: dict[str, Any] = json.loads((folder / "lock.json").read_bytes())
    return record


def granted(folder: Path, name: str = "alice") -> set[str]:
    """Return the locked UIDs that a recipient's key file has grants for."""
    record = json.loads((folder / "keys" / f"{name}.mlkey").read_bytes())
    return {grant["locked_uid"] for grant in record["grants"]}


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file in place, written without spaces and with sorted names."""
    record = json.loads(path.read_bytes())
    change(record)
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    path.write_text(text)


def settle(folder: Path, cache: Path, patch: pytest.MonkeyPatch) -> Desk:
    """Point every place that MedLocker reads or writes by default into `folder`."""
    patch.setenv("XDG_CACHE_HOME", str(cache))
    patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    patch.setenv("XDG_DATA_HOME", str(folder / "data"))
    patch.delenv("MEDLOCKER_VAULT", raising=False)
    patch.setenv("COLUMNS", "100")
    patch.delenv("MEDLOCKER_BUNDLES", raising=False)
    return Desk(folder)


def furnish(desk: Desk, bundles: Path, patch: pytest.MonkeyPatch) -> Desk:
    """Give a desk the tiny models, and no others."""
    from medlocker_dicom.bundles import bundle  # noqa: PLC0415  loads torch

    patch.setenv("MEDLOCKER_BUNDLES", str(bundles))
    patch.setattr(bundle, "SHIPPED", desk / "no-bundles")
    return desk


def owned(desk: Desk) -> Desk:
    """Give a desk a vault, its custodian, and alice in it."""
    desk.good("vault", "init", "--custodian", desk.public("custodian"))
    desk.good("recipient", "add", desk.public("alice"))
    return desk


def same_pixels(one: Path, other: Path) -> bool:
    """Tell whether two source instances decode to equal samples of equal depth."""
    first, second = read_fundus(one), read_fundus(other)
    return first.bits == second.bits and np.array_equal(first.pixels, second.pixels)


def lock_for_alice(owner: Desk, count: int = 2, out: str = "locked", *more: str | Path) -> Path:
    """Lock some eyes for alice by her name in the vault; return the folder."""
    source = owner.eyes("src", count)
    owner.good("lock", source, owner / out, "--to", "alice", *QUICK, *more)
    return owner / out


def refused(owner: Desk, code: int, words: str, *command: str | Path) -> str:
    """Run a command that must fail with one error that has these words; return what it said."""
    outcome = owner.run(*command)
    assert (outcome.code, len(outcome.errors)) == (code, 1), outcome.err
    assert words in outcome.err, outcome.err
    return outcome.err
