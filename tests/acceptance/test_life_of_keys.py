"""docs/a-life-of-keys.md, run command by command as a user would, two years apart."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from desk import QUICK, Desk, same_pixels

PAGE = (Path(__file__).parents[2] / "docs" / "a-life-of-keys.md").read_text()
LATER = "## Two years later"


def steps() -> Iterator[tuple[bool, str, str, int]]:
    """Whether it is two years later, the command, what it should print, and its exit code."""
    for late, part in enumerate(PAGE.split(LATER)):
        for block in re.findall(r"^```console\n(.*?)^```", part, re.MULTILINE | re.DOTALL):
            for text in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, expected = text.partition("\n")
                # Apart: a text that ends in `...` would stand for any exit code.
                failing = re.search(r"^\[exit (\d+)\]\s*\Z", expected, re.MULTILINE)
                said = expected[: failing.start()] if failing else expected
                yield bool(late), command, said, int(failing[1]) if failing else 0


def test_the_page_is_what_happens(office: Desk, peer: Callable[[str], Callable[..., str]]) -> None:
    """Each command prints what the page says; the originals come back bit by bit."""
    peer("faketime")
    office.eyes("photographs", 2)
    office.secret("custodian.passphrase", b"correct horse battery staple\n")
    noted, ran = "", 0
    checker = doctest.OutputChecker()
    for late, command, expected, status in steps():
        said, code = run(office, command.replace("NOTED", noted), years=2 * late)
        assert code == status, f"{command}\n{said}"
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert checker.check_output(expected, said, flags), f"{command}\n{said}"
        if command == "medlocker vault audit":
            noted = said.split("\n")[-2]
        ran += 1
    assert ran > 20
    for folder in ("originals", "bobs-originals"):
        for name in ("eye0.dcm", "eye1.dcm"):
            assert same_pixels(office / "photographs" / name, office / folder / name)
    assert not list((office / "again").glob("*.dcm"))


def run(office: Desk, command: str, years: int) -> tuple[str, int]:
    """Run a command line of the page; what it prints, errors among it, and its exit code."""
    words = shlex.split(command)
    assert words[0] == "medlocker"
    more = QUICK if words[1] == "lock" else ()
    program = [sys.executable, "-m", "medlocker_dicom.cli.main", *words[1:], *more]
    moved = ["faketime", "-f", f"+{years}y"] if years else []
    done = subprocess.run(
        [*moved, *program],
        cwd=office.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    return done.stdout, done.returncode
