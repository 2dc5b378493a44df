"""Samples into the Image Pixel module, natively encoded (PS3.3 C.7.6.3, PS3.5 8.1)."""

import numpy as np
from pydicom.dataset import Dataset

from medlocker_dicom.dicom.decoding import PIXEL_KEYWORDS, Pixels


def store_pixels(ds: Dataset, pixels: Pixels, bits: int) -> None:
    """Write `pixels` and everything that describes them into `ds`.

    Number of Frames is written if there are several, and kept right if it is
    there.

    Parameters
    ----------
    ds
        Changed in place; to be written in a little-endian syntax.
    pixels
        uint8 or uint16 (F, H, W, C), C 1 or 3.
    bits
        Bits Stored.
    """
    frames, rows, columns, samples = pixels.shape
    for keyword in PIXEL_KEYWORDS:
        if keyword in ds:
            del ds[keyword]
    new = Dataset()  # whose VRs are right, whatever those in `ds` are
    new.SamplesPerPixel = samples
    new.PhotometricInterpretation = "MONOCHROME2" if samples == 1 else "RGB"
    if samples == 3:
        new.PlanarConfiguration = 0
    elif "PlanarConfiguration" in ds:
        del ds.PlanarConfiguration
    if frames > 1 or "NumberOfFrames" in ds:
        new.NumberOfFrames = frames
    new.Rows, new.Columns = rows, columns
    new.BitsAllocated = pixels.dtype.itemsize * 8
    new.BitsStored, new.HighBit = bits, bits - 1
    new.PixelRepresentation = 0
    data = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<")).tobytes()
    vr = "OB" if pixels.dtype.itemsize == 1 else "OW"
    new.add_new("PixelData", vr, data + b"\0" * (len(data) % 2))
    ds.update(new)
