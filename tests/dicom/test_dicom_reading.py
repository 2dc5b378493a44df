"""Files: whole, damaged, bare, deflated, big-endian."""

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.data import get_testdata_file

from factories import make_fundus, save
from medlocker_dicom.dicom import reading
from medlocker_dicom.dicom.fundus import read_fundus
from medlocker_dicom.dicom.reading import read_file, read_instance
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import (
    MedLockerError,
    NoPixelDataError,
    NotDicomError,
    PixelLayoutError,
    TransferSyntaxError,
    TruncatedError,
)

WHOLE = to_bytes(make_fundus())
META_END = 132 + 12 + struct.unpack_from("<L", WHOLE, 140)[0]


def in_meta(syntax: str) -> bytes:
    """Return the meta of `WHOLE` with another transfer syntax."""
    ds = make_fundus()
    value = uid.UID(syntax)
    data = to_bytes(ds)
    old = b"UI\x14\x001.2.840.10008.1.2.1\0"
    padded = value.encode() + b"\0" * (len(value) % 2)
    new = b"UI" + struct.pack("<H", len(padded)) + padded
    assert data.count(old) == 1
    size = struct.unpack_from("<L", data, 140)[0] + len(new) - len(old)
    return data[:140] + struct.pack("<L", size) + data[144:META_END].replace(old, new)


def deflate(data: bytes) -> bytes:
    """Deflate without a zlib header, as PS3.5 A.5 wants."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("name", ["missing.dcm", "."])
def test_an_unreadable_path_is_a_clear_error(tmp_path: Path, name: str) -> None:
    """A missing file or a folder is named in the message, not raised as OSError."""
    with pytest.raises(NotDicomError, match="cannot be read"):
        read_file(tmp_path / name)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"hello, world" * 40, b"\xff\xd8\xff\xe0" + bytes(500), bytes(4000), WHOLE[:131]],
    ids=["empty", "nul", "text", "jpeg", "zeros", "preamble"],
)
def test_what_is_not_dicom_is_refused(tmp_path: Path, data: bytes) -> None:
    """Other files raise NotDicomError with the file's name."""
    path = tmp_path / "odd.bin"
    path.write_bytes(data)
    with pytest.raises(NotDicomError, match=r"odd\.bin"):
        read_file(path)


def test_a_cut_anywhere_is_found() -> None:
    """Cut at any byte, the file is refused: as truncated, or as without pixels."""
    whole = read_instance(WHOLE)
    assert "PixelData" in whole
    for end in range(132, len(WHOLE)):
        try:
            ds = read_instance(WHOLE[:end])
        except TruncatedError:
            continue
        except NotDicomError:
            assert end == 132  # the prefix and nothing else
            continue
        assert "PixelData" not in ds, f"cut at {end} went unnoticed"


def test_a_cut_between_elements_leaves_no_pixels(tmp_path: Path) -> None:
    """A file cut exactly before Pixel Data says that it has none."""
    ds = make_fundus()
    del ds.PixelData
    with pytest.raises(NoPixelDataError, match=r"source\.dcm: holds no pixel data"):
        read_fundus(save(ds, tmp_path))


def test_zeros_after_the_last_element_are_harmless() -> None:
    """Padding to a block size, as some archives do, does not matter."""
    assert read_instance(WHOLE + bytes(512)) == read_instance(WHOLE)


@pytest.mark.parametrize("group", [0x0000, 0x0002])
def test_command_and_meta_elements_in_a_data_set_are_refused(group: int) -> None:
    """Neither belongs there (PS3.5 7.1): such an instance could not be written again."""
    odd = struct.pack("<HH2sHL", group, 0, b"UL", 4, 1)
    with pytest.raises(NotDicomError, match="element where an element belongs"):
        read_instance(WHOLE + odd)


def test_a_long_run_of_zeros_is_looked_at_once() -> None:
    """Zeros that something follows are no padding, and are refused where they begin."""
    with pytest.raises(NotDicomError, match=f"at byte {len(WHOLE)}"):
        read_instance(WHOLE + bytes(8 << 20) + WHOLE[META_END:])


def test_unknown_transfer_syntaxes_are_named(tmp_path: Path) -> None:
    """A video syntax is refused by its name."""
    path = tmp_path / "video.dcm"
    path.write_bytes(in_meta(uid.MPEG2MPML) + WHOLE[META_END:])
    with pytest.raises(TransferSyntaxError, match="MPEG2 Main Profile"):
        read_file(path)


def test_a_missing_transfer_syntax_is_an_error() -> None:
    """File meta information without a transfer syntax is not guessed around."""
    path = Path(str(get_testdata_file("meta_missing_tsyntax.dcm")))
    with pytest.raises(TransferSyntaxError, match="names no transfer syntax"):
        read_file(path)


def test_deflated_data_is_inflated() -> None:
    """A deflated data set is the same as a plain one."""
    data = in_meta(uid.DeflatedExplicitVRLittleEndian) + deflate(WHOLE[META_END:])
    assert read_instance(data) == read_instance(WHOLE)


def test_cut_or_damaged_deflate_is_found() -> None:
    """Deflated data that ends early or is garbage raises, whatever came before."""
    data = in_meta(uid.DeflatedExplicitVRLittleEndian)
    body = deflate(WHOLE[META_END:])
    with pytest.raises(TruncatedError, match="ends early"):
        read_instance(data + body[:-20])
    with pytest.raises(NotDicomError, match="damaged"):
        read_instance(data + b"\xff" * 100)


def test_a_deflate_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inflating stops at the cap, which is that of pixels and packet, with no memory for more."""
    assert reading.MAX_INFLATED_BYTES == (1 << 30) + (256 << 20)
    monkeypatch.setattr(reading, "MAX_INFLATED_BYTES", 1 << 20)
    data = in_meta(uid.DeflatedExplicitVRLittleEndian) + deflate(bytes(128 << 20))
    tracemalloc.start()
    with pytest.raises(PixelLayoutError, match="inflates to more"):
        read_instance(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    """A file above the cap is refused by its size alone; this one is sparse."""
    path = tmp_path / "huge.dcm"
    with path.open("wb") as file:
        file.truncate(reading.MAX_FILE_BYTES + 1)
    with pytest.raises(PixelLayoutError, match="more than"):
        read_file(path)


def test_a_bare_implicit_data_set_is_read(shared_data: Path) -> None:
    """A data set without preamble and meta holds what its complete twin does.

    The twin says JPEG Lossless but holds a lossy codestream; decoders of those
    may round differently, by one (ISO/IEC 10918-2).
    """
    bare = read_fundus(shared_data / "dicom" / "sample-op.lei")
    full = read_fundus(shared_data / "dicom" / "sample-op.dcm")
    assert bare.pixels.shape == full.pixels.shape == (1, 1536, 1536, 1)
    assert np.abs(bare.pixels.astype(int) - full.pixels).max() <= 1
    assert bare.ds.SOPInstanceUID == full.ds.SOPInstanceUID


def test_a_cut_bare_data_set_is_truncated(shared_data: Path) -> None:
    """A bare data set that ends early is told from a file that is not DICOM."""
    data = (shared_data / "dicom" / "sample-op.lei").read_bytes()
    with pytest.raises(TruncatedError, match="7FE0,0010"):
        read_instance(data[:-1000])


def test_big_endian_words_are_swapped() -> None:
    """Pixels of the big-endian twin equal those of the little-endian one."""
    twins = [
        read_file(Path(str(get_testdata_file(name))))
        for name in ("MR_small.dcm", "MR_small_bigendian.dcm")
    ]
    assert twins[0].PixelData == twins[1].PixelData
    assert twins[0].Rows == twins[1].Rows == 64


def test_endless_nesting_is_refused() -> None:
    """Sequences within sequences without end do not exhaust the stack."""
    nest = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(NotDicomError, match="deeper"):
        read_instance(WHOLE[:META_END] + nest * 100_000)


def test_a_stray_delimiter_is_refused() -> None:
    """pydicom would stop at it silently and lose what follows."""
    with pytest.raises(NotDicomError, match="delimiter"):
        read_instance(WHOLE[:META_END] + b"\xfe\xff\x0d\xe0\0\0\0\0" + WHOLE[META_END:])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_damage_escapes_as_another_error(data: st.DataObject) -> None:
    """Bytes overwritten anywhere give an instance or one of our errors, nothing else."""
    damaged = bytearray(WHOLE[: META_END + 1500])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    try:
        read_instance(bytes(damaged))
    except MedLockerError as exc:
        assert str(exc)  # noqa: PT017 - either way is right
