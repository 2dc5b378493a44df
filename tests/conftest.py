"""Fixtures for every test: foreign DICOM tools, and the real photographs."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2] / "shared"
"""Where a developer keeps what is not in the repository."""

Peer = Callable[..., str]


@pytest.fixture
def peer() -> Callable[[str], Peer]:
    """Return a foreign program, as a function from arguments to its output.

    The test is skipped where the program is missing, but fails where it has to
    be there: in CI, and beside a developer's shared folder.
    """

    def find(name: str) -> Peer:
        program = shutil.which(name, path="/usr/bin:/usr/sbin:" + os.environ["PATH"])
        if program is None:
            if os.environ.get("CI") == "true" or BESIDE.exists():
                pytest.fail(f"{name} is not installed, and here it has to be")
            pytest.skip(f"{name} is not installed")

        def call(*arguments: str | Path) -> str:
            done = subprocess.run(
                [program, *map(str, arguments)], capture_output=True, text=True, check=False
            )
            # dciodvfy tells by its exit status what its messages say: callers read those
            assert done.returncode == 0 or name == "dciodvfy", done.stderr
            return done.stdout + done.stderr

        return call

    return find


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real photographs; skips where there is no shared folder."""
    if not BESIDE.exists():
        pytest.skip("no ../shared: the real photographs are not here")
    data = BESIDE / "data"
    if not data.is_dir():
        pytest.fail(f"{BESIDE} is there, but has no data")
    return data
