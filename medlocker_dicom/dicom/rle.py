"""RLE Lossless frames (PS3.5 annex G), decoded no further than the frame needs."""

import struct
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from medlocker_dicom.dicom.layout import Layout
from medlocker_dicom.errors import PixelLayoutError, TruncatedError

_HEADER = struct.Struct("<16L")


def decode_rle(frame: bytes, layout: Layout) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Decode one frame.

    Unlike pydicom's decoder, it stops at the frame's size: a few bytes cannot
    make it allocate more than that.

    Returns
    -------
    ndarray
        uint8 or uint16 (rows, columns, samples).

    Raises
    ------
    TruncatedError
        If a segment gives fewer bytes than the frame needs.
    PixelLayoutError
        If the number of segments does not fit the data set.
    """
    if len(frame) < _HEADER.size:
        raise TruncatedError("an RLE frame ends within its header")
    count, *offsets = _HEADER.unpack_from(frame)
    if count != layout.samples * layout.sample_bytes:
        raise PixelLayoutError(
            f"an RLE frame has {count} segments, "
            f"the data set needs {layout.samples * layout.sample_bytes}"
        )
    size = layout.rows * layout.columns
    bounds = pairwise([*offsets[:count], len(frame)])
    segments = [_decode_segment(frame[start:end], size) for start, end in bounds]
    # one plane a sample, most significant byte first (G.2)
    planes = np.frombuffer(b"".join(segments), dtype=np.uint8)
    planes = planes.reshape(layout.samples, layout.sample_bytes, layout.rows, layout.columns)
    if layout.sample_bytes == 1:
        return planes[:, 0].transpose(1, 2, 0)
    words: NDArray[np.uint16] = planes[:, 0].astype(np.uint16) << np.uint16(8) | planes[:, 1]
    return words.transpose(1, 2, 0)


def _decode_segment(segment: bytes, size: int) -> bytes:
    """Undo PackBits until `size` bytes are there (G.3.2)."""
    out = bytearray()
    position = 0
    while len(out) < size and position < len(segment):
        head = segment[position]
        if head < 128:  # that many bytes and one more, as they are
            out += segment[position + 1 : position + 2 + head]
            position += 2 + head
        elif head > 128:  # one byte, repeated
            out += segment[position + 1 : position + 2] * (257 - head)
            position += 2
        else:
            position += 1
    # a run cut short leaves too few bytes, since nothing follows it
    if len(out) < size:
        raise TruncatedError(f"an RLE segment gives {len(out)} of {size} bytes")
    return bytes(out[:size])
