"""Image files: how they are read, and what is refused, in which words."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from medlocker_dicom.bundles import picture
from medlocker_dicom.bundles.picture import MAX_PIXELS, list_images, read_bits, read_rgb
from medlocker_dicom.errors import PictureError, UsageError
from training_sets import write_image

Read = Callable[[Path], Any]
READERS = pytest.mark.parametrize("read", [read_rgb, read_bits])


def claiming(path: Path, width: int, height: int) -> Path:
    """Write a PNG of some bytes whose header claims a size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(body))
    return path


def test_pictures_are_read_as_rgb(tmp_path: Path) -> None:
    """Red comes first; grey pictures get three channels."""
    red = np.zeros((2, 3, 3), np.uint8)
    red[..., 0] = 200
    seen = read_rgb(write_image(tmp_path / "red.png", red))
    assert np.array_equal(seen, red)
    assert seen.flags.c_contiguous
    grey = write_image(tmp_path / "grey.png", np.full((2, 3), 7, np.uint8))
    assert np.array_equal(read_rgb(grey), np.full((2, 3, 3), 7))


def test_masks_are_read_bit_by_bit(tmp_path: Path) -> None:
    """Every value stays as it was written."""
    mask = np.arange(256, dtype=np.uint8).reshape(8, 32)
    assert np.array_equal(read_bits(write_image(tmp_path / "mask.png", mask)), mask)


@READERS
def test_what_is_no_picture_is_refused_by_name(read: Read, tmp_path: Path) -> None:
    """A text, an empty file, a folder and a missing file are named."""
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    words = {
        "text.jpg": "not an image, or a damaged one",
        "empty.png": "not an image, or a damaged one",
        "folder.png": "cannot be read: Is a directory",
        "missing.jpg": "cannot be read: No such file or directory",
    }
    for name, said in words.items():
        with pytest.raises(PictureError) as caught:
            read(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {said}"


@READERS
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp"])
def test_half_a_picture_is_refused(read: Read, suffix: str, tmp_path: Path) -> None:
    """Also where a decoder would paint the rest grey."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8)
    path = write_image(tmp_path / f"half{suffix}", noise)
    assert read(path).shape[:2] == (60, 60)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(PictureError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: not an image, or a damaged one"


@READERS
@pytest.mark.parametrize(("width", "height"), [(MAX_PIXELS // 1024 + 1, 1024), (1, MAX_PIXELS + 1)])
def test_too_many_px_are_refused_before_they_are_read(
    read: Read, width: int, height: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header's size is in the message, and nothing of that size is made or warned of."""
    path = claiming(tmp_path / "huge.png", width, height)
    monkeypatch.setattr(cv2, "imdecode", None)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(PictureError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: {width} x {height} px are more than {MAX_PIXELS}"


@READERS
@pytest.mark.filterwarnings("error")
def test_sizes_that_pillow_minds_are_told_as_ours(read: Read, tmp_path: Path) -> None:
    """What it calls a bomb has too many px; what it would only warn of is read without a word."""
    bomb = claiming(tmp_path / "bomb.png", 60000, 60000)
    with pytest.raises(PictureError) as caught:
        read(bomb)
    assert str(caught.value) == f"{bomb}: more than {MAX_PIXELS} px"
    with pytest.raises(PictureError, match=r"large\.png: not an image, or a damaged one"):
        read(claiming(tmp_path / "large.png", 9500, 9500))


@READERS
def test_too_many_bytes_are_refused(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of more bytes than any picture has is not read to its end."""
    path = write_image(tmp_path / "grey.png", np.full((20, 30), 7, np.uint8))
    size = path.stat().st_size
    monkeypatch.setattr(picture, "MAX_BYTES", size)
    read(path)
    monkeypatch.setattr(picture, "MAX_BYTES", size - 1)
    with pytest.raises(PictureError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: larger than {size - 1} bytes"


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint16)], ids=["RGB", "16 bits"]
)
def test_a_mask_has_one_channel_of_8_bits(pixels: Any, tmp_path: Path) -> None:
    """A colour picture and one of 16 bits are no masks."""
    path = write_image(tmp_path / "mask.png", pixels)
    with pytest.raises(PictureError) as caught:
        read_bits(path)
    assert str(caught.value) == f"{path}: not a mask: one channel of 8 bits is wanted"


def test_images_of_a_folder_are_listed_by_name(tmp_path: Path) -> None:
    """Other files and the folders below are left alone; a file stands for itself."""
    for name in ("b.JPG", "a.png", "c.tiff", "labels.csv", "below/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG", "c.tiff"]
    assert list_images(tmp_path / "labels.csv") == [tmp_path / "labels.csv"]


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_no_images_are_an_error(name: str, tmp_path: Path) -> None:
    """It names the place, and the hint says what was looked for."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        list_images(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: no images"
    assert caught.value.hint == "looked for .jpg, .jpeg, .png, .tif, .tiff, .bmp"
