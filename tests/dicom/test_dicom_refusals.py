"""Pixels that are refused: contradictory, cut, or larger than they can be."""

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate, generate_frames

from factories import make_fundus, make_pixels, wrap_jpeg
from medlocker_dicom.dicom.decoding import decode_pixels
from medlocker_dicom.dicom.layout import MAX_DECODED_BYTES
from medlocker_dicom.dicom.reading import read_file
from medlocker_dicom.errors import (
    MedLockerError,
    NoPixelDataError,
    PixelLayoutError,
    TransferSyntaxError,
    TruncatedError,
)

FRAMES = {
    "jpeg": "SC_rgb_jpeg_lossy_gdcm.dcm",
    "jpeg_lossless": "SC_rgb_jpeg_gdcm.dcm",
    "jpeg_ls": "SC_rgb_jls_lossy_line.dcm",
    "jpeg_2000": "SC_rgb_gdcm_KY.dcm",
    "rle": "SC_rgb_rle.dcm",
}


def encoded(kind: str) -> FileDataset:
    """Return a compressed instance."""
    ds = read_file(Path(str(get_testdata_file(FRAMES[kind]))))
    assert decode_pixels(ds).pixels.shape == (1, 100, 100, 3)
    return ds  # type: ignore[return-value]


def frame_of(ds: Any) -> bytes:
    """Return the first encapsulated frame without padding."""
    return bytes(next(generate_frames(ds.PixelData, number_of_frames=1))).rstrip(b"\0")


@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("Rows", 0, "1 x 0 x 36"),
        ("Rows", None, "Rows is not a single number"),
        ("Rows", [40, 40], "Rows is not a single number"),
        ("NumberOfFrames", 0, "0 x 40 x 36"),
        ("NumberOfFrames", -1, "-1 x 40 x 36"),
        ("NumberOfFrames", 2, "of 8640 bytes"),
        ("SamplesPerPixel", 1, "RGB has 3 samples per pixel, not 1"),
        ("PhotometricInterpretation", "MONOCHROME1", "'MONOCHROME1' is not read"),
        ("PhotometricInterpretation", "YBR_PARTIAL_420", "is not read"),
        ("PhotometricInterpretation", "YBR_RCT", "needs JPEG 2000"),
        ("PhotometricInterpretation", None, "'' is not read"),
        ("PixelRepresentation", 1, "signed"),
        ("PlanarConfiguration", 2, "planar configuration is 2"),
        ("BitsAllocated", 32, "bits allocated is 32"),
        ("BitsAllocated", 1, "bits allocated is 1"),
        ("BitsStored", 9, "9 bits stored do not fit 8"),
        ("BitsStored", 0, "0 bits stored"),
        ("HighBit", 6, "high bit is 6"),
    ],
)
def test_a_contradictory_image_pixel_module_is_refused(
    keyword: str, value: object, message: str
) -> None:
    """Each attribute out of line is named."""
    ds = make_fundus()
    setattr(ds, keyword, value)
    with pytest.raises((PixelLayoutError, TruncatedError), match=message):
        decode_pixels(ds)


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated", "BitsStored"])
def test_a_missing_attribute_is_named(keyword: str) -> None:
    """There is no default for what describes the samples."""
    ds = make_fundus()
    delattr(ds, keyword)
    with pytest.raises(PixelLayoutError, match="is missing"):
        decode_pixels(ds)


def test_no_or_empty_pixel_data() -> None:
    """Absent and empty Pixel Data are told from truncated ones."""
    ds = make_fundus()
    ds.PixelData = b""
    with pytest.raises(NoPixelDataError, match="empty"):
        decode_pixels(ds)
    del ds.PixelData
    with pytest.raises(NoPixelDataError, match="no pixel data"):
        decode_pixels(ds)


def test_native_pixel_data_must_have_its_length() -> None:
    """A byte less is truncated; a whole frame more contradicts the number of frames."""
    ds = make_fundus(make_pixels((1, 10, 10, 1)))
    whole = ds.PixelData
    ds.PixelData = whole[:-1]
    with pytest.raises(TruncatedError, match="99 of 100 bytes"):
        decode_pixels(ds)
    ds.PixelData = whole * 2
    with pytest.raises(PixelLayoutError, match="200 bytes"):
        decode_pixels(ds)
    ds.PixelData = whole + bytes(28)  # some devices pad
    assert decode_pixels(ds).pixels.shape == (1, 10, 10, 1)


def test_subsampled_native_pixels_need_even_columns() -> None:
    """YBR_FULL_422 pairs pixels."""
    ds = make_fundus(make_pixels((1, 4, 5, 3)))
    ds.PhotometricInterpretation = "YBR_FULL_422"
    with pytest.raises(PixelLayoutError, match="odd number of columns"):
        decode_pixels(ds)


def test_16_bit_ybr_is_refused() -> None:
    """The conversion is defined for 8 bits; nothing is guessed beyond."""
    ds = make_fundus(make_pixels((1, 4, 4, 3), 16))
    ds.PhotometricInterpretation = "YBR_FULL"
    with pytest.raises(PixelLayoutError, match="16 bits"):
        decode_pixels(ds)


def test_an_unknown_transfer_syntax_has_no_decoder() -> None:
    """A data set built in memory meets the same refusal as a file."""
    ds = make_fundus()
    ds.file_meta.TransferSyntaxUID = uid.HTJ2K
    with pytest.raises(TransferSyntaxError, match="cannot be read"):
        decode_pixels(ds)


@pytest.mark.parametrize("kind", FRAMES)
def test_a_cut_frame_is_found(kind: str) -> None:
    """A codestream cut anywhere is refused: decoders fill it up silently."""
    ds = encoded(kind)
    frame = frame_of(ds)
    for share in (0.001, 0.01, 0.1, 0.5, 0.9, 0.99):
        ds.PixelData = encapsulate([frame[: max(2, int(len(frame) * share))]])
        with pytest.raises((TruncatedError, TransferSyntaxError)):
            decode_pixels(ds)
    if kind != "rle":  # its last run may give more than is needed
        for less in (1, 2, 3):
            ds.PixelData = encapsulate([frame[:-less]])
            with pytest.raises(TruncatedError):
                decode_pixels(ds)


@pytest.mark.parametrize("kind", ["jpeg", "jpeg_lossless", "jpeg_ls", "jpeg_2000"])
@pytest.mark.parametrize("padding", [b"", b"\0", b"\xff", b"\x93", bytes(64)])
def test_padding_after_a_frame_is_harmless(kind: str, padding: bytes) -> None:
    """Encoders pad to an even length with 00, FF or what lay in memory."""
    ds = encoded(kind)
    expected = decode_pixels(ds).pixels
    ds.PixelData = encapsulate([frame_of(ds) + padding])
    assert np.array_equal(decode_pixels(ds).pixels, expected)


@pytest.mark.parametrize("kind", ["jpeg", "jpeg_lossless"])
def test_a_cut_frame_with_an_end_marker_is_found(kind: str) -> None:
    """An end marker put after a stump does not make up for the missing data."""
    ds = encoded(kind)
    frame = frame_of(ds)
    stump = frame[: frame.index(b"\xff\xda") + 40] + b"\xff\xd9"
    ds.PixelData = encapsulate([stump])
    with pytest.raises(TruncatedError, match="too few"):
        decode_pixels(ds)


@pytest.mark.parametrize("kind", FRAMES)
def test_missing_and_surplus_frames_are_found(kind: str) -> None:
    """The number of frames must be the data set's."""
    ds = encoded(kind)
    frame = frame_of(ds)
    ds.NumberOfFrames = 3
    ds.PixelData = encapsulate([frame, frame])
    with pytest.raises(TruncatedError):
        decode_pixels(ds)
    ds.NumberOfFrames = 2
    assert len(decode_pixels(ds).pixels) == 2
    ds.NumberOfFrames = 1
    with pytest.raises((PixelLayoutError, TruncatedError)):
        decode_pixels(ds)


@pytest.mark.parametrize("kind", ["jpeg", "jpeg_lossless", "jpeg_ls", "jpeg_2000"])
@pytest.mark.parametrize(("keyword", "value"), [("Rows", 101), ("Columns", 99)])
def test_the_codestream_must_have_the_data_sets_size(kind: str, keyword: str, value: int) -> None:
    """Decoders size their output by the codestream, so the two must agree."""
    ds = encoded(kind)
    setattr(ds, keyword, value)
    with pytest.raises(PixelLayoutError, match="100 x 100 x 3"):
        decode_pixels(ds)


def test_samples_above_bits_stored_are_refused() -> None:
    """A codestream deeper than Bits Stored says would lose its top bits."""
    ds = encoded("jpeg_lossless")
    ds.BitsStored, ds.HighBit = 4, 3
    with pytest.raises(PixelLayoutError, match="4 bits cannot hold"):
        decode_pixels(ds)


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_of_another_kind_is_refused(kind: str) -> None:
    """What is no such codestream never reaches the decoder."""
    ds = encoded(kind)
    ds.PixelData = encapsulate([b"GIF89a" + bytes(range(1, 200))])
    with pytest.raises(MedLockerError):
        decode_pixels(ds)


def test_pixel_data_that_is_not_encapsulated_is_refused() -> None:
    """Raw bytes where fragments belong do not decode to anything."""
    ds = make_fundus()
    ds.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    with pytest.raises(TruncatedError, match="cannot be split"):
        decode_pixels(ds)


def box(kind: bytes, value: bytes) -> bytes:
    """Return a box of a JP2 file (ISO/IEC 15444-1 I.4)."""
    return struct.pack(">L4s", 8 + len(value), kind) + value


SIGNATURE = box(b"jP  ", b"\r\n\x87\n")


def test_a_jp2_file_gives_its_codestream() -> None:
    """Boxes around a codestream change nothing, in each way of telling their length."""
    ds = encoded("jpeg_2000")
    frame, expected = frame_of(ds), decode_pixels(ds).pixels
    for wrapped in (
        box(b"jp2c", frame) + box(b"uuid", bytes(16)),
        struct.pack(">L4s", 0, b"jp2c") + frame + b"\0",
        struct.pack(">L4sQ", 1, b"jp2c", 16 + len(frame)) + frame,
    ):
        ds.PixelData = encapsulate([SIGNATURE + box(b"ftyp", b"jp2 \0\0\0\0jp2 ") + wrapped])
        assert np.array_equal(decode_pixels(ds).pixels, expected)


def test_a_decoy_beside_the_codestream_is_passed_over() -> None:
    """The size that counts is the codestream's, not that in a box before it."""
    ds = encoded("jpeg_2000")
    frame = frame_of(ds)
    big = bytearray(frame)
    struct.pack_into(">2L", big, 8, 20000, 20000)
    decoy = box(b"uuid", bytes(16) + frame[:120])
    ds.PixelData = encapsulate([SIGNATURE + decoy + box(b"jp2c", bytes(big))])
    with pytest.raises(PixelLayoutError, match="20000 x 20000"):
        decode_pixels(ds)


@pytest.mark.parametrize("rest", [b"", b"\0\0\0", box(b"uuid", b""), struct.pack(">L4s", 99, b"x")])
def test_a_jp2_file_without_codestream_is_truncated(rest: bytes) -> None:
    """Boxes that end, or lead out of the frame, before ``jp2c``."""
    ds = encoded("jpeg_2000")
    ds.PixelData = encapsulate([SIGNATURE + rest])
    with pytest.raises(TruncatedError, match="before its codestream"):
        decode_pixels(ds)


def test_a_box_cannot_lead_backwards() -> None:
    """A length below that of the box's own header is refused, and does not loop."""
    ds = encoded("jpeg_2000")
    ds.PixelData = encapsulate([SIGNATURE + struct.pack(">L4s", 4, b"uuid") + frame_of(ds)])
    with pytest.raises(TransferSyntaxError, match="shorter than its header"):
        decode_pixels(ds)


def huge_jpeg(ds: FileDataset) -> None:
    """Claim 6000 x 6000 pixels in data set and codestream alike."""
    ds.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    sof = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 6000, 6000)
    sof += b"\x03\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    ds.PixelData = encapsulate([b"\xff\xd8" + sof + b"\xff\xda\x00\x02\xff\xd9"])


def huge_rle(ds: FileDataset) -> None:
    """Claim 6000 x 6000 pixels with three runs."""
    ds.file_meta.TransferSyntaxUID = uid.RLELossless
    header = struct.pack("<16L", 3, 64, 66, 68, *[0] * 12)
    ds.PixelData = encapsulate([header + b"\x81\x00" * 3])


def huge_native(ds: FileDataset) -> None:
    """Claim 6000 x 6000 pixels with no more than a few bytes."""
    ds.PixelData = bytes(100)


@pytest.mark.parametrize("claim", [huge_jpeg, huge_rle, huge_native])
def test_a_tiny_file_cannot_claim_36_megapixels(claim: Callable[[FileDataset], None]) -> None:
    """It is refused before 108 MB are allocated for it."""
    ds = make_fundus(make_pixels((1, 2, 2, 3)))
    ds.Rows = ds.Columns = 6000
    claim(ds)
    tracemalloc.start()
    with pytest.raises(TruncatedError):
        decode_pixels(ds)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("frames", "rows", "columns"), [(1, 65535, 65535), (2**31 - 1, 65535, 65535), (3000, 700, 700)]
)
def test_absurd_sizes_are_refused_by_arithmetic(frames: int, rows: int, columns: int) -> None:
    """Rows x Columns x Frames beyond the cap never reaches an allocation."""
    ds = make_fundus()
    ds.NumberOfFrames, ds.Rows, ds.Columns = frames, rows, columns
    with pytest.raises(PixelLayoutError, match=f"more than {MAX_DECODED_BYTES}"):
        decode_pixels(ds)


def test_rle_segments_must_fit() -> None:
    """The number of segments is checked, and their offsets cannot point astray."""
    ds = encoded("rle")
    frame = frame_of(ds)
    ds.PixelData = encapsulate([struct.pack("<L", 4) + frame[4:]])
    with pytest.raises(PixelLayoutError, match="4 segments"):
        decode_pixels(ds)
    ds.PixelData = encapsulate([frame[:8] + struct.pack("<L", 2**32 - 1) + frame[12:]])
    with pytest.raises(TruncatedError):
        decode_pixels(ds)


@pytest.mark.parametrize(
    "tamper",
    [
        lambda ds: delattr(ds, "RedPaletteColorLookupTableDescriptor"),
        lambda ds: delattr(ds, "BluePaletteColorLookupTableData"),
        lambda ds: setattr(ds, "RedPaletteColorLookupTableDescriptor", [256, 0, 12]),
        lambda ds: setattr(ds, "RedPaletteColorLookupTableDescriptor", [1, 0, 8]),
        lambda ds: setattr(ds, "GreenPaletteColorLookupTableData", b"\0\0"),
    ],
)
def test_damaged_palettes_are_refused(tamper: Callable[[FileDataset], None]) -> None:
    """A palette that is missing a part raises, instead of giving wrong colours."""
    ds = make_fundus(make_pixels((1, 8, 8, 1)))
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for name in ("Red", "Green", "Blue"):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(ds, f"{name}PaletteColorLookupTableData", bytes(range(256)))
    assert decode_pixels(ds).pixels.shape == (1, 8, 8, 3)
    tamper(ds)
    with pytest.raises(PixelLayoutError, match="palette"):
        decode_pixels(ds)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(sorted(FRAMES)))
def test_damaged_frames_give_pixels_or_our_errors(data: st.DataObject, kind: str) -> None:
    """No codec's exception gets through, and what decodes has the right shape."""
    ds = encoded(kind)
    damaged = bytearray(frame_of(ds))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    ds.PixelData = encapsulate([bytes(damaged)])
    try:
        pixels = decode_pixels(ds).pixels
    except MedLockerError:
        return
    assert pixels.shape == (1, 100, 100, 3)
    assert pixels.dtype == np.uint8


def test_only_baseline_jpegs_are_wrapped() -> None:
    """A photograph that a JPEG Baseline instance cannot hold is refused."""
    frame = frame_of(encoded("jpeg_lossless"))
    with pytest.raises(PixelLayoutError, match="not baseline"):
        wrap_jpeg(frame)
    with pytest.raises(TransferSyntaxError):
        wrap_jpeg(b"\x89PNG")
