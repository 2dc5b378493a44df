"""Whatever goes wrong ends in words and an exit code, never in a traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from desk import Desk, Outcome, unprivileged
from medlocker_dicom.cli import identity
from medlocker_dicom.keyfile.identity_file import create_identity

MAIN = "medlocker_dicom.cli.main"


def _process(*arguments: str | Path, code: str = "", out: str = "/dev/null") -> Outcome:
    """Run ``medlocker``, or Python code, as a process whose standard output is a device."""
    start = ["-c", code] if code else ["-m", MAIN]
    with Path(out).open("w") as stream:
        done = subprocess.run(
            [sys.executable, *start, *map(str, arguments)],
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=os.environ | {"PYTHONUNBUFFERED": "", "PYTHONIOENCODING": "utf-8:strict"},
        )
    return Outcome(done.returncode, "", done.stderr)


def test_a_name_that_no_file_can_have_is_named(office: Desk) -> None:
    """A source of 300 characters: one error that says so, of every command."""
    source, alice = office / ("n" * 300), ("--identity", office.person("alice"))
    for outcome in (
        office.lock(source, office / "out"),
        office.run("unlock", source, office / "back", *alice),
        office.run("verify", source, *alice),
        office.run("inspect", source),
    ):
        assert (outcome.code, len(outcome.errors)) == (2, 1)
        assert "nnn" in outcome.errors[0]
        assert "File name too long" in outcome.errors[0]


def test_a_loop_of_links_is_named(office: Desk) -> None:
    """A link to itself as source or destination: one error that names it."""
    loop = office / "loop"
    loop.symlink_to(loop)
    source = office.lock(loop, office / "out")
    assert (source.code, len(source.errors)) == (2, 1)
    assert "loop: no such file" in source.errors[0]
    target = office.lock(office.eyes("src", 1), loop)
    assert (target.code, len(target.errors)) == (9, 1)
    assert "loop: cannot be written" in target.errors[0]


def test_a_file_in_a_closed_folder_is_named() -> None:
    """A path that may not be looked at: one error that names it and says why."""
    with unprivileged() as folder:
        desk = Desk(folder)
        path = desk.put("closed/a.dcm", b"")
        alice = ("--identity", desk.person("alice"))
        (folder / "closed").chmod(0)
        outcome = desk.run("verify", path, *alice)
        assert (outcome.code, len(outcome.errors)) == (2, 1)
        assert f"{path}: Permission denied" in outcome.errors[0]


def test_a_cache_that_may_not_be_looked_at_is_named(
    office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exported network in a closed folder: one error that names it; nothing is locked."""

    def closed(_: object) -> None:
        raise PermissionError(13, "Permission denied", "/cache/medlocker/x.onnx")

    monkeypatch.setattr("medlocker_dicom.bundles.engine.exported", lambda *_: closed(_))
    outcome = office.lock(office.eyes("src", 1), office / "out")
    assert (outcome.code, len(outcome.errors)) == (2, 1)
    assert "/cache/medlocker/x.onnx: Permission denied" in outcome.errors[0]
    assert not (office / "out").exists()


@pytest.mark.parametrize("words", [("--version",), ("inspect", "{}", "--json"), ("inspect", "{}")])
def test_output_that_cannot_be_printed_is_an_error(desk: Desk, words: tuple[str, ...]) -> None:
    """Onto a full device: one error, and exit code 9, not 0."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    public = desk.public("alice")
    outcome = _process(*(word.format(public) for word in words), out="/dev/full")
    assert (outcome.code, len(outcome.errors)) == (9, 1)
    assert "standard output: no space left" in outcome.errors[0]
    assert "Traceback" not in outcome.err
    assert "Exception" not in outcome.err


INTERRUPTS: dict[str, str] = {
    "as our libraries load": (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'pydicom':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        f"from {MAIN} import run\n"
    ),
    "as a compiled library loads": (
        f"from {MAIN} import inspect, run\n"
        "def loading(_):\n"
        "    raise ImportError('initialization failed') from KeyboardInterrupt()\n"
        "inspect.describe = loading\n"
        "run()\n"
    ),
}


@pytest.mark.parametrize("when", INTERRUPTS)
def test_an_interrupt_before_work_begins_is_one(when: str) -> None:
    """Ctrl-C while libraries load: exit code 130 without a traceback."""
    outcome = _process("inspect", "x", code=INTERRUPTS[when])
    assert outcome.code == 130
    assert "Traceback" not in outcome.err


def test_a_library_that_does_not_load_is_no_interrupt(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ImportError of another cause is passed on as it is."""

    def broken(_: Path) -> None:
        raise ImportError("no symbol")

    monkeypatch.setattr("medlocker_dicom.cli.inspect.describe", broken)
    with pytest.raises(ImportError, match="no symbol"):
        desk.run("inspect", desk / "x")


def test_a_name_without_an_encoding_is_printed(desk: Desk) -> None:
    """A folder whose name is no UTF-8, on a strict output: its bytes come out escaped."""
    folder = Path(os.fsdecode(os.fsencode(desk.root) + b"/no-utf8-\xff"))
    folder.mkdir()
    outcome = _process("identity", "new", folder / "alice.key", "--no-passphrase")
    assert outcome.code == 0, outcome.err


def test_two_first_locks_at_once_make_one_issuer(
    office: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another process makes the issuer's identity meanwhile, that one is used."""

    def late(other: bytes) -> Callable[[Path, bytes], None]:
        def create(path: Path, data: bytes) -> None:
            create_identity(path, other)
            create_identity(path, data)

        return create

    other = office.person("other").read_bytes()
    monkeypatch.setattr(identity, "create_identity", late(other))
    outcome = office.lock(office.eyes("src", 1), office / "out")
    assert outcome.code == 0, outcome.err
    assert "made " not in outcome.err
    verified = office.verify(office / "out", "alice")
    assert office.identity("other").public.fingerprint in verified.err
