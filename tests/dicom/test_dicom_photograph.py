"""Photographs wrapped as a camera would: valid, and the JPEG unchanged."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, uid
from pydicom.encaps import generate_frames

from factories import SHOT, make_fundus, make_pixels, save, wrap_jpeg
from medlocker_dicom.dicom.fundus import read_fundus
from medlocker_dicom.dicom.photograph import photograph
from medlocker_dicom.errors import UIDError

Peers = Callable[[str], Callable[..., str]]


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("frames", [1, 3])
def test_built_photographs_are_valid(
    frames: int, bits: int, samples: int, tmp_path: Path, peer: Peers
) -> None:
    """dciodvfy finds neither error nor warning in what the tests build on."""
    ds = make_fundus(make_pixels((frames, 40, 36, samples), bits))
    report = peer("dciodvfy")(save(ds, tmp_path))
    assert f"OphthalmicPhotography{bits}BitImage" in report
    assert "Error" not in report
    assert "Warning" not in report


def test_a_wrapped_jpeg_is_unchanged_and_valid(
    tmp_path: Path, shared_data: Path, peer: Peers
) -> None:
    """The camera's bytes lie in the instance as they were."""
    jpeg = (shared_data / "full_resolution" / "IDRiD_03.jpg").read_bytes()
    path = save(wrap_jpeg(jpeg), tmp_path)
    report = peer("dciodvfy")(path)
    assert "OphthalmicPhotography8BitImage" in report
    assert "Error" not in report
    ds = dcmread(path)
    assert ds.file_meta.TransferSyntaxUID == uid.JPEGBaseline8Bit
    frame = next(generate_frames(ds.PixelData, number_of_frames=1))
    assert frame[: len(jpeg)] == jpeg
    assert frame[len(jpeg) :] in (b"", b"\0")
    assert read_fundus(path).pixels.shape == (1, 2848, 4288, 3)


def test_a_photograph_holds_what_was_given(tmp_path: Path) -> None:
    """Pixels and identity come back."""
    pixels = make_pixels()[0]
    fundus = read_fundus(save(photograph(pixels, **SHOT), tmp_path))
    assert np.array_equal(fundus.pixels[0], pixels)
    assert fundus.ds.PatientName == SHOT["patient_name"]
    assert fundus.ds.ImageLaterality == SHOT["laterality"]
    assert fundus.ds.InstanceNumber == SHOT["instance_number"]
    assert fundus.ds.AcquisitionDateTime == "20240506070809"


@pytest.mark.parametrize("field", ["study_uid", "series_uid", "instance_uid"])
def test_a_photograph_needs_uids(field: str) -> None:
    """A UID that is none is refused."""
    with pytest.raises(UIDError):
        make_fundus(None, None, **{field: "../x"})
