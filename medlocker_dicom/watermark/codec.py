"""The residual as compressed bytes.

Residuals are close to uniform noise over small ranges: what helps is to pack
several into one byte, and to choose between a dictionary and a plain entropy
coder. Byte 0 names the coder, byte 1 the bits kept of each sample.
"""

import lzma
import zlib
from math import prod

import numpy as np
from numpy.typing import NDArray

from medlocker_dicom.errors import PacketError

MAX_SAMPLES = 1 << 28
"""More samples than any image that the product accepts."""

_Samples = NDArray[np.uint8] | NDArray[np.uint16]
_LZMA, _HUFFMAN = 0, 1
_DEPTHS = (1, 2, 4, 8, 16)
# Raw LZMA2 with a fixed dictionary: the data cannot ask for more memory than this.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 23}]


def encode_residual(residual: _Samples) -> bytes:
    """Compress a residual; the smallest of the coders' results.

    Parameters
    ----------
    residual
        uint8 or uint16, any shape, from `residual`.

    Returns
    -------
    bytes
        The same for the same residual on one machine.
    """
    flat = np.moveaxis(residual, -1, 0).ravel() if residual.ndim else residual.ravel()
    depth = next(d for d in _DEPTHS if int(flat.max(initial=0)) < 1 << d)
    packed = _pack(flat, depth)
    coded = (
        bytes([_LZMA, depth]) + lzma.compress(packed, lzma.FORMAT_RAW, filters=_FILTERS),
        bytes([_HUFFMAN, depth]) + _huffman(packed),
    )
    return min(coded, key=len)


def decode_residual(data: bytes, shape: tuple[int, ...], bits: int) -> _Samples:
    """Undo `encode_residual`.

    Parameters
    ----------
    data
        What `encode_residual` returned.
    shape
        The residual's shape.
    bits
        8 for uint8 samples, up to 16 for uint16.

    Returns
    -------
    ndarray
        The residual.

    Raises
    ------
    PacketError
        If the data is damaged or does not hold exactly this shape.
    """
    count = prod(shape)
    if not 0 <= count <= MAX_SAMPLES or min(shape, default=0) < 0:
        raise PacketError(f"a residual of {count} samples is out of range")
    if len(data) < 2 or data[0] not in (_LZMA, _HUFFMAN) or data[1] not in _DEPTHS:
        raise PacketError("the residual has no header of ours")
    depth = data[1]
    if depth > (8 if bits == 8 else 16):
        raise PacketError(f"the residual has {depth}-bit samples, the image {bits}-bit ones")
    size = -(-count * depth // 8)
    packed = _unlzma(data[2:], size) if data[0] == _LZMA else _unhuffman(data[2:], size)
    wide = _unpack(packed, depth, count)
    flat: _Samples = wide.astype(np.uint8) if bits == 8 else wide
    if not shape:
        return flat.reshape(shape)
    planes: _Samples = flat.reshape(shape[-1:] + shape[:-1])
    return np.moveaxis(planes, 0, -1).copy()


def _pack(flat: _Samples, depth: int) -> bytes:
    """Pack samples of `depth` bits, the first in the lowest bits; 16 bits as two planes."""
    if depth == 16:
        return (flat & 255).astype(np.uint8).tobytes() + (flat >> 8).astype(np.uint8).tobytes()
    per_byte = 8 // depth
    padded = np.zeros(-(-flat.size // per_byte) * per_byte, np.uint8)
    padded[: flat.size] = flat
    shifts = np.arange(0, 8, depth, dtype=np.uint8)
    octets: NDArray[np.uint8] = np.bitwise_or.reduce(padded.reshape(-1, per_byte) << shifts, axis=1)
    return octets.tobytes()


def _unpack(packed: bytes, depth: int, count: int) -> NDArray[np.uint16]:
    octets = np.frombuffer(packed, np.uint8)
    if depth == 16:
        low, high = octets[:count].astype(np.uint16), octets[count:].astype(np.uint16)
        return low | (high << np.uint16(8))
    shifts = np.arange(0, 8, depth, dtype=np.uint8)
    every = (octets[:, np.newaxis] >> shifts) & ((1 << depth) - 1)
    if every.ravel()[count:].any():
        raise PacketError("the residual has samples beyond its end")
    return every.ravel()[:count].astype(np.uint16)


def _huffman(packed: bytes) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(packed) + coder.flush()


def _unhuffman(data: bytes, size: int) -> bytes:
    decoder = zlib.decompressobj(-15)
    try:
        packed = decoder.decompress(data, size + 1)
    except zlib.error as error:
        raise PacketError("the residual is damaged") from error
    return _exactly(packed, size, ended=decoder.eof and not decoder.unused_data)


def _unlzma(data: bytes, size: int) -> bytes:
    decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        packed = decoder.decompress(data, size + 1)
    except lzma.LZMAError as error:
        raise PacketError("the residual is damaged") from error
    return _exactly(packed, size, ended=decoder.eof and not decoder.unused_data)


def _exactly(packed: bytes, size: int, *, ended: bool) -> bytes:
    if len(packed) != size or not ended:
        raise PacketError(f"the residual does not unpack to {size} bytes exactly")
    return packed
