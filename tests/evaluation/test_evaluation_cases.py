"""Photographs with their grades and lesions, in the layouts that people have."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from desk import Desk, eye_pixels
from medlocker_dicom.errors import PictureError, UsageError
from medlocker_dicom.evaluation.cases import read_cases


def put_eye(path: Path, number: int = 0) -> None:
    """Write a phantom as an image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), eye_pixels(number)[0][..., ::-1])


def put_mask(path: Path, value: int | tuple[int, int, int], side: int = 160) -> None:
    """Write a mask whose middle, 20 px wide, has a value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = () if isinstance(value, int) else (3,)
    plane = np.zeros((side, side, *colours), np.uint8)
    plane[70:90, 70:90] = value
    assert cv2.imwrite(str(path), plane)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("file,grade", "IDRiD_001.jpg"),
        ("Image name,Retinopathy grade,Risk of macular edema ", "IDRiD_001"),
        ("image,level", "IDRiD_001"),
        ("id_code,diagnosis", "IDRiD_001"),
    ],
)
def test_public_layouts(tmp_path: Path, header: str, key: str) -> None:
    """IDRiD, Kaggle and APTOS name columns their way, and files without their ending."""
    put_eye(tmp_path / "images" / "a. Training Set" / "IDRiD_001.jpg")
    labels = tmp_path / "labels.csv"
    rest = ",0" * (header.count(",") - 1)
    labels.write_text(f"{header}\n{key},3{rest}\n{',' * header.count(',')}\n")
    (case,) = read_cases(tmp_path / "images", labels, 5)
    assert (case.name, case.grade, case.masks) == ("a. Training Set/IDRiD_001.jpg", 3, None)
    assert case.lesions((160, 160)) is None


def test_dicom_and_images_give_the_same_pixels(desk: Desk) -> None:
    """A folder of DICOM is read as one of pictures is."""
    desk.eyes("eyes", 1)
    put_eye(desk.root / "pictures" / "eye0.png")
    labels = desk.put("labels.csv", b"file,grade\neye0,0\n")
    (dicom,) = read_cases(desk / "eyes", labels, 5)
    (picture,) = read_cases(desk / "pictures", labels, 5)
    assert dicom.path.suffix == ".dcm"
    assert np.array_equal(dicom.fundus().display(0), picture.fundus().display(0))
    again = picture.fundus().ds.SOPInstanceUID
    assert again == picture.fundus().ds.SOPInstanceUID


def test_lesions_of_both_layouts(tmp_path: Path) -> None:
    """Bits without the disc's, or IDRiD's folders of files, mark the same px."""
    put_eye(tmp_path / "images" / "e.jpg")
    (tmp_path / "labels.csv").write_text("file,grade\ne.jpg,2\n")
    put_mask(tmp_path / "bits" / "e.png", 0b10010)
    put_mask(tmp_path / "idrid" / "1. Microaneurysms" / "e_MA.tif", (0, 0, 76))
    put_mask(tmp_path / "idrid" / "5. Optic Disc" / "e_OD.tif", (0, 0, 255), side=160)
    for name in ("bits", "idrid"):
        (case,) = read_cases(tmp_path / "images", tmp_path / "labels.csv", 5, masks=tmp_path / name)
        lesions = case.lesions((160, 160, 3))
        assert lesions is not None
        assert lesions.sum() == 400
        assert lesions[70:90, 70:90].all()
    put_mask(tmp_path / "bits" / "e.png", 0b10000)
    (case,) = read_cases(tmp_path / "images", tmp_path / "labels.csv", 5, masks=tmp_path / "bits")
    lesions = case.lesions((160, 160))
    assert lesions is not None
    assert not lesions.any()


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    """It is named, with the size that is wanted."""
    put_eye(tmp_path / "images" / "e.jpg")
    (tmp_path / "labels.csv").write_text("file,grade\ne.jpg,2\n")
    put_mask(tmp_path / "masks" / "e.png", 1, side=100)
    (case,) = read_cases(tmp_path / "images", tmp_path / "labels.csv", 5, masks=tmp_path / "masks")
    with pytest.raises(UsageError, match=r"e.png: not a mask of e.jpg: 160 x 160 px"):
        case.lesions((160, 160, 3))
    (tmp_path / "masks" / "e.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"masks/e.png"):
        case.lesions((160, 160, 3))


def test_what_the_csv_names_has_to_be_there_once(tmp_path: Path) -> None:
    """A missing photograph and an ambiguous name are refused, before anything is done."""
    put_eye(tmp_path / "images" / "one" / "e.jpg")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,grade\nother.jpg,2\n")
    with pytest.raises(UsageError, match=r"images/other.jpg: no such photograph"):
        read_cases(tmp_path / "images", labels, 5)
    put_eye(tmp_path / "images" / "two" / "e.jpg")
    labels.write_text("file,grade\ne,2\n")
    with pytest.raises(UsageError, match=r"e: could be .*one/e.jpg or .*two/e.jpg"):
        read_cases(tmp_path / "images", labels, 5)
    labels.write_text("file,grade\ntwo/e.jpg,2\n")
    assert read_cases(tmp_path / "images", labels, 5)[0].name == "two/e.jpg"
    labels.write_text("file,grade,split\ntwo/e.jpg,2,train\n")
    with pytest.raises(UsageError, match=r"no rows of split val"):
        read_cases(tmp_path / "images", labels, 5, "val")


def test_a_photograph_is_one_whatever_it_is_called(tmp_path: Path) -> None:
    """Named twice it counts once; with two grades it is refused."""
    put_eye(tmp_path / "images" / "a.jpg")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,grade\na,3\na.jpg,3\n")
    assert [case.name for case in read_cases(tmp_path / "images", labels, 5)] == ["a.jpg"]
    labels.write_text("file,grade\na,3\na.jpg,2\n")
    with pytest.raises(UsageError, match=r"a\.jpg: graded 3 and 2"):
        read_cases(tmp_path / "images", labels, 5)


def test_masks_of_nothing_are_refused(tmp_path: Path) -> None:
    """A folder that is not there, or has no mask of any photograph, was named by mistake."""
    put_eye(tmp_path / "images" / "a.jpg")
    put_mask(tmp_path / "masks" / "b.png", 1)
    labels = tmp_path / "labels.csv"
    labels.write_text("file,grade\na,3\n")
    for folder in ("masks", "elsewhere"):
        with pytest.raises(UsageError, match=f"{folder}: no lesion mask of any photograph"):
            read_cases(tmp_path / "images", labels, 5, masks=tmp_path / folder)
