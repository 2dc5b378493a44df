"""Transfer syntaxes and SOP classes that are read, each with how it is read."""

from enum import Enum
from types import MappingProxyType

from pydicom import uid


class Codec(Enum):
    """What turns an encapsulated frame into samples."""

    JPEG = "JPEG"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"
    RLE = "RLE"


NATIVE_SYNTAXES = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    }
)

CODECS: MappingProxyType[str, Codec] = MappingProxyType(
    {
        uid.JPEGBaseline8Bit: Codec.JPEG,
        uid.JPEGExtended12Bit: Codec.JPEG,
        uid.JPEGLossless: Codec.JPEG,
        uid.JPEGLosslessSV1: Codec.JPEG,
        uid.JPEGLSLossless: Codec.JPEG_LS,
        uid.JPEGLSNearLossless: Codec.JPEG_LS,
        uid.JPEG2000Lossless: Codec.JPEG_2000,
        uid.JPEG2000: Codec.JPEG_2000,
        uid.RLELossless: Codec.RLE,
    }
)

LOSSY_SYNTAXES = frozenset({uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit})
"""Transfer syntaxes that cannot be lossless (PS3.5 A.4.1)."""

SOURCE_CLASSES: MappingProxyType[str, str] = MappingProxyType(
    {
        str(known): known.name
        for known in (
            uid.OphthalmicPhotography8BitImageStorage,
            uid.OphthalmicPhotography16BitImageStorage,
            uid.WideFieldOphthalmicPhotographyStereographicProjectionImageStorage,
            uid.WideFieldOphthalmicPhotography3DCoordinatesImageStorage,
            uid.VLPhotographicImageStorage,
            uid.SecondaryCaptureImageStorage,
            uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
            uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
            uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
        )
    }
)
"""SOP Class UID to name: the classes that may hold a fundus photograph."""
