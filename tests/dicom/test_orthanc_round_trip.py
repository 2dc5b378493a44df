"""Locked instances through a real archive: what Orthanc stores and gives back still unlocks."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from archives import Archive, orthanc_in
from desk import Desk, Outcome, granted, results, same_pixels
from factories import make_fundus
from medlocker_dicom.dicom.locked import read_locked
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.phantom import phantom


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Archive]]:
    """Return what starts this file's Orthanc at the first call, and then returns it."""
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(orthanc_in(tmp_path_factory.mktemp("orthanc"))))


@pytest.fixture
def orthanc(peer: Callable[[str], object], start: Callable[[], Archive]) -> Archive:
    """Return a running Orthanc that holds nothing."""
    peer("Orthanc")  # skips or fails where it is missing
    archive = start()
    archive.empty()
    return archive


@cache
def eye(seed: int) -> NDArray[np.uint8]:
    """Return a generated eye: uint8 (160, 160, 3)."""
    return phantom(np.random.default_rng(seed), (160, 160)).image


def deep(pixels: NDArray[np.uint8], bits: int) -> NDArray[np.uint16]:
    """Return pixels of more bits, the lowest of which are noise worth keeping."""
    noise = np.random.default_rng(1).integers(0, 1 << (bits - 8), pixels.shape)
    return ((pixels.astype(np.uint32) << (bits - 8)) + noise).astype(np.uint16)


SOURCES: dict[str, Callable[[], tuple[NDArray[Any], int]]] = {
    "colour": lambda: (eye(0)[None], 8),
    "frames": lambda: (np.stack([eye(0), eye(1)]), 8),
    "grey": lambda: (eye(0)[None, ..., 1:2], 8),
    "grey16": lambda: (deep(eye(0)[None, ..., 1:2], 16), 16),
    "colour12": lambda: (deep(eye(1)[None], 12), 12),
}


def write_sources(office: Desk, kinds: list[str]) -> Path:
    """Write an instance of each kind into ``src``, of different UIDs."""
    for number, kind in enumerate(kinds):
        pixels, bits = SOURCES[kind]()
        ds = make_fundus(pixels, bits, instance_uid=f"1.2.826.0.1.3680043.10.9.{number + 1}")
        office.put(f"src/{kind}.dcm", to_bytes(ds))
    return office / "src"


def lock_all(office: Desk, *more: str) -> dict[str, Path]:
    """Lock ``src`` for alice; return the locked files by SOP Instance UID."""
    outcome = office.lock(office / "src", office / "locked", *more)
    assert outcome.code == 0, outcome.err
    files = sorted((office / "locked").rglob("*.dcm"))
    return {str(read_locked(path).ds.SOPInstanceUID): path for path in files}


def unlock_from(office: Desk, archive: Archive, uids: set[str]) -> None:
    """Download instances by UID, unlock them, and compare each with its source."""
    for number, uid in enumerate(sorted(uids)):
        office.put(f"fetched/{number}.dcm", archive.file_of(uid))
    outcome = unlock_fetched(office)
    assert outcome.code == 0, outcome.err
    compare(office)


def unlock_fetched(office: Desk, *more: str | Path) -> Outcome:
    """Unlock ``fetched`` into ``back`` as alice."""
    keys = office / "locked" / "keys" / "alice.mlkey"
    return office.unlock(office / "fetched", office / "back", "alice", "--key", keys, *more)


def compare(office: Desk) -> None:
    """Check that ``back`` holds the instances of ``src``, pixels bit by bit."""
    sources, restored = (
        {
            uid_of(office / folder / name): office / folder / name
            for name in results(office / folder)
        }
        for folder in ("src", "back")
    )
    assert restored.keys() == sources.keys()
    assert all(same_pixels(sources[uid], restored[uid]) for uid in sources)


def uid_of(path: Path) -> str:
    """Return a file's SOP Instance UID."""
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def test_by_rest(office: Desk, orthanc: Archive) -> None:
    """Uploaded and downloaded over REST, every kind of picture comes back bit by bit."""
    write_sources(office, list(SOURCES))
    locked = lock_all(office)
    assert set(locked) == granted(office / "locked")
    for path in locked.values():
        answer = orthanc.json("/instances", path.read_bytes())
        assert answer["Status"] == "Success"
    for uid, path in locked.items():
        assert orthanc.file_of(uid) == path.read_bytes()
    unlock_from(office, orthanc, set(locked))


@pytest.mark.parametrize(
    ("codec", "proposed"),
    [("uncompressed", "-xe"), ("rle", "-xr"), ("jpegls", "-xt"), ("j2k", "-xv")],
)
def test_by_storescu(
    codec: str,
    proposed: str,
    office: Desk,
    orthanc: Archive,
    peer: Callable[[str], Callable[..., str]],
) -> None:
    """Sent by DCMTK in each lossless transfer syntax of ours, all comes back bit by bit."""
    write_sources(office, ["colour", "grey16"])
    locked = lock_all(office, "--codec", codec)
    store = ("-aec", "ORTHANC", "-R", proposed, "127.0.0.1", str(orthanc.dicom))
    peer("storescu")(*store, *locked.values())
    assert len(orthanc.json("/instances")) == 2
    unlock_from(office, orthanc, set(locked))


def test_there_and_back_by_dicom(
    office: Desk, orthanc: Archive, peer: Callable[[str], Callable[..., str]]
) -> None:
    """Stored by C-STORE and retrieved by C-GET, no REST in between."""
    write_sources(office, ["colour", "grey16"])
    node = ("-aec", "ORTHANC", "127.0.0.1", str(orthanc.dicom))
    peer("storescu")(*node, *lock_all(office).values())
    (study,) = orthanc.json("/studies")
    uid = orthanc.json(f"/studies/{study}")["MainDicomTags"]["StudyInstanceUID"]
    (office / "fetched").mkdir()
    query = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}")
    peer("getscu")(*node, "-S", *query, "-od", office / "fetched")
    outcome = unlock_fetched(office)
    assert outcome.code == 0, outcome.err
    compare(office)


def test_an_anonymised_copy_is_refused(office: Desk, orthanc: Archive) -> None:
    """Orthanc's anonymisation takes the recovery packet: the copy is refused, and told why."""
    write_sources(office, ["colour"])
    ((uid, path),) = lock_all(office).items()
    orthanc.rest("/instances", path.read_bytes())
    (name,) = orthanc.json("/tools/lookup", uid.encode())
    copy = orthanc.rest(f"/instances/{name['ID']}/anonymize", b"{}")
    office.put("fetched/copy.dcm", copy)
    outcome = unlock_fetched(office)
    assert outcome.code != 0
    assert "its recovery packet was stripped" in outcome.errors[0]
    assert not (office / "back").exists() or not results(office / "back")


@pytest.mark.parametrize("detached", [True, False])
def test_a_copy_without_private_elements(office: Desk, orthanc: Archive, *, detached: bool) -> None:
    """Orthanc strips them: packets that lie beside bring the exact pixels, else nothing does."""
    write_sources(office, ["colour", "grey16"])
    keep = ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"]
    request = json.dumps({"RemovePrivateTags": True, "Keep": keep, "Force": True}).encode()
    for number, (uid, path) in enumerate(lock_all(office, *["--detached"] * detached).items()):
        orthanc.rest("/instances", path.read_bytes())
        (name,) = orthanc.json("/tools/lookup", uid.encode())
        copy = orthanc.rest(f"/instances/{name['ID']}/modify", request)
        assert b"MEDLOCKER DICOM 1" not in copy
        office.put(f"fetched/{number}.dcm", copy)
    outcome = unlock_fetched(office, "--packets", office / "locked" / "packets")
    if detached:
        assert outcome.code == 0, outcome.err
        compare(office)
    else:
        assert (outcome.code, len(outcome.errors)) == (3, 2)
        assert "its recovery packet was stripped" in outcome.errors[0]
        assert not results(office / "back")
