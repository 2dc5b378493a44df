"""Pixel Data to samples, every supported way, with nothing guessed (PS3.5 section 8)."""

from dataclasses import dataclass
from typing import Any

import jpeg_ls  # type: ignore[import-untyped]  # ships no types
import numpy as np
from libjpeg.utils import decode as decode_jpeg
from numpy.typing import NDArray
from openjpeg.utils import decode as decode_jpeg_2000
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from medlocker_dicom.dicom.codestream import Codestream, inspect, unwrap_jp2
from medlocker_dicom.dicom.colour import expand_422, palette_table, ybr_to_rgb
from medlocker_dicom.dicom.layout import Layout, read_layout
from medlocker_dicom.dicom.rle import decode_rle
from medlocker_dicom.dicom.syntaxes import CODECS, NATIVE_SYNTAXES, Codec
from medlocker_dicom.errors import (
    NoPixelDataError,
    PixelLayoutError,
    TransferSyntaxError,
    TruncatedError,
)

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

PIXEL_KEYWORDS = (
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
"""Elements that carry pixels or say where they lie in Pixel Data."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Decoded pixels: uint8 or uint16 (F, H, W, C), samples 0 to 2**bits - 1."""

    pixels: Pixels
    bits: int


def decode_pixels(ds: Dataset) -> Decoded:
    """Decode the Pixel Data of an instance.

    Always by the same decoders, whatever else is installed: libjpeg for JPEG,
    CharLS for JPEG-LS, OpenJPEG for JPEG 2000.

    Parameters
    ----------
    ds
        With ``file_meta``; little-endian, as `reading.read_file` leaves it.

    Returns
    -------
    Decoded
        C is 1 for MONOCHROME2 and 3 for everything else, which is RGB.

    Raises
    ------
    NoPixelDataError
        If there is no Pixel Data.
    TruncatedError
        If there is less of it than the data set says.
    PixelLayoutError
        If the Image Pixel module is unusable or the pixels contradict it.
    TransferSyntaxError
        If there is no decoder, or the decoder refuses a frame.
    """
    syntax = ds.file_meta.TransferSyntaxUID
    if syntax not in NATIVE_SYNTAXES and syntax not in CODECS:
        raise TransferSyntaxError(f"transfer syntax {syntax} cannot be read")
    if "PixelData" not in ds:
        raise NoPixelDataError("holds no pixel data", "only images can be locked")
    data = ds["PixelData"].value
    if not isinstance(data, bytes) or not data:
        raise NoPixelDataError("its pixel data is empty")
    layout = read_layout(ds)
    if syntax in NATIVE_SYNTAXES:
        pixels = _decode_native(data, layout)
    else:
        pixels = _decode_encapsulated(_split_frames(ds, data, layout), CODECS[syntax], layout)
    if layout.photometric != "PALETTE COLOR":
        return Decoded(pixels, layout.bits)
    table = palette_table(ds, layout.bits)
    return Decoded(table[pixels[..., 0]], table.itemsize * 8)


def _decode_native(data: bytes, layout: Layout) -> Pixels:
    """Unpack samples that lie in the file as they are (PS3.5 section 8.1.1)."""
    subsampled = layout.photometric == "YBR_FULL_422"
    if layout.photometric in ("YBR_RCT", "YBR_ICT"):
        raise PixelLayoutError(f"{layout.photometric} needs JPEG 2000")
    if subsampled and layout.columns % 2:
        raise PixelLayoutError(f"YBR_FULL_422 with an odd number of columns ({layout.columns})")
    frame_bytes = layout.frame_samples * layout.sample_bytes
    if subsampled:
        frame_bytes = frame_bytes * 2 // 3
    expected = frame_bytes * layout.frames
    if len(data) < expected:
        raise TruncatedError(f"pixel data has {len(data)} of {expected} bytes")
    if len(data) - expected >= max(frame_bytes, 2):
        raise PixelLayoutError(
            f"pixel data has {len(data)} bytes, {layout.frames} frames take {expected}"
        )
    out = _allocate(layout)
    for index in range(layout.frames):
        stored = data[index * frame_bytes : (index + 1) * frame_bytes]
        out[index] = _native_frame(stored, layout)
    return out


def _native_frame(stored: bytes, layout: Layout) -> NDArray[Any]:
    """Return one frame as (H, W, C), RGB if it has colours."""
    if layout.photometric == "YBR_FULL_422":
        return ybr_to_rgb(expand_422(stored, layout.rows, layout.columns))
    samples = np.frombuffer(stored, dtype=f"<u{layout.sample_bytes}")
    if layout.bits < layout.allocated:
        # unused bits may hold anything, such as an overlay (PS3.5 section 8.1.1)
        samples = samples & samples.dtype.type((1 << layout.bits) - 1)
    if layout.planar:
        frame = samples.reshape(layout.samples, layout.rows, layout.columns).transpose(1, 2, 0)
    else:
        frame = samples.reshape(layout.rows, layout.columns, layout.samples)
    return ybr_to_rgb(frame) if layout.photometric == "YBR_FULL" else frame


def _split_frames(ds: Dataset, data: bytes, layout: Layout) -> list[bytes]:
    """Split encapsulated pixel data into frames (PS3.5 section A.4)."""
    offsets = None
    if "ExtendedOffsetTable" in ds and "ExtendedOffsetTableLengths" in ds:
        offsets = (ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths)
    try:
        frames = list(
            generate_frames(data, number_of_frames=layout.frames, extended_offsets=offsets)
        )
    except Exception as exc:
        raise TruncatedError("pixel data cannot be split into frames") from exc
    if len(frames) < layout.frames:
        raise TruncatedError(f"pixel data has {len(frames)} of {layout.frames} frames")
    if len(frames) > layout.frames:
        raise PixelLayoutError(
            f"pixel data has {len(frames)} frames, the data set says {layout.frames}"
        )
    return frames


def _decode_encapsulated(frames: list[bytes], codec: Codec, layout: Layout) -> Pixels:
    if layout.photometric in ("YBR_RCT", "YBR_ICT") and codec is not Codec.JPEG_2000:
        raise PixelLayoutError(f"{layout.photometric} needs JPEG 2000")
    if codec is Codec.JPEG_2000:
        frames = [unwrap_jp2(frame) for frame in frames]
    # every header is looked at before anything is allocated
    headers = [None if codec is Codec.RLE else inspect(f, codec, layout) for f in frames]
    if codec is Codec.RLE:
        _check_rle_size(frames, layout)
    out = _allocate(layout)
    for index, (frame, header) in enumerate(zip(frames, headers, strict=True)):
        decoded = decode_rle(frame, layout) if header is None else _decode(frame, codec, header)
        if decoded.shape != out.shape[1:]:
            raise PixelLayoutError(f"frame {index + 1} decodes to {decoded.shape}")
        if decoded.max() >> layout.bits:
            raise PixelLayoutError(
                f"frame {index + 1} has samples that {layout.bits} bits cannot hold"
            )
        out[index] = ybr_to_rgb(decoded) if _is_ybr(layout, codec, header) else decoded
    return out


def _check_rle_size(frames: list[bytes], layout: Layout) -> None:
    """Refuse frames too short to decode: two bytes give 128 at best (PS3.5 G.3)."""
    least = layout.frame_samples * layout.sample_bytes // 64
    if any(len(frame) < least for frame in frames):
        raise TruncatedError("an RLE frame has too few bytes for its pixels")


def _is_ybr(layout: Layout, codec: Codec, header: Codestream | None) -> bool:
    """Tell YCbCr from RGB; what the codestream says of itself wins over the data set."""
    if header is not None and layout.samples == 3 and codec is not Codec.JPEG_2000:
        if header.says_rgb:
            return False
        if header.says_ybr and layout.photometric == "RGB":
            return True
    return layout.photometric in ("YBR_FULL", "YBR_FULL_422")


def _decode(frame: bytes, codec: Codec, header: Codestream) -> NDArray[Any]:
    """Decode one frame to (H, W, C); colours as coded, save that J2K's are RGB."""
    try:
        if codec is Codec.JPEG:
            decoded = decode_jpeg(frame)
        elif codec is Codec.JPEG_2000:
            decoded = decode_jpeg_2000(frame)
        else:
            return _decode_jpeg_ls(frame, header)
    except Exception as exc:
        raise TransferSyntaxError(f"a {codec.value} frame cannot be decoded") from exc
    return np.atleast_3d(decoded)


def _decode_jpeg_ls(frame: bytes, header: Codestream) -> NDArray[Any]:
    buffer, info = jpeg_ls.decode_pixel_data(frame)
    dtype = np.dtype("<u1" if header.precision <= 8 else "<u2")
    samples = np.frombuffer(buffer, dtype=dtype)
    if header.samples > 1 and info["interleave_mode"] == 0:
        return samples.reshape(header.samples, header.rows, header.columns).transpose(1, 2, 0)
    return samples.reshape(header.rows, header.columns, header.samples)


def _allocate(layout: Layout) -> Pixels:
    shape = (layout.frames, layout.rows, layout.columns, layout.samples)
    if layout.allocated == 8:
        return np.empty(shape, dtype=np.uint8)
    return np.empty(shape, dtype=np.uint16)
