"""The log, audit, metrics and health of the real node: nothing of a patient is in them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from running_node import running

import archives
from factories import make_fundus, save
from medlocker_dicom.phantom import phantom

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from desk import Desk

NAME, NUMBER = "Zzyzx^Marked", "ZZYZX-4711"


@pytest.fixture
def owner(office: Desk) -> Desk:
    """Return an owner's desk with a vault, its custodian, and alice in it."""
    office.good("vault", "init", "--custodian", office.public("custodian"))
    office.good("recipient", "add", office.public("alice"), "--name", "alice")
    return office


def marked(folder: Path) -> list[Path]:
    """Write four objects of a patient: a photograph, noise, no study, and one that is cut short."""
    eye = phantom(np.random.default_rng(3), (160, 160)).image[None]
    uids = [f"1.2.826.0.1.3680043.10.7.{number}" for number in range(4)]
    patient: dict[str, Any] = {"patient_name": NAME, "patient_id": NUMBER}
    good, noise, strange, cut = (
        make_fundus(eye if number in (0, 3) else None, instance_uid=uid, **patient)
        for number, uid in enumerate(uids)
    )
    strange.StudyInstanceUID = NAME  # a sender's mistake: an error that quotes it
    cut.Rows = 4096
    strange.Modality = NUMBER
    return [
        save(one, folder, f"{number}.dcm") for number, one in enumerate((good, noise, strange, cut))
    ]


def until(condition: Callable[[], object]) -> None:
    """Wait for something that the node does."""
    end = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@pytest.mark.filterwarnings("ignore:Invalid value:UserWarning")  # of pydicom: it is meant
def test_the_whole_node_keeps_the_patient_out_of_its_log(
    owner: Desk, peer: Callable[[str], object], tmp_path: Path
) -> None:
    """Locked, held and refused objects; a destination that takes them; probes and metrics asked."""
    peer("storescp")
    peer("storescu")
    sources = tmp_path / "sources"
    sources.mkdir()
    paths = marked(sources)
    study = "1.2.826.0.1.3680043.10.1.1"
    with archives.storescp_in(tmp_path / "archive", "-aet", "ARCHIVE") as port:
        there = {"kind": "dicom", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
        with running(owner, {"archive": there}) as node:
            for path in paths:
                node.send(path)
            until(lambda: node.states().get("done", 0) >= 1)
            until(lambda: not set(node.states()) & {"received", "locked"})
            told = node.ask("/metrics")
            assert "medlocker" in told
        lines = node.logged()
    events = {line["event"] for line in lines}
    assert {"object received", "delivered"} <= events
    assert [line for line in lines if line.get("dropped")] == []
    for mark in (*NAME.split("^"), NUMBER, study):
        assert mark not in node.log + told
