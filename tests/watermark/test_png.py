"""Reading logos from PNG, and the logo of our own."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from medlocker_dicom.errors import LogoError
from medlocker_dicom.watermark.draw import draw_logo, png_bytes
from medlocker_dicom.watermark.png import default_logo, load_logo


def _png(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def test_reads_rgba_as_it_is() -> None:
    """Covered pixels are kept, hidden colours zeroed."""
    rgba = np.random.default_rng(6).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    rgba[3, 4, 3] = 0
    found = load_logo(png_bytes(rgba), "logo.png").rgba
    assert found[3, 4].tolist() == [0, 0, 0, 0]
    shown = rgba[..., 3] > 0
    assert np.array_equal(found[shown], rgba[shown])


def test_reads_grey_with_alpha() -> None:
    """Grey with alpha becomes red = green = blue."""
    found = load_logo(_png(Image.new("LA", (3, 2), (90, 128))), "grey.png")
    assert found.rgba[0, 0].tolist() == [90, 90, 90, 128]


@pytest.mark.parametrize(
    ("png", "said"),
    [
        (_png(Image.new("RGB", (8, 8))), "has no alpha channel"),
        (_png(Image.new("RGBA", (8, 8), (9, 9, 9, 0))), "is fully transparent"),
        (_png(Image.new("RGBA", (8, 8), "red"), "TIFF"), "is not a PNG file"),
        (b"", "is not a PNG file"),
        (_png(Image.effect_noise((64, 64), 50).convert("RGBA"))[:-2000], "is damaged"),
        (_png(Image.new("RGBA", (9000, 2), "red")), "measures 9000 x 2 pixels"),
    ],
)
def test_refuses_what_is_no_logo(png: bytes, said: str) -> None:
    """Each fault is told with the logo's name."""
    with pytest.raises(LogoError, match=f"logo my.png {said}"):
        load_logo(png, "my.png")


def test_absurd_sizes_are_refused_by_the_header() -> None:
    """A header that claims 2**31 pixels is refused before anything is decoded."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 46341, 46341, 8, 6, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    body = b"IDAT" + zlib.compress(bytes(100))
    data = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    with pytest.raises(LogoError, match="46341 x 46341"):
        load_logo(b"\x89PNG\r\n\x1a\n" + chunk + data, "bomb.png")


@pytest.mark.parametrize("side", [9000, 12000, 60000])
def test_a_second_header_does_not_get_past_the_cap(side: int) -> None:
    """Pillow believes the last IHDR; its size is refused too, before anything is decoded."""
    body = zlib.compress(bytes(100))
    png = b"\x89PNG\r\n\x1a\n"
    for kind, value in (
        (b"IHDR", struct.pack(">IIBBBBB", 10, 10, 8, 6, 0, 0, 0)),
        (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)),
        (b"IDAT", body),
    ):
        png += struct.pack(">I", len(value)) + kind + value
        png += struct.pack(">I", zlib.crc32(kind + value))
    with pytest.raises(LogoError, match=r"9000 x 9000|more pixels than it may have"):
        load_logo(png, "bomb.png")


def test_our_logo_is_what_the_code_draws() -> None:
    """The shipped PNG is the drawing, pixel for pixel."""
    drawn = draw_logo()
    drawn[drawn[..., 3] == 0] = 0
    assert np.array_equal(default_logo().rgba, drawn)


def test_our_logo_is_open_and_closed_where_it_should() -> None:
    """The ring is closed all around; the retina shows beside about half of the logo."""
    logo = default_logo()
    assert (logo.width, logo.height) == (1024, 1024)
    angle = np.linspace(0, 2 * np.pi, 720)
    ring = logo.alpha[
        np.rint(511.5 + 467 * np.sin(angle)).astype(int),
        np.rint(511.5 + 467 * np.cos(angle)).astype(int),
    ]
    assert ring.min() == 255
    assert 0.3 < (logo.alpha > 0).mean() < 0.55
