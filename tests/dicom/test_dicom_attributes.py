"""Attributes: packed, unpacked, the same."""

import lzma
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset

from factories import make_fundus, save
from medlocker_dicom.dicom import attributes
from medlocker_dicom.dicom.attributes import pack_attributes, unpack_attributes
from medlocker_dicom.dicom.decoding import PIXEL_KEYWORDS
from medlocker_dicom.dicom.reading import read_file, read_instance
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import MedLockerError, NotDicomError, PacketError, PixelLayoutError

SHORT_VRS = ["AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UI"]
NUMBER_VRS = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "AT": 4}
LONG_VRS = ["OB", "OW", "OF", "OD", "OL", "UN", "UT", "UC", "UR", "SV", "UV"]


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Encode an element in Explicit VR Little Endian, whatever its value."""
    value += b" " * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    if vr in LONG_VRS or vr == "SQ":
        return head + b"\0\0" + struct.pack("<L", len(value)) + value
    return head + struct.pack("<H", len(value)) + value


@st.composite
def elements(draw: st.DrawFn, depth: int = 2) -> bytes:
    """Encode a data set of arbitrary elements: right, wrong, private and nested."""
    tags = draw(
        st.sets(
            st.one_of(
                st.integers(0x000A0001, 0x0050FFFF),
                st.integers(0x00091001, 0x000910FF),
                st.integers(0x00130010, 0x00130013),
            ),
            max_size=6,
        )
    )
    out = element(0x00080005, "CS", draw(st.sampled_from([b"ISO_IR 192", b"ISO_IR 100", b""])))
    out += element(0x00090010, "LO", b"A CREATOR")
    for tag in sorted(tag for tag in tags if tag & 0xFFFF):
        vrs = [*SHORT_VRS, *NUMBER_VRS, *LONG_VRS] + (["SQ"] if depth else [])
        vr = draw(st.sampled_from(vrs))
        if vr == "SQ":
            item = draw(elements(depth - 1))
            value = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(item)) + item
        else:
            value = draw(st.binary(max_size=12))
            value = value * NUMBER_VRS.get(vr, 1)
        out += element(tag, vr, value)
    return out


def parse(data: bytes) -> Dataset:
    """Parse Explicit VR Little Endian, with the least file meta information."""
    ds = read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return ds


@settings(max_examples=300, deadline=None)
@given(elements())
def test_every_byte_of_any_data_set_survives(data: bytes) -> None:
    """Private, nested, odd and invalid values come back as the very same bytes."""
    ds = parse(data)
    back = unpack_attributes(pack_attributes(ds))
    assert attributes.encode_elements(back) == data


@settings(max_examples=100, deadline=None)
@given(elements())
def test_packing_does_not_depend_on_having_looked(data: bytes) -> None:
    """Elements that were parsed meanwhile are written back with the same meaning."""
    ds = parse(data)
    plain = pack_attributes(ds)
    assert pack_attributes(ds) == plain
    assert pack_attributes(unpack_attributes(plain)) == plain


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom tells of the samples' oddities
def test_pydicoms_files_keep_every_attribute() -> None:
    """All syntaxes, character sets, private sequences: equal after the round trip."""
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    compared = 0
    for path in sorted(folder.glob("*.dcm")):
        try:
            ds = read_file(path)
        except MedLockerError:
            continue
        back = unpack_attributes(pack_attributes(ds))
        original = dcmread(path, force=True)
        for keyword in PIXEL_KEYWORDS:
            original.pop(keyword, None)
        for each in original:
            if each.tag.element != 0:  # group lengths go
                assert back[each.tag].value == each.value, (path.name, each.tag)
        assert back.file_meta.TransferSyntaxUID == ds.file_meta.TransferSyntaxUID
        compared += 1
    assert compared > 60


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 192", "Grüße^李"),
        ("ISO_IR 100", "Grüße^Österreich"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_names_in_any_character_set_survive(charset: Any, name: str, tmp_path: Path) -> None:
    """Bytes and meaning of a name are the same, parsed beforehand or not."""
    ds = make_fundus()
    ds.SpecificCharacterSet = charset
    ds.PatientName = name
    source = read_file(save(ds, tmp_path))
    untouched = pack_attributes(source)
    assert str(source.PatientName) == name
    assert pack_attributes(source) == untouched
    assert str(unpack_attributes(untouched).PatientName) == name


def test_values_that_break_their_vr_survive(tmp_path: Path) -> None:
    """A decimal string with a comma and an over-long code, as devices send them."""
    data = to_bytes(make_fundus())
    data += element(0x7FE10010, "LO", b"X") + element(0x7FE11001, "DS", b"1,5")
    data += element(0x7FE11002, "IS", b"seven") + element(0x7FE11003, "CS", b"x" * 40)
    source = read_instance(data)
    assert b"1,5" in attributes.encode_elements(unpack_attributes(pack_attributes(source)))
    assert tmp_path.exists()


def test_file_meta_is_kept() -> None:
    """What the source's file meta said is there again."""
    ds = make_fundus()
    ds.file_meta.SourceApplicationEntityTitle = "CAMERA"
    back = unpack_attributes(pack_attributes(ds))
    assert back.file_meta.SourceApplicationEntityTitle == "CAMERA"
    assert "PixelData" not in back


def test_too_many_attributes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap holds when packing."""
    monkeypatch.setattr(attributes, "MAX_ATTRIBUTE_BYTES", 100)
    with pytest.raises(PixelLayoutError, match="more than 100"):
        pack_attributes(make_fundus())


def test_attributes_that_cannot_be_encoded_are_refused() -> None:
    """An element that pydicom cannot write stops packing with our error."""
    ds = make_fundus()
    ds.add_new(0x00091001, "ZZ", b"?")
    with pytest.raises(NotDicomError, match="cannot be kept"):
        pack_attributes(ds)


def test_damaged_packs_are_refused() -> None:
    """Cut, extended, other formats, bombs: PacketError each."""
    packed = pack_attributes(make_fundus())
    xz = {"format": lzma.FORMAT_XZ}
    cases = [
        b"",
        b"not xz",
        packed[:-1],
        packed + b"\0",
        packed + packed,
        lzma.compress(b"\0\0\0\xff", **xz),  # type: ignore[arg-type]  # the format is an int
        lzma.compress(bytes(4) + b"\x08\0\x05\0CS\xff\xff", **xz),  # type: ignore[arg-type]
        lzma.compress(lzma.decompress(packed)[:-1], **xz),  # type: ignore[arg-type]
        lzma.compress(packed, format=lzma.FORMAT_ALONE),
    ]
    for case in cases:
        with pytest.raises(PacketError, match="packed attributes"):
            unpack_attributes(case)


def test_a_bomb_stops_at_the_cap() -> None:
    """Compressed zeros beyond the cap are refused without being held."""
    bomb = lzma.compress(bytes(attributes.MAX_ATTRIBUTE_BYTES + 1), preset=0)
    assert len(bomb) < 20_000
    with pytest.raises(PacketError, match="exceed"):
        unpack_attributes(bomb)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_hostile_plain_bytes_raise_only_our_error(data: bytes) -> None:
    """Whatever lies inside the compression, unpacking raises PacketError or gives a data set."""
    try:
        unpack_attributes(lzma.compress(bytes(4) + data))
    except PacketError as exc:
        assert str(exc)  # noqa: PT017 - either way is right
