"""The locked instance: a Secondary Capture that says what was done to it (PS3.3 A.8)."""

import re
from datetime import datetime, timedelta, timezone
from types import MappingProxyType

from pydicom import uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import Tag

from medlocker_dicom.dicom import marks
from medlocker_dicom.dicom.decoding import Pixels
from medlocker_dicom.dicom.elements import copy_elements, text
from medlocker_dicom.dicom.fundus import Fundus
from medlocker_dicom.dicom.locked import Locked, read_locked
from medlocker_dicom.dicom.modules import ENCODING, TYPE_2
from medlocker_dicom.dicom.pixels import store_pixels
from medlocker_dicom.dicom.private import write_packet, write_source
from medlocker_dicom.dicom.reading import parsing
from medlocker_dicom.dicom.restore import restore_source
from medlocker_dicom.dicom.syntaxes import LOSSY_SYNTAXES
from medlocker_dicom.dicom.taken import take_over
from medlocker_dicom.dicom.uids import check_uid
from medlocker_dicom.dicom.writing import as_file
from medlocker_dicom.errors import PixelLayoutError

# the way back lies in modules of its own and is offered here as well
__all__ = ["Locked", "attach_packet", "build_capture", "read_locked", "restore_source"]

SERIES_DESCRIPTION = "MedLocker locked"
FIRST_SERIES_NUMBER = 9000
"""Added to the source's Series Number, so that locked series sort last."""

DERIVATION = (
    "A visible adversarial watermark was blended into the picture; "
    "holders of a grant can undo it exactly"
)
CODECS: MappingProxyType[str, tuple[uid.UID, str]] = MappingProxyType(
    {
        "rle": (uid.RLELossless, "pydicom"),
        "jpegls": (uid.JPEGLSLossless, "pyjpegls"),
        "j2k": (uid.JPEG2000Lossless, "pylibjpeg"),
    }
)
"""Name of a codec to its transfer syntax and pydicom's encoder; besides ``uncompressed``."""

_MULTI_FRAME_CLASSES: MappingProxyType[tuple[int, int], uid.UID] = MappingProxyType(
    {  # (samples, bytes of a sample) to SOP class
        (1, 1): uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        (1, 2): uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        (3, 1): uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)
_FRAME_VECTORS = ("FrameTime", "FrameTimeVector", "PageNumberVector")
_ST_LENGTH = 1024  # characters of a Derivation Description (PS3.5 6.2)


def build_capture(  # noqa: PLR0913 - keyword only, each names one attribute
    source: Fundus,
    locked: Pixels,
    *,
    series_uid: str,
    instance_uid: str,
    now: datetime,
    version: str,
    codec: str = "uncompressed",
) -> FileDataset:
    """Build the locked instance, complete but for its recovery packet.

    Parameters
    ----------
    source
        The photograph that was locked.
    locked
        Its pixels with the mark: shape and dtype of ``source.pixels``.
    series_uid, instance_uid
        The locked instance's own, such as from `uids.derive_uid`.
    now
        When it was locked; a time zone, if there is one, is kept.
    version
        Of this software.
    codec
        How pixels are written: ``uncompressed`` or a key of `CODECS`, always
        losslessly.

    Returns
    -------
    FileDataset
        Explicit VR Little Endian, ready for `attach_packet` and `writing.to_bytes`.

    Raises
    ------
    PixelLayoutError
        If several colour frames have more than 8 bits, for which DICOM has no
        Secondary Capture, or the codec refuses the pixels.
    NotDicomError
        If attributes to be copied cannot be parsed.
    ValueError
        If `locked` is not shaped like the source, or there is no such codec.
    """
    if locked.shape != source.pixels.shape or locked.dtype != source.pixels.dtype:
        raise ValueError("the locked pixels must have the source's shape and dtype")
    if codec != "uncompressed" and codec not in CODECS:
        raise ValueError(f"there is no codec {codec!r}")
    ds = Dataset()
    with parsing("the data set"):
        take_over(source.ds, ds, source.photometric)
        copy_elements(source.ds, ds, ENCODING)
        for keyword in TYPE_2:
            if keyword not in ds:
                setattr(ds, keyword, None)
        moment = _in_zone_of(source.ds, now)
        _describe_series(ds, source.ds, series_uid)
        _describe_capture(ds, moment, version)
        _describe_derivation(ds, source.ds, moment, version)
        _keep_lossy(ds, source.ds)
        _store(ds, source, locked)
    ds.SOPInstanceUID = check_uid(instance_uid, "the locked SOP Instance UID")
    write_source(ds, text(source.ds, "SOPClassUID"), text(source.ds, "SOPInstanceUID"), source.bits)
    out = as_file(ds)
    if codec != "uncompressed":
        _compress(out, codec)
    return out


def attach_packet(ds: Dataset, packet: bytes | None, issuer: bytes) -> None:
    """Put the recovery packet and its issuer into a locked instance.

    Parameters
    ----------
    ds
        From `build_capture`; changed in place.
    packet
        The sealed recovery packet; None if it is kept elsewhere.
    issuer
        The issuer's Ed25519 public key, 32 bytes.

    Raises
    ------
    ValueError
        If the issuer is not 32 bytes, the packet is empty or too large, or
        `ds` is not from `build_capture`.
    """
    write_packet(ds, packet, issuer)


def _compress(ds: FileDataset, codec: str) -> None:
    syntax, plugin = CODECS[codec]
    if codec == "j2k" and ds.SamplesPerPixel == 3:
        # the reversible transform, and what it must be called (PS3.5 A.4.4)
        ds.PhotometricInterpretation = "YBR_RCT"
    try:
        ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    except RuntimeError as exc:  # such as JPEG 2000 with fewer than 32 rows
        shape = f"{ds.Rows} x {ds.Columns}"
        raise PixelLayoutError(f"{shape} pixels cannot be written as {codec}") from exc


def _describe_series(ds: Dataset, source: Dataset, series_uid: str) -> None:
    """Fill the General Series module (C.7.3.1) of a series of our own."""
    ds.SeriesInstanceUID = check_uid(series_uid, "the locked Series Instance UID")
    number = text(source, "SeriesNumber")
    offset = int(number) if re.fullmatch(r"\d{1,6}", number) else 0
    ds.SeriesNumber = FIRST_SERIES_NUMBER + offset
    ds.SeriesDescription = SERIES_DESCRIPTION
    ds.Modality = "OP"
    copy_elements(source, ds, ("BodyPartExamined",))


def _describe_capture(ds: Dataset, moment: datetime, version: str) -> None:
    """Fill the SC Equipment and SC Image modules (C.8.6.1, C.8.6.2)."""
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.ConversionType = "WSD"
    ds.SecondaryCaptureDeviceManufacturer = marks.MANUFACTURER
    ds.SecondaryCaptureDeviceManufacturerModelName = marks.MODEL
    ds.SecondaryCaptureDeviceSoftwareVersions = version
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    ds.DateOfSecondaryCapture, ds.TimeOfSecondaryCapture = date, time
    ds.InstanceCreationDate, ds.InstanceCreationTime = date, time
    ds.ContentDate, ds.ContentTime = date, time


def _describe_derivation(ds: Dataset, source: Dataset, moment: datetime, version: str) -> None:
    """Say what was done, by what and to which image (C.7.6.1, C.12.1)."""
    appended = ("DerivationDescription", "DerivationCodeSequence", "ContributingEquipmentSequence")
    copy_elements(source, ds, appended)
    before = text(ds, "DerivationDescription")
    room = _ST_LENGTH - len(DERIVATION) - 2
    ds.DerivationDescription = f"{before[:room]}; {DERIVATION}" if before else DERIVATION
    ds.DerivationCodeSequence = [
        *(ds.get("DerivationCodeSequence") or []),
        marks.coded("113047", "DCM", "Pixel by pixel mask"),
        marks.coded(marks.WATERMARK_CODE, marks.SCHEME, marks.WATERMARK_MEANING),
    ]
    ds.ContributingEquipmentSequence = [
        *(ds.get("ContributingEquipmentSequence") or []),
        _equipment(moment, version),
    ]
    ds.SourceImageSequence = [_reference(source)]


def _equipment(moment: datetime, version: str) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [marks.coded("109103", "DCM", "Modifying Equipment")]
    item.Manufacturer = marks.MANUFACTURER
    item.ManufacturerModelName = marks.MODEL
    item.SoftwareVersions = version
    item.ContributionDateTime = moment.strftime("%Y%m%d%H%M%S%z")
    item.ContributionDescription = marks.WATERMARK_MEANING
    return item


def _reference(source: Dataset) -> Dataset:
    purpose = "Source image for image processing operation"
    item = Dataset()
    item.ReferencedSOPClassUID = text(source, "SOPClassUID")
    item.ReferencedSOPInstanceUID = text(source, "SOPInstanceUID")
    item.SpatialLocationsPreserved = "YES"
    item.PurposeOfReferenceCodeSequence = [marks.coded("121322", "DCM", purpose)]
    return item


def _keep_lossy(ds: Dataset, source: Dataset) -> None:
    """State a loss that the source's transfer syntax shows, should the source not (C.7.6.1.1.5)."""
    if source.file_meta.TransferSyntaxUID in LOSSY_SYNTAXES:
        ds.LossyImageCompression = "01"
        if not ds.get("LossyImageCompressionMethod"):
            ds.LossyImageCompressionMethod = "ISO_10918_1"


def _store(ds: Dataset, source: Fundus, locked: Pixels) -> None:
    """Choose the SOP class and write the pixels (A.8.1 to A.8.5)."""
    frames, *_, samples = locked.shape
    if frames == 1:
        ds.SOPClassUID = uid.SecondaryCaptureImageStorage
        store_pixels(ds, locked, source.bits)
        return
    kind = samples, locked.dtype.itemsize
    if kind not in _MULTI_FRAME_CLASSES:
        raise PixelLayoutError(
            f"{frames} colour frames of {source.bits} bits fit no secondary capture",
            "lock the frames one by one, or as 8-bit colours",
        )
    ds.SOPClassUID = _MULTI_FRAME_CLASSES[kind]
    # the Byte and True Color classes want 8 bits stored, Word wants 9 to 16
    width = 8 * locked.dtype.itemsize
    store_pixels(ds, locked, source.bits if 8 < source.bits < width else width)
    _describe_frames(ds, source.ds)


def _describe_frames(ds: Dataset, source: Dataset) -> None:
    """Fill the Multi-frame and SC Multi-frame Image modules (C.7.6.6, C.8.6.3)."""
    copy_elements(source, ds, _FRAME_VECTORS)
    present = [keyword for keyword in _FRAME_VECTORS if ds.get(keyword) is not None]
    if not present:
        ds.PageNumberVector = list(range(1, ds.NumberOfFrames + 1))
    ds.FrameIncrementPointer = Tag(present[0] if present else "PageNumberVector")
    if text(ds, "BurnedInAnnotation") not in ("YES", "NO"):
        ds.BurnedInAnnotation = "YES"  # required here; unknown counts as identifying
    if ds.SamplesPerPixel == 1:
        ds.PresentationLUTShape = "IDENTITY"
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"


def _in_zone_of(source: Dataset, now: datetime) -> datetime:
    """Express an aware `now` in the source's Timezone Offset From UTC (C.12.1), else local time."""
    offset = re.fullmatch(r"([+-])(\d\d)(\d\d)", text(source, "TimezoneOffsetFromUTC"))
    if now.tzinfo is None:
        return now
    if not offset:
        return now.astimezone()
    away = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return now.astimezone(timezone(-away if offset[1] == "-" else away))
