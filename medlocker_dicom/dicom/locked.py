"""A locked instance read back, also after archives re-encoded it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom.dataset import Dataset

from medlocker_dicom.dicom.decoding import PIXEL_KEYWORDS, Pixels, decode_pixels
from medlocker_dicom.dicom.fundus import IDENTITY
from medlocker_dicom.dicom.marks import is_locked
from medlocker_dicom.dicom.private import LockBlock, read_block
from medlocker_dicom.dicom.reading import naming, parsing, read_file
from medlocker_dicom.dicom.uids import check_uid
from medlocker_dicom.errors import NotLockedError, PacketError, PacketMissingError

Beside = Callable[[str], LockBlock | None]
"""Gives what lies beside a locked object for it, by its SOP Instance UID."""


@dataclass(frozen=True, eq=False)
class Locked:
    """A locked instance.

    Attributes
    ----------
    ds
        Its attributes without Pixel Data, with ``file_meta``.
    pixels
        The locked pixels: uint8 or uint16 (F, H, W, C).
    packet
        The sealed recovery packet; None if it is kept elsewhere.
    issuer
        The Ed25519 public key of who locked it, 32 bytes. Not authenticated:
        anybody can write it.
    source_class_uid, source_uid
        SOP Class and SOP Instance UID of the source.
    bits
        Samples of the source are 0 to 2**bits - 1.
    """

    ds: Dataset = field(repr=False)  # holds names
    pixels: Pixels = field(repr=False)
    packet: bytes | None = field(repr=False)
    issuer: bytes
    source_class_uid: str
    source_uid: str
    bits: int

    @property
    def photometric(self) -> str:
        """``MONOCHROME2`` or ``RGB``, however an archive may store it."""
        return "RGB" if self.pixels.shape[-1] == 3 else "MONOCHROME2"


def _nothing(_: str) -> None:
    return None


def read_locked(path: Path, beside: Beside = _nothing) -> Locked:
    """Read a locked instance from a file, in any transfer syntax that is read.

    Parameters
    ----------
    path
        The file.
    beside
        Where to look for a private block that was stripped, or a packet that was never in it.

    Raises
    ------
    NotLockedError
        If nothing in it says that it was locked.
    PacketMissingError
        If it was locked but its private block was stripped, and none lies beside it.
    PacketError
        If the private block is damaged.
    SourceError
        If it cannot be read or decoded: `NotDicomError`, `TruncatedError`,
        `TransferSyntaxError`, `PixelLayoutError`, `NoPixelDataError`, `UIDError`.
    """
    ds = read_file(path)
    with naming(path):
        return decode_locked(ds, beside)


def decode_locked(ds: Dataset, beside: Beside = _nothing) -> Locked:
    """Check and decode a locked instance that is in memory; raises as `read_locked`.

    Parameters
    ----------
    ds
        With ``file_meta``, as `reading.read_file` returns it; loses its Pixel
        Data.
    beside
        As for `read_locked`.
    """
    with parsing("the data set"):
        if not is_locked(ds):
            raise NotLockedError("is not locked by us", "there is nothing to unlock in it")
        for keyword, name in IDENTITY.items():
            check_uid(ds.get(keyword), name)
        block = _block_of(ds, beside)
        pixels = decode_pixels(ds).pixels
        if block.bits > 8 * pixels.itemsize:
            raise PacketError(f"the private block tells of {block.bits} bits")
    for keyword in PIXEL_KEYWORDS:
        if keyword in ds:
            del ds[keyword]
    return Locked(
        ds=ds,
        pixels=pixels,
        packet=block.packet,
        issuer=block.issuer,
        source_class_uid=block.source_class_uid,
        source_uid=block.source_uid,
        bits=block.bits,
    )


def _block_of(ds: Dataset, beside: Beside) -> LockBlock:
    """Read the private block; what is missing of it comes from beside the object."""
    try:
        block = read_block(ds)
    except PacketMissingError:
        found = beside(ds.SOPInstanceUID)
        if found is None:
            raise
        return found
    if block.packet is None and (found := beside(ds.SOPInstanceUID)) is not None:
        return replace(block, packet=found.packet)
    return block
