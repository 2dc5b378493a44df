"""Source instances: which are accepted, how they are shown and digested."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file

from factories import make_fundus, make_pixels, save
from medlocker_dicom.dicom.attributes import encode_elements
from medlocker_dicom.dicom.decoding import PIXEL_KEYWORDS
from medlocker_dicom.dicom.fundus import Fundus, decode_fundus, pixel_digest, read_fundus
from medlocker_dicom.dicom.syntaxes import SOURCE_CLASSES
from medlocker_dicom.errors import MedLockerError, NotFundusError, UIDError


@pytest.mark.parametrize("sop_class", SOURCE_CLASSES, ids=SOURCE_CLASSES.get)
def test_every_accepted_class_is_read(sop_class: str, tmp_path: Path) -> None:
    """The nine accepted SOP classes are read, and lose nothing but Pixel Data."""
    assert len(SOURCE_CLASSES) == 9
    ds = make_fundus()
    ds.SOPClassUID = uid.UID(sop_class)
    fundus = read_fundus(save(ds, tmp_path))
    assert fundus.photometric == "RGB"
    assert not any(keyword in fundus.ds for keyword in PIXEL_KEYWORDS)
    whole = dcmread(tmp_path / "source.dcm")
    del whole.PixelData
    assert encode_elements(fundus.ds) == encode_elements(whole)


def test_a_ct_is_no_fundus_photograph() -> None:
    """Other modalities are refused by their name, with the file's."""
    path = Path(str(get_testdata_file("CT_small.dcm")))
    with pytest.raises(
        NotFundusError, match=r"CT_small\.dcm: SOP class CT Image Storage"
    ) as raised:
        read_fundus(path)
    assert "Ophthalmic Photography 8 Bit" in raised.value.hint


def test_a_missing_class_is_told() -> None:
    """An instance without SOP Class UID is no fundus photograph."""
    ds = make_fundus()
    del ds.SOPClassUID
    with pytest.raises(NotFundusError, match=r"\(none\)"):
        decode_fundus(ds)


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
@pytest.mark.parametrize("value", ["../../x", "1." + "2" * 70, "", None, ["1.2.3", "1.2.4"]])
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom warns of them, too
def test_hostile_uids_are_refused(keyword: str, value: object, tmp_path: Path) -> None:
    """A UID that could become a path, or is none, stops the instance."""
    ds = make_fundus()
    elem = ds[keyword]
    elem.validation_mode = 0
    elem.value = value
    ds.file_meta.MediaStorageSOPInstanceUID = uid.UID("1.2.3")
    with pytest.raises(UIDError, match="Instance UID"):
        read_fundus(save(ds, tmp_path))


@pytest.mark.parametrize(
    ("bits", "expected"), [(8, [0, 127, 255]), (12, [0, 8, 16]), (16, [0, 0, 1])]
)
def test_display_scales_to_8_bits(bits: int, expected: list[int]) -> None:
    """Full range becomes 0 to 255, rounded; the pixels themselves stay."""
    dtype: Any = np.uint8 if bits == 8 else np.uint16
    pixels = np.array([0, 127, 255], dtype=dtype).reshape(1, 1, 3, 1)
    shown = Fundus(make_fundus(), pixels, bits).display(0)
    assert shown.shape == (1, 3, 3)
    assert shown.dtype == np.uint8
    assert shown[0, :, 0].tolist() == expected
    full = np.full((1, 1, 1, 3), (1 << bits) - 1, dtype=dtype)
    assert Fundus(make_fundus(), full, bits).display(0).tolist() == [[[255] * 3]]


def test_display_of_colour_is_the_frame() -> None:
    """8-bit colours are shown as they are, frame by frame."""
    pixels = make_pixels((2, 5, 4, 3))
    assert np.array_equal(Fundus(make_fundus(), pixels, 8).display(1), pixels[1])


def test_the_digest_is_defined_by_values() -> None:
    """It covers dtype, shape and samples, whatever their byte and memory order."""
    pixels = make_pixels((2, 6, 5, 3), 16)
    text = b"medlocker pixels 1\nu2 2 6 5 3\n"
    digest = pixel_digest(pixels)
    assert digest == hashlib.sha256(text + pixels.astype("<u2").tobytes()).digest()
    assert digest == pixel_digest(np.asfortranarray(pixels))
    assert digest == pixel_digest(pixels.astype(">u2"))
    assert digest != pixel_digest(pixels.reshape(1, 12, 5, 3))
    assert pixel_digest(make_pixels()) != pixel_digest(make_pixels().astype(np.uint16))


def test_a_fundus_does_not_print_names() -> None:
    """Logging an instance by accident shows neither patient nor pixels."""
    assert "Doe" not in repr(decode_fundus(make_fundus()))


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom tells of the samples' oddities
def test_any_file_of_pydicom_gives_a_fundus_or_our_error() -> None:
    """All test files of pydicom, odd and damaged ones too, never raise anything else."""
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    read = 0
    files = sorted(folder.rglob("*.dcm"))
    for path in files:
        try:
            fundus = read_fundus(path)
        except MedLockerError as exc:
            assert str(exc).startswith(str(path))  # noqa: PT017 - either way is right
        else:
            read += 1
            assert fundus.ds.SOPClassUID == uid.SecondaryCaptureImageStorage
    assert (read, len(files) > read) == (26, True)
