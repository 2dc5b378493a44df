"""C-STORE to foreign archives: DCMTK's storescp and Orthanc hold what was sent, bit by bit."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from archives import Archive, free_port, orthanc_in, storescp_in
from factories import make_fundus, make_pixels, save
from medlocker_dicom.dicom.decoding import decode_pixels
from medlocker_dicom.dicom.reading import read_file
from medlocker_dicom.node.config import DicomDestination
from medlocker_dicom.node.outcome import Kind, Outcome
from medlocker_dicom.node.sender import Senders
from receiving_certificates import certificates

Peer = Callable[[str], Callable[..., str]]


@pytest.fixture
def send(tmp_path: Path) -> Iterator[Callable[..., Outcome]]:
    """Return what sends a file to a port of this machine, with further settings."""
    with ExitStack() as stack:

        def call(port: int, path: Path, **more: Any) -> Outcome:
            where = {"kind": "dicom", "ae_title": "ANY", "host": "localhost", "port": port}
            archive = DicomDestination.model_validate(where | {"timeout_s": 10} | more)
            senders = Senders({"archive": archive}, "MEDLOCKER", tmp_path)
            stack.callback(senders.close)
            return senders.send("archive", path)

        yield call


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of certificates."""
    return certificates(tmp_path_factory.mktemp("tls"))


def ours(papers: Path, name: str) -> dict[str, Path]:
    """Return the settings of a side of ours that has the certificate of that name."""
    authorities = papers / "ca.pem"
    return {
        "certificate": papers / f"{name}.pem",
        "key": papers / f"{name}.key",
        "authorities": authorities,
    }


def dcmtk(papers: Path, name: str) -> list[str | Path]:
    """Return the options of a DCMTK program that has the certificate of that name."""
    key, certificate = papers / f"{name}.key", papers / f"{name}.pem"
    return ["+tls", key, certificate, "+cf", papers / "ca.pem"]


def stored_in(folder: Path) -> Dataset:
    """Read the one file of a storescp."""
    (path,) = folder.iterdir()
    return dcmread(path)


@pytest.mark.parametrize("bits", [8, 16])
def test_storescp(bits: int, peer: Peer, send: Callable[..., Outcome], tmp_path: Path) -> None:
    """An uncompressed object lies there as it was, byte for byte."""
    peer("storescp")
    path = save(make_fundus(make_pixels(bits=bits)), tmp_path)
    with storescp_in(tmp_path / "kept") as port:
        assert send(port, path).kind is Kind.STORED
        ds = stored_in(tmp_path / "kept")
    assert ds == dcmread(path)
    assert ds.PixelData == dcmread(path).PixelData


@pytest.mark.parametrize("options", [("+xi",), ("+xe",)])
@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless, JPEGLosslessSV1],
)
@pytest.mark.parametrize("bits", [8, 16])
def test_an_archive_of_fewer_syntaxes(  # noqa: PLR0917  fixtures add up
    bits: int,
    syntax: UID,
    options: tuple[str, ...],
    peer: Peer,
    send: Callable[..., Outcome],
    tmp_path: Path,
) -> None:
    """Implicit VR alone, or no compression: converted without loss, and nothing else changed."""
    peer("storescp")
    path = save(make_fundus(make_pixels(bits=bits)), tmp_path, "native.dcm")
    if syntax == JPEGLosslessSV1:
        peer("dcmcjpeg")("+e1", path, tmp_path / "source.dcm")
        path = tmp_path / "source.dcm"
    elif syntax.is_compressed:
        ds: Dataset = dcmread(path)
        ds.compress(syntax, generate_instance_uid=False)
        path = save(ds, tmp_path)
    before = {one.name for one in tmp_path.iterdir()}
    with storescp_in(tmp_path / "kept", *options) as port:
        assert send(port, path).kind is Kind.STORED
        ds = stored_in(tmp_path / "kept")
    expected = dcmread(path)
    wanted = ImplicitVRLittleEndian if options == ("+xi",) else ExplicitVRLittleEndian
    assert ds.file_meta.TransferSyntaxUID == wanted
    assert ds.PixelData == dcmread(tmp_path / "native.dcm").PixelData
    assert np.array_equal(
        decode_pixels(read_file(next((tmp_path / "kept").iterdir()))).pixels,
        decode_pixels(read_file(path)).pixels,
    )
    for element in expected:
        if element.keyword not in ("PixelData", "PhotometricInterpretation"):
            assert ds[element.tag].value == element.value, element.keyword
    assert {one.name for one in tmp_path.iterdir()} - before == {"kept", "kept.log"}


def test_a_lossy_object_is_never_transcoded(
    peer: Peer, send: Callable[..., Outcome], tmp_path: Path
) -> None:
    """An archive without JPEG does not get one: parked, and it is said why."""
    peer("storescp")
    native = save(make_fundus(make_pixels((1, 64, 64, 3))), tmp_path, "native.dcm")
    peer("dcmcjpeg")("+eb", native, tmp_path / "lossy.dcm")
    with storescp_in(tmp_path / "kept", "+xe") as port:
        outcome = send(port, tmp_path / "lossy.dcm")
    assert dcmread(tmp_path / "lossy.dcm").file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert outcome.kind is Kind.PARK
    assert outcome.said.endswith(
        "in JPEG Baseline (Process 1); it is lossy, and so sent in no other"
    )
    assert not list((tmp_path / "kept").iterdir())
    with storescp_in(tmp_path / "all", "+xa") as port:
        assert send(port, tmp_path / "lossy.dcm").kind is Kind.STORED
        assert stored_in(tmp_path / "all").PixelData == dcmread(tmp_path / "lossy.dcm").PixelData


GONE = (
    "the association was aborted",
    "the association was broken off",
    "connection reset by peer",
    "broken pipe",
)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--refuse", "association rejected ("),
        ("--abort-after", "the association was aborted"),
        ("--abort-during", "the association was aborted"),
    ],
)
def test_a_storescp_that_does_not_want(
    option: str, words: str, peer: Peer, send: Callable[..., Outcome], tmp_path: Path
) -> None:
    """It refuses, or aborts before or in an answer: tried again later.

    What is said of it is one of several words where its connection ends before they are read.
    """
    peer("storescp")
    path = save(make_fundus(make_pixels((1, 300, 300, 3))), tmp_path)
    with storescp_in(tmp_path / "kept", option) as port:
        outcome = send(port, path)
    assert outcome.kind is Kind.RETRY
    assert outcome.said.startswith((words, *GONE))


def test_tls(peer: Peer, send: Callable[..., Outcome], papers: Path, tmp_path: Path) -> None:
    """Certificates on both sides, with DCMTK: what is sent over TLS lies there."""
    peer("storescp")
    path = save(make_fundus(make_pixels((1, 400, 400, 3))), tmp_path)
    with storescp_in(tmp_path / "kept", *dcmtk(papers, "node")) as port:
        outcome = send(port, path, tls=ours(papers, "camera"))
        assert outcome == Outcome(Kind.STORED, "0000H stored")
        assert stored_in(tmp_path / "kept").PixelData == dcmread(path).PixelData


def test_tls_that_fails(
    peer: Peer, send: Callable[..., Outcome], papers: Path, tmp_path: Path
) -> None:
    """A stranger's certificate on either side, no TLS there, a file that is gone: each is said."""
    peer("storescp")
    path = save(make_fundus(), tmp_path)
    with storescp_in(tmp_path / "a", *dcmtk(papers, "stranger")) as port:
        outcome = send(port, path, tls=ours(papers, "camera"))
        assert outcome.kind is Kind.RETRY
        assert "TLS: its certificate is refused" in outcome.said
    with storescp_in(tmp_path / "b", *dcmtk(papers, "node")) as port:
        outcome = send(port, path, tls=ours(papers, "stranger"))
        assert outcome.kind is Kind.RETRY
        assert "TLS: " in outcome.said or "closed" in outcome.said
        outcome = send(port, path)
        assert outcome.kind is Kind.RETRY
    with storescp_in(tmp_path / "c") as port:
        outcome = send(port, path, tls=ours(papers, "camera"))
        assert outcome.kind is Kind.RETRY
        outcome = send(port, path, tls=ours(papers, "camera") | {"key": tmp_path / "gone.pem"})
        assert outcome.kind is Kind.RETRY
        assert "gone.pem: cannot be read" in outcome.said
    assert not [one for name in "abc" for one in (tmp_path / name).iterdir()]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Archive]]:
    """Return what starts this file's Orthanc at the first call, and then returns it."""
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(orthanc_in(tmp_path_factory.mktemp("orthanc"))))


@pytest.fixture
def orthanc(peer: Peer, start: Callable[[], Archive]) -> Archive:
    """Return a running Orthanc that holds nothing."""
    peer("Orthanc")
    archive = start()
    archive.empty()
    return archive


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless])
def test_orthanc(
    syntax: UID, orthanc: Archive, send: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Orthanc holds the object in the syntax that it was sent in, and takes it twice."""
    ds = make_fundus()
    if syntax.is_compressed:
        ds.compress(syntax, generate_instance_uid=False)
    path = save(ds, tmp_path)
    for _ in range(2):
        assert send(orthanc.dicom, path, ae_title="ORTHANC").kind is Kind.STORED
    (tmp_path / "kept.dcm").write_bytes(orthanc.file_of(str(ds.SOPInstanceUID)))
    kept = dcmread(tmp_path / "kept.dcm")
    assert kept.file_meta.TransferSyntaxUID == syntax
    assert kept.PixelData == dcmread(path).PixelData


def test_orthanc_that_is_gone(send: Callable[..., Outcome], tmp_path: Path) -> None:
    """Nobody listens: tried again later."""
    path = save(make_fundus(), tmp_path)
    outcome = send(free_port(), path)
    assert outcome == Outcome(Kind.RETRY, "cannot be connected to: connection refused")
    outcome = send(1, path, host="no-such-host.invalid")
    assert outcome.kind is Kind.RETRY
    assert "host name" in outcome.said
