"""A source's attributes as bytes and back: what unlocking restores besides pixels.

The bytes are LZMA (xz) of: the length of the file meta information in 4 bytes,
big-endian; the file meta information; the data set. Both are encoded in
Explicit VR Little Endian (PS3.5 A.2), the first without its group length.
"""

import lzma
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset as parse_elements
from pydicom.filewriter import write_dataset

from medlocker_dicom.dicom.decoding import PIXEL_KEYWORDS
from medlocker_dicom.dicom.elements import as_explicit
from medlocker_dicom.dicom.structure import EXPLICIT_LITTLE, check_whole
from medlocker_dicom.errors import MedLockerError, NotDicomError, PacketError, PixelLayoutError

MAX_ATTRIBUTE_BYTES = 64 << 20
"""Largest encoded attributes; checked while decompressing."""

_MEMORY_LIMIT = 256 << 20  # of the decompressor, whatever dictionary the data asks for
_LENGTH_BYTES = 4


def pack_attributes(ds: Dataset) -> bytes:
    """Pack every attribute of a source but its pixels.

    Parameters
    ----------
    ds
        A source's attributes with ``file_meta``; Pixel Data is left out.

    Returns
    -------
    bytes
        The same for the same data set.

    Raises
    ------
    NotDicomError
        If an attribute cannot be encoded.
    PixelLayoutError
        If they take more than `MAX_ATTRIBUTE_BYTES`.
    """
    try:
        meta = encode_elements(getattr(ds, "file_meta", Dataset()))
        body = encode_elements(ds)
    except Exception as exc:
        raise NotDicomError(f"its attributes cannot be kept ({type(exc).__name__})") from exc
    plain = len(meta).to_bytes(_LENGTH_BYTES, "big") + meta + body
    if len(plain) > MAX_ATTRIBUTE_BYTES:
        raise PixelLayoutError(
            f"its attributes take {len(plain)} bytes, more than {MAX_ATTRIBUTE_BYTES}"
        )
    return lzma.compress(plain, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=6)


def unpack_attributes(data: bytes) -> Dataset:
    """Undo `pack_attributes`.

    Returns
    -------
    Dataset
        With ``file_meta``: the transfer syntax in it is the source's.

    Raises
    ------
    PacketError
        If `data` is not what `pack_attributes` wrote.
    """
    plain = _decompress(data)
    size = int.from_bytes(plain[:_LENGTH_BYTES], "big")
    start = _LENGTH_BYTES + size
    if len(plain) < start:
        raise PacketError("the packed attributes end early")
    try:
        check_whole(plain, start, EXPLICIT_LITTLE)
        ds = _parse(plain[start:])
        ds.file_meta = FileMetaDataset(_parse(plain[_LENGTH_BYTES:start]))
    except MedLockerError as exc:
        raise PacketError(f"the packed attributes are damaged: {exc}") from exc
    except Exception as exc:
        raise PacketError("the packed attributes are damaged") from exc
    return ds


def encode_elements(ds: Dataset) -> bytes:
    """Encode a data set without pixels and group lengths in Explicit VR Little Endian."""
    explicit = as_explicit(ds)
    for keyword in PIXEL_KEYWORDS:
        if keyword in explicit:
            del explicit[keyword]
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = False, True
    write_dataset(stream, explicit)
    return stream.getvalue()


def _parse(data: bytes) -> Dataset:
    return parse_elements(BytesIO(data), is_implicit_VR=False, is_little_endian=True)


def _decompress(data: bytes) -> bytes:
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_MEMORY_LIMIT)
    try:
        plain = decompressor.decompress(data, MAX_ATTRIBUTE_BYTES)
    except lzma.LZMAError as exc:
        raise PacketError("the packed attributes are damaged") from exc
    if not decompressor.eof:
        raise PacketError(f"the packed attributes end early or exceed {MAX_ATTRIBUTE_BYTES} bytes")
    if decompressor.unused_data:
        raise PacketError("something follows the packed attributes")
    return plain
