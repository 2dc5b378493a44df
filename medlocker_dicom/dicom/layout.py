"""What the Image Pixel module says about the pixels, checked (PS3.3 C.7.6.3)."""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from medlocker_dicom.dicom.elements import integer, text
from medlocker_dicom.errors import PixelLayoutError

MAX_DECODED_BYTES = 1 << 30
"""Largest decoded pixel data of one instance; checked before anything is allocated."""

SAMPLES = {
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_RCT": 3,
    "YBR_ICT": 3,
}
"""Photometric Interpretation to Samples per Pixel: those that are read."""


@dataclass(frozen=True)
class Layout:
    """The stored pixels' shape.

    Attributes
    ----------
    frames, rows, columns, samples
        Each at least 1; samples is 1 or 3.
    allocated
        Bits of one stored sample: 8 or 16.
    bits
        Bits Stored; samples are 0 to 2**bits - 1.
    photometric
        A key of `SAMPLES`.
    planar
        Planar Configuration: 1 if each colour is a plane of its own.
    """

    frames: int
    rows: int
    columns: int
    samples: int
    allocated: int
    bits: int
    photometric: str
    planar: int

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return self.allocated // 8

    @property
    def frame_samples(self) -> int:
        """Samples of one decoded frame, before a palette is applied."""
        return self.rows * self.columns * self.samples


def read_layout(ds: Dataset) -> Layout:
    """Read and check the Image Pixel module.

    Raises
    ------
    PixelLayoutError
        If anything in it is missing, inconsistent, larger than
        `MAX_DECODED_BYTES` allows, or of a kind that is not read.
    """
    photometric = text(ds, "PhotometricInterpretation")
    if photometric not in SAMPLES:
        raise PixelLayoutError(
            f"photometric interpretation {photometric!r} is not read",
            f"those that are: {', '.join(SAMPLES)}",
        )
    layout = Layout(
        frames=integer(ds, "NumberOfFrames", 1),
        rows=integer(ds, "Rows"),
        columns=integer(ds, "Columns"),
        samples=integer(ds, "SamplesPerPixel"),
        allocated=integer(ds, "BitsAllocated"),
        bits=integer(ds, "BitsStored"),
        photometric=photometric,
        planar=integer(ds, "PlanarConfiguration", 0),
    )
    _check_bits(ds, layout)
    _check_size(layout)
    return layout


def _check_bits(ds: Dataset, layout: Layout) -> None:
    if layout.samples != SAMPLES[layout.photometric]:
        raise PixelLayoutError(
            f"{layout.photometric} has {SAMPLES[layout.photometric]} samples per pixel, "
            f"not {layout.samples}"
        )
    if layout.planar not in (0, 1):
        raise PixelLayoutError(f"planar configuration is {layout.planar}, neither 0 nor 1")
    if integer(ds, "PixelRepresentation", 0) != 0:
        raise PixelLayoutError("pixels are signed, a photograph's are not")
    if layout.allocated not in (8, 16):
        raise PixelLayoutError(f"bits allocated is {layout.allocated}, neither 8 nor 16")
    if not 1 <= layout.bits <= layout.allocated:
        raise PixelLayoutError(f"{layout.bits} bits stored do not fit {layout.allocated} allocated")
    high = integer(ds, "HighBit", layout.bits - 1)
    if high != layout.bits - 1:
        raise PixelLayoutError(f"high bit is {high}, not bits stored less one ({layout.bits - 1})")
    if layout.photometric in ("YBR_FULL", "YBR_FULL_422") and layout.allocated != 8:
        raise PixelLayoutError(f"{layout.photometric} with {layout.allocated} bits is not read")


def _check_size(layout: Layout) -> None:
    shape = f"{layout.frames} x {layout.rows} x {layout.columns}"
    if min(layout.frames, layout.rows, layout.columns) < 1:
        raise PixelLayoutError(f"frames x rows x columns is {shape}")
    # a palette turns one sample into three
    channels = 3 if layout.photometric == "PALETTE COLOR" else layout.samples
    size = layout.frames * layout.rows * layout.columns * channels * layout.sample_bytes
    if size > MAX_DECODED_BYTES:
        raise PixelLayoutError(
            f"{shape} pixels take {size} bytes, more than {MAX_DECODED_BYTES}",
        )
