"""The whole way: a modality sends, the node locks, an archive keeps, a recipient unlocks."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from pydicom import dcmread
from running_node import running
from soaking import Soak

import archives
from desk import Desk, same_pixels


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
    there = {"kind": "dicom", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    changes = {"database": vault_place} if "://" in vault_place else {}
    with running(owner, {"archive": there}, changes=changes, workers=1 + len(changes)) as node:
        soak = Soak(
            node, sorted(owner.eyes("src", 12).iterdir()), owner / "kept", port, 3, Random(5)
        )
        soak.run()
    assert len(soak.answered) == len(set(soak.answered)) == 12
    assert sorted(soak.kept()) == sorted(soak.answered)
    assert "12 instances, 24 grants, 24 of them live" in owner.good("vault", "check").out


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
