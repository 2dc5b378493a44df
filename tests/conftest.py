"""Fixtures for every test: foreign DICOM tools, and the real photographs."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from desk import QUICK, Desk, furnish, owned, settle
from postgres import database, served, server_programs
from vault_factories import House, house

# Before torch is there: threads of several processes that wait for each other's cores take longer.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# `pytest --hypothesis-profile many` tries each property so often; else it says its own number.
settings.register_profile("many", max_examples=10_000, derandomize=True, deadline=None)

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


@pytest.fixture(scope="session")
def tiny_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of MONAI bundles that take milliseconds: see `tiny_bundles`.

    It holds ``dr_classifier_tiny``, and a ``lesion_segmenter`` that marks nothing.
    """
    from tiny_bundles import write_classifier, write_segmenter  # noqa: PLC0415  loads torch

    folder = tmp_path_factory.mktemp("bundles")
    write_classifier(folder / "dr_classifier_tiny")
    write_segmenter(folder / "lesion_segmenter", everywhere=-10)
    return folder


@pytest.fixture(scope="session")
def export_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache folder for exported networks, shared by the tests of a session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(tmp_path: Path, export_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a desk without models; nothing of the real user's is read or written."""
    return settle(tmp_path, export_cache, monkeypatch)


@pytest.fixture
def office(desk: Desk, tiny_bundles: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return a desk with the tiny models, so that it can lock."""
    return furnish(desk, tiny_bundles, monkeypatch)


@pytest.fixture
def owner(office: Desk) -> Desk:
    """Return an owner's desk with a vault, its custodian, and alice in it."""
    return owned(office)


@pytest.fixture(scope="session")
def archive(
    tmp_path_factory: pytest.TempPathFactory, export_cache: Path, tiny_bundles: Path
) -> Desk:
    """Return a desk to read from: two eyes in ``src``, locked by ``issuer`` in ``locked``.

    For alice, bob and the custodian; mallory has an identity too. Tests copy
    what they want to change.
    """
    with pytest.MonkeyPatch.context() as patch:
        desk = settle(tmp_path_factory.mktemp("archive"), export_cache, patch)
        furnish(desk, tiny_bundles, patch)
        source, people = desk.eyes("src", 2), [desk.public(one) for one in ("alice", "bob")]
        desk.person("mallory")
        more = ("--custodian", desk.public("custodian"), "--issuer", desk.person("issuer"))
        desk.good(
            "lock", source, desk / "locked", "--to", people[0], "--to", people[1], *more, *QUICK
        )
    return desk


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the URL of a real PostgreSQL server, of this session alone, without a database name.

    Skipped or failed where it is missing, as for `peer`.
    """
    found = server_programs()
    if found is None:
        if os.environ.get("CI") == "true" or BESIDE.exists():
            pytest.fail("postgresql is not installed, and here it has to be")
        pytest.skip("postgresql is not installed")
    with served(found, tmp_path_factory.mktemp("postgresql")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def vault_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return where a new vault can be made: a file, then a database of a real server."""
    if request.param == "sqlite":
        yield str(tmp_path / "vault.db")
        return
    with database(request.getfixturevalue("postgresql")) as url:
        yield url


@pytest.fixture
def home(vault_place: str) -> Iterator[House]:
    """Return an owner's vault, in each kind of database."""
    made = house(vault_place)
    yield made
    made.vault.close()


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[House]:
    """Return an owner's vault in SQLite alone."""
    made = house(str(tmp_path / "vault.db"))
    yield made
    made.vault.close()
