"""The locked instance: valid, honest about itself, readable after others had it."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset

from factories import TAKEN, make_fundus, make_pixels, save, wrap_jpeg
from medlocker_dicom.dicom.capture import CODECS, attach_packet, build_capture
from medlocker_dicom.dicom.fundus import Fundus, decode_fundus, read_fundus
from medlocker_dicom.dicom.locked import Locked, decode_locked, read_locked
from medlocker_dicom.dicom.private import CREATOR, GROUP
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import (
    MedLockerError,
    NotDicomError,
    NotFundusError,
    NotLockedError,
    PacketError,
    PacketMissingError,
    PixelLayoutError,
    TruncatedError,
    UIDError,
)

Peers = Callable[[str], Callable[..., str]]
SERIES, INSTANCE = "2.25.11", "2.25.12"
PACKET, ISSUER = bytes(range(251)), bytes(range(100, 132))
FORMATS = [
    ((1, 40, 36, 3), 8),
    ((1, 41, 37, 3), 8),
    ((1, 40, 36, 1), 8),
    ((1, 40, 36, 1), 12),
    ((1, 40, 36, 1), 16),
    ((1, 40, 36, 3), 16),
    ((3, 40, 36, 3), 8),
    ((3, 41, 37, 1), 8),
    ((2, 40, 36, 1), 6),
    ((2, 40, 36, 1), 12),
    ((2, 40, 36, 1), 16),
]


def mark(pixels: Any) -> Any:
    """Return pixels with something on them."""
    marked = pixels.copy()
    marked[:, 2:9, 3:8] //= 2
    return marked


def lock(source: Fundus, codec: str = "uncompressed", packet: bytes | None = PACKET) -> FileDataset:
    """Build a locked instance."""
    ds = build_capture(
        source,
        mark(source.pixels),
        series_uid=SERIES,
        instance_uid=INSTANCE,
        now=TAKEN,
        version="1.2.3",
        codec=codec,
    )
    attach_packet(ds, packet, ISSUER)
    return ds


def errors_of(report: str) -> list[str]:
    """Return the errors in dciodvfy's report, which must be one."""
    assert "Image\n" in report, report
    return [line for line in report.splitlines() if line.startswith(("Error", "Abort"))]


@pytest.mark.parametrize("codec", ["uncompressed", *CODECS])
@pytest.mark.parametrize(("shape", "bits"), FORMATS, ids=str)
def test_locked_instances_are_valid_and_exact(
    shape: tuple[int, int, int, int], bits: int, codec: str, tmp_path: Path, peer: Peers
) -> None:
    """dciodvfy finds no error in any kind of locked instance; pixels and packet come back."""
    pixels = make_pixels(shape, bits)
    source = read_fundus(save(make_fundus(pixels, bits), tmp_path))
    path = save(lock(source, codec), tmp_path, "locked.dcm")
    assert errors_of(peer("dciodvfy")(path)) == []
    locked = read_locked(path)
    assert np.array_equal(locked.pixels, mark(pixels))
    assert locked.pixels.dtype == pixels.dtype
    assert (locked.packet, locked.issuer, locked.bits) == (PACKET, ISSUER, bits)
    assert locked.source_uid == source.ds.SOPInstanceUID
    assert locked.source_class_uid == source.ds.SOPClassUID
    assert locked.photometric == source.photometric


@pytest.mark.parametrize(
    ("shape", "bits", "sop_class"),
    [
        ((1, 8, 8, 1), 16, uid.SecondaryCaptureImageStorage),
        ((1, 8, 8, 3), 8, uid.SecondaryCaptureImageStorage),
        ((2, 8, 8, 3), 8, uid.MultiFrameTrueColorSecondaryCaptureImageStorage),
        ((2, 8, 8, 1), 8, uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage),
        ((2, 8, 8, 1), 16, uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage),
    ],
)
def test_the_sop_class_fits_the_frames(
    shape: tuple[int, int, int, int], bits: int, sop_class: str
) -> None:
    """One frame is a plain Secondary Capture, several need the class for their samples."""
    ds = lock(decode_fundus(make_fundus(make_pixels(shape, bits))))
    assert ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID == sop_class


def test_the_locked_instance_says_what_it_is() -> None:
    """Identity, derivation, equipment and source are as the design wants them."""
    source = make_fundus()
    before = Dataset()
    before.CodeValue, before.CodingSchemeDesignator = "113040", "DCM"
    before.CodeMeaning = "Lossy Compression"
    source.DerivationCodeSequence, source.DerivationDescription = [before], "Compressed"
    other = Dataset()
    other.Manufacturer = "Someone"
    source.ContributingEquipmentSequence = [other]
    source.IconImageSequence = [Dataset()]
    source.add_new(0x00091001, "LO", "private")
    uids = source.SOPClassUID, source.SOPInstanceUID
    ds = lock(decode_fundus(source))
    assert (ds.SeriesInstanceUID, ds.SOPInstanceUID) == (SERIES, INSTANCE)
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "InstanceNumber"):
        assert ds[keyword].value == source[keyword].value
    assert ds.ImageType == ["DERIVED", "SECONDARY"]
    assert (ds.Modality, ds.ConversionType) == ("OP", "WSD")
    assert ds.SeriesDescription == "MedLocker locked"
    assert ds.ImageLaterality == "R"
    assert ds.AnatomicRegionSequence[0].CodeMeaning == "Retina"
    assert ds.BurnedInAnnotation == "NO"
    codes = [item.CodeValue for item in ds.DerivationCodeSequence]
    assert codes == ["113040", "113047", "VAW"]
    assert ds.DerivationDescription.startswith("Compressed; A visible")
    assert ds.ContributingEquipmentSequence[0].Manufacturer == "Someone"
    ours = ds.ContributingEquipmentSequence[1]
    assert ours.PurposeOfReferenceCodeSequence[0].CodeValue == "109103"
    assert (ours.SoftwareVersions, ours.ContributionDateTime) == ("1.2.3", "20240506070809")
    (reference,) = ds.SourceImageSequence
    assert (reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID) == uids
    assert reference.SpatialLocationsPreserved == "YES"
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert (ds.PhotometricInterpretation, ds.PlanarConfiguration) == ("RGB", 0)
    assert "IconImageSequence" not in ds
    assert 0x00091001 not in ds


def test_a_loss_is_never_forgotten() -> None:
    """Lossy Image Compression 01 stays, with ratio and method, or is set for a lossy syntax."""
    frame = (Path(str(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm")))).read_bytes()
    jpeg = frame[frame.index(b"\xff\xd8\xff") : frame.rindex(b"\xff\xd9") + 2]
    source = wrap_jpeg(jpeg)
    ratio = source.LossyImageCompressionRatio
    ds = lock(decode_fundus(source))
    assert ds.LossyImageCompression == "01"
    assert ds.LossyImageCompressionRatio == ratio
    assert ds.LossyImageCompressionMethod == "ISO_10918_1"
    silent = wrap_jpeg(jpeg)
    del silent.LossyImageCompression, silent.LossyImageCompressionMethod
    ds = lock(decode_fundus(silent))
    assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == ("01", "ISO_10918_1")


def test_laterality_of_the_series_is_copied() -> None:
    """Photographs without image laterality keep their series'."""
    source = make_fundus()
    del source.ImageLaterality
    source.Laterality = "L"
    ds = lock(decode_fundus(source))
    assert ds.Laterality == "L"
    assert "ImageLaterality" not in ds


def test_an_aware_clock_speaks_the_sources_zone() -> None:
    """Times agree with the Timezone Offset From UTC that is copied."""
    source = make_fundus()
    source.TimezoneOffsetFromUTC = "-0330"
    fundus = decode_fundus(source)
    now = datetime(2024, 1, 1, 1, 0, 0, tzinfo=UTC)
    ds = build_capture(
        fundus,
        mark(fundus.pixels),
        series_uid=SERIES,
        instance_uid=INSTANCE,
        now=now,
        version="1",
    )
    assert (ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture) == ("20231231", "213000")
    when = ds.ContributingEquipmentSequence[0].ContributionDateTime
    assert when == "20231231213000-0330"


def test_frame_times_are_kept() -> None:
    """A multi-frame source's frame times stay; frames without become pages."""
    source = make_fundus(make_pixels((3, 8, 8, 3)))
    source.FrameTime = "40"
    ds = lock(decode_fundus(source))
    assert (ds.NumberOfFrames, ds.FrameTime) == (3, 40)
    assert ds.FrameIncrementPointer == 0x00181063
    source = make_fundus(make_pixels((3, 8, 8, 3)))
    del source.FrameTime
    ds = lock(decode_fundus(source))
    assert ds.PageNumberVector == [1, 2, 3]
    assert ds.FrameIncrementPointer == 0x00182001


def test_unknown_annotation_counts_as_identifying() -> None:
    """Where Burned In Annotation is required and unknown, YES errs on the safe side."""
    source = make_fundus(make_pixels((2, 8, 8, 3)))
    del source.BurnedInAnnotation
    assert lock(decode_fundus(source)).BurnedInAnnotation == "YES"
    source = make_fundus()
    del source.BurnedInAnnotation
    assert "BurnedInAnnotation" not in lock(decode_fundus(source))


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    """A replay after a crash writes the same bytes."""
    path = save(make_fundus(), tmp_path)
    assert to_bytes(lock(read_fundus(path))) == to_bytes(lock(read_fundus(path)))


def test_multi_frame_deep_colour_has_no_class() -> None:
    """DICOM offers no Secondary Capture for it, so it is held, with a reason."""
    source = decode_fundus(make_fundus(make_pixels((2, 8, 8, 3), 16)))
    with pytest.raises(PixelLayoutError, match="fit no secondary capture"):
        lock(source)


def test_a_codec_that_refuses_is_a_clear_error() -> None:
    """JPEG 2000 with few rows does not end in a traceback."""
    source = decode_fundus(make_fundus(make_pixels((1, 4, 4, 3))))
    with pytest.raises(PixelLayoutError, match="4 x 4 pixels cannot be written as j2k"):
        lock(source, "j2k")


def test_misuse_is_refused() -> None:
    """Wrong shape, codec, UIDs, issuer and packet are errors before anything is built."""
    source = decode_fundus(make_fundus())
    rest: dict[str, Any] = {"now": TAKEN, "version": "1"}
    uids: dict[str, Any] = {"series_uid": SERIES, "instance_uid": INSTANCE}
    with pytest.raises(ValueError, match="shape and dtype"):
        build_capture(source, source.pixels[:, 1:], **uids, **rest)
    with pytest.raises(ValueError, match="no codec 'gif'"):
        build_capture(source, source.pixels, **uids, **rest, codec="gif")
    for wrong in uids:
        with pytest.raises(UIDError):
            build_capture(source, source.pixels, **(uids | {wrong: "../x"}), **rest)
    ds = build_capture(source, source.pixels, **uids, **rest)
    with pytest.raises(ValueError, match="32 bytes"):
        attach_packet(ds, PACKET, b"short")
    with pytest.raises(ValueError, match="a packet has 1 to"):
        attach_packet(ds, b"", ISSUER)
    with pytest.raises(ValueError, match="not from build_capture"):
        attach_packet(make_fundus(), PACKET, ISSUER)


def test_a_locked_instance_is_not_locked_again(tmp_path: Path) -> None:
    """Whole or stripped, it is recognised and refused as a source."""
    path = save(lock(decode_fundus(make_fundus())), tmp_path)
    with pytest.raises(NotFundusError, match="is locked already"):
        read_fundus(path)
    ds = dcmread(path)
    ds.remove_private_tags()
    with pytest.raises(NotFundusError, match="is locked already"):
        read_fundus(save(ds, tmp_path))


@pytest.mark.parametrize("packet", [b"\0", b"\0\0", b"a" * 2, b"abc\0", b"\0" * 7, bytes(99_999)])
def test_packets_of_any_length_come_back(packet: bytes, tmp_path: Path) -> None:
    """Padding is never taken for a part of the packet, nor the other way round."""
    ds = lock(decode_fundus(make_fundus()), packet=packet)
    assert read_locked(save(ds, tmp_path)).packet == packet


def test_a_detached_packet_leaves_the_rest() -> None:
    """Without a packet inside, issuer and source are still there."""
    locked = decode_locked(lock(decode_fundus(make_fundus()), packet=None))
    assert (locked.packet, locked.issuer) == (None, ISSUER)


def test_attaching_again_replaces() -> None:
    """A second packet takes the first one's place."""
    ds = lock(decode_fundus(make_fundus()))
    attach_packet(ds, b"other", ISSUER[::-1])
    locked = decode_locked(ds)
    assert (locked.packet, locked.issuer) == (b"other", ISSUER[::-1])


TRANSPORTS = [
    ("dcmconv", ("+ti",)),
    ("dcmconv", ("+te",)),
    ("dcmconv", ("+tb",)),
    ("dcmconv", ("+td",)),
    ("dcmconv", ("+ti", "-e")),
    ("gdcmconv", ("--implicit",)),
    ("gdcmconv", ("--explicit",)),
    ("gdcmconv", ("--j2k",)),
    ("gdcmconv", ("--jpegls",)),
    ("dcmcjpeg", ("+e1",)),
    ("dcmcjpls", ("+el",)),
    ("dcmcrle", ()),
]


@pytest.mark.parametrize(("tool", "options"), TRANSPORTS, ids="".join)
def test_others_may_encode_it_anew(
    tool: str, options: tuple[str, ...], tmp_path: Path, peer: Peers
) -> None:
    """Pixels and packet survive DCMTK and GDCM, in implicit VR and compressed, and back."""
    source = decode_fundus(make_fundus())
    path, there, back = (tmp_path / name for name in ("a.dcm", "b.dcm", "c.dcm"))
    save(lock(source), tmp_path, "a.dcm")
    peer(tool)(*options, path, there)
    check_same(read_locked(there), source)
    compressed = dcmread(there).file_meta.TransferSyntaxUID.is_compressed
    peer("gdcmconv" if compressed else "dcmconv")("--raw" if compressed else "+te", there, back)
    check_same(read_locked(back), source)


def check_same(locked: Locked, source: Fundus) -> None:
    """Compare a locked instance with what went in."""
    assert np.array_equal(locked.pixels, mark(source.pixels))
    assert (locked.packet, locked.issuer, locked.bits) == (PACKET, ISSUER, 8)
    assert locked.source_uid == source.ds.SOPInstanceUID
    assert locked.photometric == "RGB"


def test_unknown_vrs_and_another_slot_are_read() -> None:
    """A block that was moved and turned into UN is still ours."""
    ds = lock(decode_fundus(make_fundus()))
    moved = [(e.tag, e.value) for e in ds.group_dataset(GROUP)]
    for tag, _ in moved:
        del ds[tag]
    for tag, value in moved:
        element = 0x23 if tag.element == 0x10 else 0x2300 | tag.element & 0xFF
        data = value if isinstance(value, bytes) else str(value).encode() + b" "
        ds.add_new((GROUP, element), "UN", data)
    ds.add_new((GROUP, 0x10), "LO", "SOMEONE ELSE")
    assert decode_locked(ds).packet == PACKET


def test_what_was_never_locked_is_told() -> None:
    """A plain photograph carries no lock."""
    with pytest.raises(NotLockedError, match="not locked by us"):
        decode_locked(make_fundus())


def test_a_stripped_packet_is_told(tmp_path: Path) -> None:
    """A de-identifier that removed private elements left a clear trace."""
    ds = lock(decode_fundus(make_fundus()))
    ds.remove_private_tags()
    with pytest.raises(PacketMissingError, match=r"source\.dcm: .*stripped") as raised:
        read_locked(save(ds, tmp_path))
    assert "ask the owner" in raised.value.hint
    del ds.DerivationCodeSequence
    with pytest.raises(PacketMissingError):
        decode_locked(ds)
    del ds.ContributingEquipmentSequence
    with pytest.raises(NotLockedError):
        decode_locked(ds)


def test_unreadable_files_are_told(tmp_path: Path) -> None:
    """Not DICOM and truncated are what they are for sources, too."""
    data = to_bytes(lock(decode_fundus(make_fundus())))
    path = tmp_path / "locked.dcm"
    path.write_bytes(data[:-100])
    with pytest.raises(TruncatedError):
        read_locked(path)
    path.write_bytes(data[200:])
    with pytest.raises(NotDicomError):
        read_locked(path)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (1, b""),
        (1, b"\0\0\0"),
        (1, b"\0\0\0\0"),
        (1, b"\0\0\0\x09short"),
        (1, b"\0\0\0\x01ab"),
        (1, b"\xff\xff\xff\xffab"),
        (2, b"short"),
        (5, b"17"),
        (5, b"0 "),
        (5, b"8x"),
        (5, b"16"),
    ],
)
def test_a_damaged_block_is_told(offset: int, value: bytes) -> None:
    """Every part of the block is checked."""
    ds = lock(decode_fundus(make_fundus()))
    ds.add_new((GROUP, 0x1000 | offset), "UN", value)
    with pytest.raises(PacketError):
        decode_locked(ds)


@pytest.mark.parametrize("offset", [3, 4])
def test_hostile_source_uids_are_refused(offset: int) -> None:
    """The source's UIDs may become file names, so they must be UIDs."""
    ds = lock(decode_fundus(make_fundus()))
    ds.add_new((GROUP, 0x1000 | offset), "UN", b"../../etc")
    with pytest.raises(UIDError, match="source's"):
        decode_locked(ds)


def test_the_block_does_not_print_secrets() -> None:
    """A locked instance's repr shows no packet and no name."""
    shown = repr(decode_locked(lock(decode_fundus(make_fundus()))))
    assert "Doe" not in shown
    assert "packet" not in shown


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom tells of the samples' oddities
def test_every_readable_sample_can_be_locked() -> None:
    """Whatever of pydicom's files is a source becomes a locked instance."""
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    locked = 0
    for path in sorted(folder.glob("*.dcm")):
        try:
            source = read_fundus(path)
        except MedLockerError:
            continue
        try:
            ds = lock(source)
        except PixelLayoutError as exc:
            assert "fit no secondary capture" in str(exc)  # noqa: PT017 - one file is such
            continue
        assert np.array_equal(decode_locked(ds).pixels, mark(source.pixels))
        locked += 1
    assert locked == 25


def test_the_creator_is_registered_once() -> None:
    """The private group is odd and the creator fits its VR (PS3.5 7.8.1)."""
    assert GROUP % 2 == 1
    assert len(CREATOR) <= 64
