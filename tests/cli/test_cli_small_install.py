"""What a recipient installs is enough, and nothing else is loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from desk import Desk, results, same_pixels

HEAVY = (
    "torch",
    "monai",
    "cv2",
    "onnxruntime",
    "PIL",
    "matplotlib",
    "SimpleITK",
    "pynetdicom",
    "jinja2",
    "skimage",
    "sqlalchemy",
    "alembic",
    "psycopg",
)
# Pillow is pydicom's own doing: it looks whether it is there (pydicom.pixels.processing).
WATCHED = f"""
import json, sys
from medlocker_dicom.cli.main import run
try:
    run()
finally:
    loaded = {{name.partition(".")[0] for name in sys.modules}}
    print(json.dumps(sorted(loaded & set({HEAVY}) - {{"PIL"}})), file=sys.stderr)
"""
MISSING = f"""
import sys
for name in {HEAVY}:
    sys.modules[name] = None  # importing it fails
from medlocker_dicom.cli.main import run
run()
"""


def _python(program: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONWARNINGS": "error::ImportWarning"},
    )


def _commands(archive: Desk, out: Path) -> list[tuple[str | Path, ...]]:
    locked, alice = archive / "locked", archive.person("alice")
    return [
        ("unlock", locked, out, "--identity", alice),
        ("verify", locked, "--identity", alice),
        ("inspect", locked / "eye0.dcm"),
    ]


def test_importing_the_package_loads_no_engine() -> None:
    """`import medlocker_dicom` loads none of the lock side's libraries."""
    check = f"import sys, medlocker_dicom; print([m for m in {HEAVY} if m in sys.modules])"
    assert _python(check).stdout.strip() == "[]"


@pytest.mark.parametrize("number", range(3), ids=["unlock", "verify", "inspect"])
def test_a_recipients_commands_load_no_engine(archive: Desk, desk: Desk, number: int) -> None:
    """Even where they are installed, none of the lock side's libraries is loaded."""
    done = _python(WATCHED, *_commands(archive, desk / "back")[number])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []


def test_a_recipients_commands_need_no_engine(archive: Desk, desk: Desk) -> None:
    """Where they are missing, unlocking, verifying and inspecting work all the same."""
    for command in _commands(archive, desk / "back"):
        done = _python(MISSING, *command)
        assert done.returncode == 0, done.stderr
    assert results(desk / "back") == {"eye0.dcm", "eye1.dcm"}
    assert same_pixels(archive / "src" / "eye0.dcm", desk / "back" / "eye0.dcm")


@pytest.mark.parametrize(
    "command",
    [
        "lock",
        "bundles",
        "check",
        "evaluate",
        "inspect a bundle",
        "evaluate the lock",
        "demo",
        "recipient",
        "grant",
        "vault",
        "vault init",
    ],
)
def test_an_owners_commands_say_what_to_install(desk: Desk, command: str) -> None:
    """Without the engine: one error and the pip command, no traceback, nothing written."""
    source = desk.eyes("src", 1)
    arguments: dict[str, tuple[str | Path, ...]] = {
        "lock": ("lock", source, desk / "out", "--to", desk.public("alice")),
        "bundles": ("bundles", "list"),
        "check": ("bundles", "check", "resnet18"),
        "evaluate": ("bundles", "evaluate", "resnet18", "--images", source),
        "inspect a bundle": ("inspect", source),
        "evaluate the lock": ("evaluate", "asr", source, desk / "out", "--labels", source),
        "demo": ("demo", desk / "out"),
        "recipient": ("recipient", "list"),
        "grant": ("grant", "export", desk / "out", "--to", "alice"),
        "vault": ("vault", "check"),
        "vault init": ("vault", "init", "--no-custodian"),
    }
    done = _python(MISSING, *arguments[command])
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("medlocker: ")]
    assert len(lines) == 2, done.stderr
    assert "pip install 'medlocker-dicom[" in lines[1]
    assert "Traceback" not in done.stderr
    assert not (desk / "out").exists()


def test_help_needs_no_engine() -> None:
    """What a command would do is told also where it cannot be done."""
    for command in ("list", "check", "evaluate"):
        done = _python(MISSING, "bundles", command, "--help")
        assert done.returncode == 0, done.stderr
        assert "--trust-bundle" in done.stdout


def test_a_process_says_an_error_once(desk: Desk) -> None:
    """A real process prints the two lines, and no library's remarks beside them."""
    data = desk.eye("good.dcm", 0, instance_uid="1.2.3.4.5.6").read_bytes()
    before = b"\x08\x00\x18\x00UI\x0c\x001.2.3.4.5.6\0"
    assert before in data
    bad = desk.put("bad.dcm", data.replace(before, b"\x08\x00\x18\x00UI\x08\x00../../x\0"))
    with desk.spawn("inspect", bad) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (4, "")
    first, second = err.splitlines()
    assert first.startswith(f"medlocker: error: {bad}: SOP Instance UID")
    assert second.startswith("medlocker: hint: ")
