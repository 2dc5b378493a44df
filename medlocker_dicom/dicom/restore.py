"""The source again: its attributes and its decoded pixels, uncompressed."""

from copy import deepcopy

from pydicom.dataset import Dataset, FileDataset

from medlocker_dicom.dicom.decoding import Pixels
from medlocker_dicom.dicom.elements import as_explicit, integer, text
from medlocker_dicom.dicom.pixels import store_pixels
from medlocker_dicom.dicom.writing import as_file
from medlocker_dicom.errors import PacketError

# descriptors, UID and tables (PS3.3 C.7.9); smallest and largest index
_PALETTE_TAGS = frozenset({*range(0x00281100, 0x00281300), 0x00280106, 0x00280107})


def restore_source(attributes: Dataset, pixels: Pixels, bits: int) -> FileDataset:
    """Build the unlocked instance.

    Everything is as in the source, except how pixels are stored: Explicit VR
    Little Endian, MONOCHROME2 or RGB with Planar Configuration 0. Palette
    tables go, since pixels are colours now. Lossy Image Compression and its
    ratio and method stay, since the loss does.

    Parameters
    ----------
    attributes
        From `attributes.unpack_attributes`; not changed.
    pixels
        The source's decoded pixels: uint8 or uint16 (F, H, W, C).
    bits
        Samples are 0 to 2**bits - 1.

    Returns
    -------
    FileDataset
        Explicit VR Little Endian, ready for `writing.to_bytes`.

    Raises
    ------
    PacketError
        If shape or bits of the pixels are not what the attributes tell.
    """
    ds = as_explicit(deepcopy(attributes))
    palette = text(ds, "PhotometricInterpretation") == "PALETTE COLOR"
    told = 8 * pixels.itemsize if palette else integer(ds, "BitsStored")
    if bits != told:
        raise PacketError(f"the source's pixels have {told} bits, not {bits}")
    _check_shape(ds, pixels)
    if palette:
        for tag in [tag for tag in ds.keys() if tag in _PALETTE_TAGS]:  # noqa: SIM118 - a data set iterates over elements
            del ds[tag]
    store_pixels(ds, pixels, bits)
    return as_file(ds)


def _check_shape(ds: Dataset, pixels: Pixels) -> None:
    told = (
        *(integer(ds, keyword, 1) for keyword in ("NumberOfFrames", "Rows", "Columns")),
        1 if text(ds, "PhotometricInterpretation") == "MONOCHROME2" else 3,
    )
    if told != pixels.shape:
        raise PacketError(f"the source's pixels are {told}, not {pixels.shape}")
