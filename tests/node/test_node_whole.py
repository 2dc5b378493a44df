"""The whole way: a modality sends, the node locks, an archive keeps, a recipient unlocks."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from running_node import Node, running
from soaking import Soak

import archives
from desk import Desk, eye_pixels, same_pixels
from factories import make_fundus
from medlocker_dicom.dicom.writing import to_bytes
from postgres import crash, database

PATIENCE = 120  # s
PACS = Path(__file__).parents[2] / "pacs"


def _archive_at(port: int) -> dict[str, object]:
    return {"kind": "dicom", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}


def _check_all_arrived(owner: Desk, soak: Soak, count: int) -> None:
    """What was answered Success is in the archive, once, and its keys are sound."""
    assert len(soak.answered) == len(set(soak.answered)) == count
    assert sorted(soak.kept()) == sorted(soak.answered)
    sound = f"{count} instances, {2 * count} grants, {2 * count} of them live"
    assert sound in owner.good("vault", "check").out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 40 MB; skips who may not."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here: that takes root's rights")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_from_modality_to_recipient(
    owner: Desk, peer: Callable[[str], object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Original study UID, one locked series, exact pixels: by two real peers and the real node."""
    peer("Orthanc")
    peer("storescu")
    eyes = owner.eyes("src", 3)
    with archives.orthanc_in(tmp_path_factory.mktemp("orthanc")) as archive:
        there = {"kind": "dicom", "ae_title": "ORTHANC", "host": "127.0.0.1"}
        with running(owner, {"archive": there | {"port": archive.dicom}}) as node:
            sent = node.send(*sorted(eyes.iterdir()))
            assert sent.returncode == 0, sent.stderr
            node.wait_for({"done": 3})
            assert node.send(*sorted(eyes.iterdir())).returncode == 0
            assert node.states() == {"done": 3}
            assert node.ask("/ready") == "ok\n"
            assert 'medlocker_objects{state="done"} 3.0' in node.ask("/metrics")
            assert "MEDLOCKER" in node.ask("/") or "MedLocker" in node.ask("/")
        assert {line["level"] for line in node.logged()} <= {"info", "warning"}, node.log
        kept = [archive.rest(f"/instances/{one}/file") for one in archive.json("/instances")]
    back = owner.root / "kept"
    for number, data in enumerate(kept):
        owner.put(f"kept/{number}.dcm", data)
    read = [dcmread(path) for path in sorted(back.iterdir())]
    sources = [dcmread(path) for path in sorted(eyes.iterdir())]
    assert {ds.StudyInstanceUID for ds in read} == {ds.StudyInstanceUID for ds in sources}
    assert len({ds.SeriesInstanceUID for ds in read}) == len(
        {ds.SeriesInstanceUID for ds in sources}
    )
    owner.good("grant", "export", owner / "keys", "--to", "alice")
    key = owner / "keys" / "alice.mlkey"
    assert owner.unlock(back, owner / "original", "alice", "--key", key).code == 0
    by_uid = {dcmread(path).SOPInstanceUID: path for path in sorted(eyes.iterdir())}
    restored = sorted(path for path in Path(owner / "original").iterdir() if path.suffix == ".dcm")
    assert len(restored) == 3
    for path in restored:
        assert same_pixels(path, by_uid[dcmread(path).SOPInstanceUID])
    assert "all in order" in owner.good("vault", "check").out


def test_nothing_is_lost_when_it_is_killed(
    owner: Desk, peer: Callable[[str], object], vault_place: str
) -> None:
    """Every instance that was answered Success is in the archive, once, and its keys are sound."""
    peer("storescp")
    peer("storescu")
    port = archives.free_port()
    changes = {"database": vault_place} if "://" in vault_place else {}
    with running(
        owner, {"archive": _archive_at(port)}, changes=changes, workers=1 + len(changes)
    ) as node:
        soak = Soak(
            node, sorted(owner.eyes("src", 8).iterdir()), owner / "kept", port, 3, Random(5)
        )
        soak.run()
    _check_all_arrived(owner, soak, 8)


def test_nothing_is_lost_when_its_database_crashes(
    owner: Desk, peer: Callable[[str], object], postgresql: str
) -> None:
    """PostgreSQL ends as by a power failure and comes back, under the node at work."""
    peer("storescp")
    port = archives.free_port()

    def strike(_: Node) -> None:
        crash(postgresql, owner / "postgresql.log")

    files = sorted(owner.eyes("src", 8).iterdir())
    with (
        database(postgresql) as url,
        running(
            owner, {"archive": _archive_at(port)}, changes={"database": url}, workers=2
        ) as node,
    ):
        soak = Soak(node, files, owner / "kept", port, 1, Random(5), strike)
        soak.run()
        assert node.process is not None
        assert node.process.poll() is None
    _check_all_arrived(owner, soak, 8)


def test_nothing_is_lost_when_the_disk_is_full(
    owner: Desk, peer: Callable[[str], object], small_disk: Path
) -> None:
    """An archive is away until the spool is full; then all goes on, and every file arrives."""
    peer("storescp")
    port = archives.free_port()
    for number in range(16):
        eye = make_fundus(
            eye_pixels(number, 800), instance_uid=f"1.2.826.0.1.3680043.10.9.{number + 1}"
        )
        owner.put(f"src/eye{number:02}.dcm", to_bytes(eye))
    changes = {"spool": str(small_disk), "floor": "16 MB"}
    full: list[str] = []

    def strike(node: Node) -> None:
        until = time.monotonic() + PATIENCE
        while not full and time.monotonic() < until:
            said = node.send(owner / "src" / "eye15.dcm")
            full.extend(re.findall("A700|Refused: OutOfResources", said.stdout + said.stderr))
            time.sleep(0.5)

    with running(owner, {"archive": _archive_at(port)}, changes=changes) as node:
        files = sorted((owner / "src").iterdir())
        soak = Soak(node, files, owner / "kept", port, 1, Random(5), strike)
        soak.run()
    assert full
    _check_all_arrived(owner, soak, 16)


def test_an_archive_that_commits(
    owner: Desk, peer: Callable[[str], object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Delivered is what Orthanc has promised to keep, and no sooner; the trail tells all of it."""
    peer("Orthanc")
    peer("storescu")
    node_port = archives.free_port()
    modalities = {"DicomModalities": {"node": ["MEDLOCKER", "127.0.0.1", node_port]}}
    with archives.orthanc_in(tmp_path_factory.mktemp("orthanc"), **modalities) as archive:
        there = {"kind": "dicom", "ae_title": "ORTHANC", "host": "127.0.0.1", "commitment": True}
        destinations = {"archive": there | {"port": archive.dicom}}
        changes = {"audit": {"file": "audit.log"}}
        with running(owner, destinations, changes=changes, port=node_port) as node:
            assert node.send(*sorted(owner.eyes("src", 2).iterdir())).returncode == 0
            node.wait_for({"done": 2})
            said = {row[0] for row in node.rows("SELECT said FROM node_delivery")}
            assert said == {"committed to storage"}
            assert 'medlocker_stores_total{outcome="new"} 2.0' in node.ask("/metrics")
    trail = (owner / "audit.log").read_text()
    assert trail.count("DICOM Instances Transferred") >= 4
    assert trail.count("Begin Transferring DICOM Instances") >= 2


def test_node_yaml_is_read_again(
    owner: Desk, peer: Callable[[str], object], tmp_path: Path
) -> None:
    """Routes change without a restart; a file that is broken, or names such, changes nothing."""
    peer("storescp")
    peer("storescu")
    eyes = sorted(owner.eyes("src", 3).iterdir())
    with archives.storescp_in(tmp_path / "kept") as port:
        none = {"match": {"modality": ["CT"]}}
        with running(owner, {"archive": _archive_at(port)}, route=none) as node:
            assert node.send(eyes[0]).returncode == 0
            node.wait_for({"held": 1})
            processes = node.processes()
            for broken in (b"spool: [", b"spool: 2026-13-45"):
                node.reload(broken, usable=False)
            paths = {"certificate": "none.crt", "key": "none.key", "authorities": "none.crt"}
            listen = {"port": node.port, "processes": 1, "tls": paths}
            node.changes = {"listen": listen}
            node.reload(usable=False)
            assert node.processes() == processes
            node.changes = {}
            assert node.send(eyes[1]).returncode == 0
            node.wait_for({"held": 2})
            node.route = {}
            node.reload()
            assert node.send(eyes[2]).returncode == 0
            node.wait_for({"held": 2, "done": 1})
        assert node.log.count("it stays as it was") == 3


def test_a_lock_that_does_not_end(owner: Desk, peer: Callable[[str], object]) -> None:
    """It is held, where it stood is told, and its worker takes up what comes after it."""
    peer("storescu")
    endless = {"recipients": ["alice"], "models": ["dr_classifier_tiny"], "budget": 100_000}
    changes, there = {"lock_minutes": 0.05}, {"archive": _archive_at(archives.free_port())}
    with running(owner, there, route={"lock": endless}, changes=changes) as node:
        assert node.send(*owner.eyes("src", 2).iterdir()).returncode == 0
        node.wait_for({"held": 2}, PATIENCE)
        assert all("took longer than 0.05 minutes" in reason for reason in node.reasons())
        assert node.log.count("Timeout (0:00:03)!") == 2
        assert '"a process ended"' not in node.log


def test_from_pacs_to_archive_to_recipient(
    owner: Desk, peer: Callable[[str], object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A modality sends to a hospital's Orthanc, which routes through the node to another Orthanc.

    The recipient fetches from there over DICOMweb. What is there is clean DICOM, in the study of
    the original, and unlocks to its pixels.
    """
    for program in ("Orthanc", "storescu", "dciodvfy"):
        peer(program)
    peer_files = archives.DICOMWEB
    assert peer_files.exists(), "install orthanc-dicomweb"
    node_port, eyes = archives.free_port(), owner.eyes("src", 2)
    rule = owner.put("route.lua", (PACS / "route-to-node.lua").read_bytes())
    routing = {
        "DicomModalities": {"medlocker": ["MEDLOCKER", "127.0.0.1", node_port]},
        "LuaScripts": [str(rule)],
    }
    plugin = {"Plugins": [str(peer_files)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    folders = [tmp_path_factory.mktemp(name) for name in ("pacs", "archive")]
    with (
        archives.orthanc_in(folders[1], **plugin) as archive,
        archives.orthanc_in(folders[0], **routing) as pacs,
    ):
        there = {"kind": "dicom", "ae_title": "ORTHANC", "host": "127.0.0.1", "port": archive.dicom}
        with running(owner, {"archive": there}, port=node_port) as node:
            modality = ["/usr/bin/storescu", "-aec", "ORTHANC", "127.0.0.1", str(pacs.dicom)]
            subprocess.run([*modality, *sorted(map(str, eyes.iterdir()))], check=True)
            node.wait_for({"done": 2})
        study = str(dcmread(eyes / "eye0.dcm").StudyInstanceUID)
        client = DICOMwebClient(f"http://127.0.0.1:{archive.http}/dicom-web")
        fetched = client.retrieve_study(study)
    assert fetched
    for number, ds in enumerate(fetched):
        assert ds.StudyInstanceUID == study
        ds.save_as(owner.put(f"fetched/{number}.dcm", b""))
        said = subprocess.run(
            ["/usr/bin/dciodvfy", str(owner / f"fetched/{number}.dcm")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Error" not in said.stderr, said.stderr
    owner.good("grant", "export", owner / "keys", "--to", "alice")
    key = owner / "keys" / "alice.mlkey"
    assert owner.unlock(owner / "fetched", owner / "original", "alice", "--key", key).code == 0
    by_uid = {dcmread(path).SOPInstanceUID: path for path in eyes.iterdir()}
    restored = sorted((owner / "original").glob("*.dcm"))
    assert len(restored) == len(fetched)
    for path in restored:
        assert same_pixels(path, by_uid[dcmread(path).SOPInstanceUID])
