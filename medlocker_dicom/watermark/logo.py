"""The logo as pixels, its digest, and its lossless packed form."""

import hashlib
import lzma
import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medlocker_dicom.errors import LogoError, PacketError

MAX_SIDE = 8192
MAX_PIXELS = 1 << 24
"""Largest logo that is decoded or unpacked: 64 MiB of RGBA."""

_DIGEST_DOMAIN = b"medlocker logo v1\0"
_HEADER = struct.Struct(">4sII")
_MAGIC = b"MLL1"
# Raw LZMA2 with a fixed dictionary: the data cannot ask for more memory than this.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 23}]


def size_fits(width: int, height: int) -> bool:
    """Tell whether a logo of this size may be allocated."""
    return 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and width * height <= MAX_PIXELS


@dataclass(frozen=True, eq=False)
class Logo:
    """A logo with an alpha channel.

    Two logos are the same when their `sha256` is.

    Parameters
    ----------
    rgba
        uint8 (N, M, 4), red, green, blue (not premultiplied) and alpha,
        N rows and M columns. Kept as a read-only copy.

    Raises
    ------
    LogoError
        If the array is no such image, is too large, or shows nothing at all.
    """

    rgba: NDArray[np.uint8] = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse what the class does not allow."""
        shape = self.rgba.shape
        if self.rgba.dtype != np.uint8 or len(shape) != 3 or shape[2] != 4:
            raise LogoError(f"a logo is uint8 (N, M, 4), not {self.rgba.dtype} {shape}")
        if not size_fits(shape[1], shape[0]):
            raise LogoError(
                f"a logo of {shape[1]} x {shape[0]} pixels is out of range",
                f"use at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all",
            )
        if not self.rgba[..., 3].any():
            raise LogoError(
                f"the logo of {shape[1]} x {shape[0]} pixels is fully transparent",
                "give a logo that can be seen",
            )
        own = np.array(self.rgba, dtype=np.uint8, order="C")
        own.flags.writeable = False
        object.__setattr__(self, "rgba", own)

    @property
    def width(self) -> int:
        """Columns, M in equation 2."""
        return int(self.rgba.shape[1])

    @property
    def height(self) -> int:
        """Rows, N in equation 2."""
        return int(self.rgba.shape[0])

    @property
    def alpha(self) -> NDArray[np.uint8]:
        """Alpha plane, uint8 (N, M), read-only."""
        return self.rgba[..., 3]

    @property
    def sha256(self) -> bytes:
        """SHA-256 over a domain string, the size and the four planes; 32 bytes."""
        digest = hashlib.sha256(_DIGEST_DOMAIN)
        digest.update(struct.pack(">II", self.height, self.width))
        digest.update(np.moveaxis(self.rgba, -1, 0).tobytes())
        return digest.digest()


def pack_logo(logo: Logo) -> bytes:
    """Pack a logo without loss, as the recovery packet carries it.

    Parameters
    ----------
    logo
        Any logo.

    Returns
    -------
    bytes
        Magic, rows and columns (big-endian), then the pixels in raw LZMA2.
    """
    body = lzma.compress(logo.rgba.tobytes(), format=lzma.FORMAT_RAW, filters=_FILTERS)
    return _HEADER.pack(_MAGIC, logo.height, logo.width) + body


def unpack_logo(data: bytes, width: int, height: int) -> Logo:
    """Undo `pack_logo`; needs no image library.

    Parameters
    ----------
    data
        What `pack_logo` returned.
    width, height
        What the packet says of the logo, in pixels: no other is unpacked.

    Returns
    -------
    Logo
        The same logo, pixel for pixel.

    Raises
    ------
    PacketError
        If the data is damaged, has a foreign header, or names another size or one out of range.
    """
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise PacketError("the packed logo has no header of ours")
    _, rows, columns = _HEADER.unpack_from(data)
    if (columns, rows) != (width, height) or not size_fits(width, height):
        raise PacketError(
            f"the packed logo claims {columns} x {rows} pixels, the packet {width} x {height}"
        )
    count = 4 * height * width
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        pixels = decompressor.decompress(data[_HEADER.size :], max_length=count + 1)
    except lzma.LZMAError as error:
        raise PacketError("the packed logo is damaged") from error
    if len(pixels) != count or not decompressor.eof or decompressor.unused_data:
        raise PacketError(f"the packed logo does not hold {width} x {height} pixels exactly")
    try:
        return Logo(np.frombuffer(pixels, np.uint8).reshape(height, width, 4))
    except LogoError as error:
        raise PacketError(f"the packed logo is unusable: {error}") from error
