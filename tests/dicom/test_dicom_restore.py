"""The source comes back: attributes, pixels, identity."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file

from factories import make_fundus, make_pixels, save
from medlocker_dicom.dicom.attributes import encode_elements, pack_attributes, unpack_attributes
from medlocker_dicom.dicom.fundus import decode_fundus, read_fundus
from medlocker_dicom.dicom.reading import read_instance
from medlocker_dicom.dicom.restore import restore_source
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import PacketError

Peers = Callable[[str], Callable[..., str]]
FORMATS = [
    ((1, 40, 36, 3), 8),
    ((1, 41, 37, 3), 8),
    ((1, 40, 36, 1), 8),
    ((1, 40, 36, 1), 12),
    ((1, 40, 36, 1), 16),
    ((1, 40, 36, 3), 16),
    ((3, 40, 36, 3), 8),
    ((2, 41, 37, 1), 16),
]


@pytest.mark.parametrize(("shape", "bits"), FORMATS, ids=str)
def test_an_uncompressed_source_comes_back_to_the_byte(
    shape: tuple[int, int, int, int], bits: int, tmp_path: Path
) -> None:
    """Data set and pixels are the same bytes as in an Explicit VR Little Endian source."""
    source = save(make_fundus(make_pixels(shape, bits), bits), tmp_path)
    fundus = read_fundus(source)
    restored = restore_source(
        unpack_attributes(pack_attributes(fundus.ds)), fundus.pixels, fundus.bits
    )
    assert to_bytes(restored) == source.read_bytes()


@pytest.mark.parametrize("keyword", ["Rows", "BitsStored", "PhotometricInterpretation"])
def test_a_wrong_vr_is_put_right(keyword: str) -> None:
    """What describes the pixels has its own VR again, whatever it came with."""
    fundus = decode_fundus(make_fundus())
    whole = to_bytes(restore_source(fundus.ds, fundus.pixels, 8))
    fundus.ds[keyword].VR = "SL" if keyword == "PhotometricInterpretation" else "LO"
    assert to_bytes(restore_source(fundus.ds, fundus.pixels, 8)) == whole


@pytest.mark.parametrize(
    ("tool", "options"),
    [
        ("dcmconv", ("+ti",)),
        ("dcmconv", ("+tb",)),
        ("dcmcjpeg", ("+eb",)),
        ("dcmcjpeg", ("+e1",)),
        ("gdcmconv", ("--j2k",)),
        ("dcmcrle", ()),
        ("gdcmconv", ("--planar-configuration", "1")),
    ],
    ids="".join,
)
def test_a_restored_source_is_valid_and_uncompressed(
    tool: str, options: tuple[str, ...], tmp_path: Path, peer: Peers
) -> None:
    """From any syntax: the class and UIDs of the source, RGB, no new error for dciodvfy."""
    path = tmp_path / "encoded.dcm"
    peer(tool)(*options, save(make_fundus(), tmp_path), path)
    fundus = read_fundus(path)
    attributes = unpack_attributes(pack_attributes(fundus.ds))
    restored = save(restore_source(attributes, fundus.pixels, fundus.bits), tmp_path, "back.dcm")
    before, after = (peer("dciodvfy")(each).splitlines() for each in (path, restored))
    assert "OphthalmicPhotography8BitImage" in after
    # an encoder may leave an error of its own, such as an Image Type too short
    assert not [line for line in after if line.startswith("Error") and line not in before]
    again = dcmread(restored)
    encoded = dcmread(path)
    assert again.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert (again.PhotometricInterpretation, again.PlanarConfiguration) == ("RGB", 0)
    for element in encoded:
        if element.tag.group != 0x7FE0 and element.keyword not in {
            "PhotometricInterpretation",
            "PlanarConfiguration",
        }:
            assert again[element.tag].value == element.value, element.keyword
    assert np.array_equal(read_fundus(restored).pixels, fundus.pixels)


def test_lossy_fields_stay_as_they_were() -> None:
    """The loss happened before; restoring neither adds nor removes it."""
    ds = make_fundus()
    ds.LossyImageCompression, ds.LossyImageCompressionRatio = "01", "12.5"
    fundus = decode_fundus(ds)
    restored = restore_source(fundus.ds, fundus.pixels, 8)
    assert (restored.LossyImageCompression, restored.LossyImageCompressionRatio) == ("01", 12.5)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_palette_source_becomes_its_colours(tmp_path: Path) -> None:
    """Palette tables go, the colours they gave are the pixels."""
    ds = dcmread(Path(str(get_testdata_file("examples_palette.dcm"))))
    ds.SOPClassUID = uid.VLPhotographicImageStorage
    fundus = read_fundus(save(ds, tmp_path))
    restored = restore_source(
        unpack_attributes(pack_attributes(fundus.ds)), fundus.pixels, fundus.bits
    )
    assert not [e for e in restored if 0x00281100 <= e.tag < 0x00281300]
    assert (restored.PhotometricInterpretation, restored.SamplesPerPixel) == ("RGB", 3)
    again = read_instance(to_bytes(restored))
    assert np.array_equal(decode_fundus(again).pixels, fundus.pixels)
    assert again.PatientName == ds.PatientName


def test_attributes_are_not_changed() -> None:
    """Restoring works on a copy."""
    fundus = decode_fundus(make_fundus())
    before = encode_elements(fundus.ds)
    restore_source(fundus.ds, fundus.pixels, 8)
    assert encode_elements(fundus.ds) == before
    assert "PixelData" not in fundus.ds


@pytest.mark.parametrize(
    ("pixels", "bits"),
    [
        (make_pixels((1, 40, 35, 3)), 8),
        (make_pixels((2, 40, 36, 3)), 8),
        (make_pixels((1, 40, 36, 3)), 7),
        (make_pixels((1, 40, 36, 3), 16), 16),
        (make_pixels((1, 40, 36, 1)), 8),
    ],
    ids=["columns", "frames", "bits", "dtype", "samples"],
)
def test_pixels_that_contradict_the_attributes_are_refused(pixels: Any, bits: int) -> None:
    """Shape and bits beside the sealed attributes are not believed."""
    fundus = decode_fundus(make_fundus())
    with pytest.raises(PacketError, match="the source's"):
        restore_source(fundus.ds, pixels, bits)
