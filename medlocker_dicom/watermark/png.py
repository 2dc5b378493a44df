"""Read a logo from PNG. Lock side only: needs Pillow."""

import io
import struct
import warnings
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image

from medlocker_dicom.errors import LogoError
from medlocker_dicom.watermark.logo import MAX_PIXELS, MAX_SIDE, Logo, size_fits

MAX_BYTES = 1 << 26
"""Largest PNG file that is looked at."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIZE_HINT = f"use at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all"


def load_logo(png: bytes, name: str) -> Logo:
    """Decode a logo.

    Parameters
    ----------
    png
        A PNG file with transparency, of any size up to the caps.
    name
        What to call it in messages: its file name.

    Returns
    -------
    Logo
        The logo at its own size; colours under full transparency are zeroed.

    Raises
    ------
    LogoError
        If it is no readable PNG, has no alpha channel, is fully transparent
        or too large.
    """
    if len(png) > MAX_BYTES:
        raise LogoError(f"logo {name} has {len(png)} bytes", f"use at most {MAX_BYTES}")
    _check_header(png, name)
    try:
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(io.BytesIO(png), formats=["PNG"]) as image,
        ):
            _check_size(*image.size, name)  # a second IHDR wins over the first
            if not image.has_transparency_data:
                raise LogoError(
                    f"logo {name} has no alpha channel",
                    "save it as PNG with a transparent ground",
                )
            rgba = np.array(image.convert("RGBA"), np.uint8)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise LogoError(f"logo {name} claims more pixels than it may have", _SIZE_HINT) from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises each on damaged files
        raise LogoError(f"logo {name} is damaged", "save it as PNG again") from error
    rgba[rgba[..., 3] == 0] = 0
    if not rgba.any():
        raise LogoError(f"logo {name} is fully transparent", "give a logo that can be seen")
    return Logo(rgba)


@cache
def default_logo() -> Logo:
    """Return MedLocker's own logo, drawn by `draw` and shipped as PNG.

    Returns
    -------
    Logo
        1024 x 1024 pixels.
    """
    png = files("medlocker_dicom.watermark").joinpath("default_logo.png").read_bytes()
    return load_logo(png, "default_logo.png")


def _check_header(png: bytes, name: str) -> None:
    """Refuse other formats and absurd sizes before anything is decoded."""
    if len(png) < 24 or png[:8] != _SIGNATURE or png[12:16] != b"IHDR":
        raise LogoError(f"logo {name} is not a PNG file", "give a PNG with a transparent ground")
    width, height = struct.unpack(">II", png[16:24])
    _check_size(width, height, name)


def _check_size(width: int, height: int, name: str) -> None:
    if not size_fits(width, height):
        raise LogoError(f"logo {name} measures {width} x {height} pixels", _SIZE_HINT)
