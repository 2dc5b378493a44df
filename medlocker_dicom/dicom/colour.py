"""Stored colours to RGB: YCbCr and palettes (PS3.3 C.7.6.3.1.2, C.7.9)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, convert_color_space

from medlocker_dicom.errors import PixelLayoutError

_STRIP_ROWS = 256  # the conversion works in float32: bound what it takes at once


def ybr_to_rgb(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert YBR_FULL to RGB, both uint8 (H, W, 3) and 0 to 255."""
    out = np.empty_like(frame)
    for top in range(0, frame.shape[0], _STRIP_ROWS):
        strip = slice(top, top + _STRIP_ROWS)
        out[strip] = convert_color_space(frame[strip], "YBR_FULL", "RGB")
    return out


def expand_422(data: bytes, rows: int, columns: int) -> NDArray[np.uint8]:
    """Give every pixel of one native YBR_FULL_422 frame its own Cb and Cr.

    Parameters
    ----------
    data
        Two Y, one Cb, one Cr for each pair of pixels (PS3.3 C.7.6.3.1.2).

    Returns
    -------
    ndarray
        uint8 (rows, columns, 3) YBR_FULL.
    """
    pairs = np.frombuffer(data, dtype=np.uint8).reshape(rows, columns // 2, 4)
    out = np.empty((rows, columns, 3), dtype=np.uint8)
    out[:, 0::2, 0], out[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    out[:, 0::2, 1:] = out[:, 1::2, 1:] = pairs[..., 2:]
    return out


def palette_table(ds: Dataset, bits: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the colour of every possible index.

    Tables with 16-bit entries mostly hold 8-bit colours, moved up or repeated
    (PS3.3 C.7.6.3.1.6 suggests it). Those come back as the 8-bit colours.

    Parameters
    ----------
    ds
        With a Palette Color Lookup Table module, discrete or segmented.
    bits
        Bits Stored of the indices.

    Returns
    -------
    ndarray
        (2**bits, 3) RGB, uint8 or uint16, full range.

    Raises
    ------
    PixelLayoutError
        If the tables are missing, damaged or of a kind that is not read.
    """
    try:
        entries, first, depth = (int(v) for v in ds.RedPaletteColorLookupTableDescriptor)
        # pydicom wraps indices around beyond the table's own integer type
        ramp = np.arange(1 << bits, dtype=np.int64)
        ramp = np.clip(ramp, first, first + (entries or 1 << 16) - 1)
        table = apply_color_lut(ramp, ds)
    except Exception as exc:
        raise PixelLayoutError("the colour palette is missing or damaged") from exc
    if depth not in (8, 16) or table.shape != (1 << bits, 3) or (depth == 8 and entries > 256):
        raise PixelLayoutError(f"a palette of {entries} entries with {depth} bits is not read")
    high, low = table >> 8, table & 0xFF
    if depth == 8 or table.dtype == np.uint8:
        return low.astype(np.uint8)
    if not low.any() or np.array_equal(high, low):
        return high.astype(np.uint8)
    return table.astype(np.uint16)
