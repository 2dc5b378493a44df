"""A photograph as a fundus camera sends it: Ophthalmic Photography 8 Bit (PS3.3 A.41).

For demonstrations and tests. A JPEG goes into the instance unchanged, as a
camera with JPEG Baseline output would send it.
"""

from datetime import datetime
from typing import Literal, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag

from medlocker_dicom.dicom.codestream import read_header
from medlocker_dicom.dicom.marks import coded
from medlocker_dicom.dicom.pixels import store_pixels
from medlocker_dicom.dicom.syntaxes import Codec
from medlocker_dicom.dicom.uids import check_uid, derive_uid
from medlocker_dicom.dicom.writing import as_file
from medlocker_dicom.errors import PixelLayoutError

_UTC = "1.2.840.10008.15.1.1"  # UTC as a frame of reference (PS3.6 A.4)
_NONE = "1.2"  # stands for the UID that a picture does not have


class Uids(TypedDict):
    """Where a photograph belongs."""

    study_uid: str
    series_uid: str
    instance_uid: str


class Shot(Uids):
    """What a camera knows of a photograph besides its pixels."""

    patient_name: str
    patient_id: str
    laterality: Literal["R", "L"]
    instance_number: int
    taken: datetime


def uids_for(root: bytes, name: str) -> Uids:
    """Make UIDs for a picture that has none, the same ones each time.

    Parameters
    ----------
    root
        At least 16 bytes; its photographs are one series.
    name
        Of the photograph among them.
    """
    return {
        "study_uid": derive_uid(root, "study", _NONE),
        "series_uid": derive_uid(root, "series", _NONE),
        "instance_uid": derive_uid(root, name, _NONE),
    }


def photograph(pixels: NDArray[np.uint8], **shot: Unpack[Shot]) -> FileDataset:
    """Wrap pixels, uncompressed.

    Parameters
    ----------
    pixels
        uint8 (H, W, 3) RGB.
    **shot
        The fields of `Shot`.

    Returns
    -------
    FileDataset
        Explicit VR Little Endian, ready for `writing.to_bytes`.

    Raises
    ------
    UIDError
        If a UID in `shot` is none.
    """
    ds = _describe(shot)
    store_pixels(ds, pixels[np.newaxis], 8)
    ds.LossyImageCompression = "00"
    return as_file(ds)


def photograph_jpeg(jpeg: bytes, **shot: Unpack[Shot]) -> FileDataset:
    """Wrap a baseline JPEG, unchanged.

    Parameters
    ----------
    jpeg
        Sequential, 8 bits, grey or YCbCr.
    **shot
        The fields of `Shot`.

    Returns
    -------
    FileDataset
        In JPEG Baseline, ready for `writing.to_bytes`.

    Raises
    ------
    PixelLayoutError
        If it is not a baseline JPEG.
    TransferSyntaxError
        If it is no JPEG at all.
    TruncatedError
        If it ends within its header.
    UIDError
        If a UID in `shot` is none.
    """
    header = read_header(jpeg, Codec.JPEG)
    if not header.baseline or header.samples not in (1, 3):
        raise PixelLayoutError("the JPEG is not baseline with one or three components")
    ds = _describe(shot)
    empty = np.zeros((1, 0, 0, header.samples), dtype=np.uint8)
    store_pixels(ds, empty, 8)
    ds.Rows, ds.Columns = header.rows, header.columns
    if header.samples == 3 and not header.says_rgb:
        ds.PhotometricInterpretation = "YBR_FULL_422"  # whatever the subsampling (PS3.5 8.2.1)
    ds.LossyImageCompression = "01"
    raw = header.rows * header.columns * header.samples
    ds.LossyImageCompressionRatio = f"{raw / len(jpeg):.2f}"
    ds.LossyImageCompressionMethod = "ISO_10918_1"
    ds.PixelData = encapsulate([jpeg])
    ds["PixelData"].is_undefined_length = True
    out = as_file(ds)
    out.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    return out


def _describe(shot: Shot) -> Dataset:
    """Fill every module but Image Pixel that A.41.3 makes mandatory."""
    ds = Dataset()
    ds.SOPClassUID = uid.OphthalmicPhotography8BitImageStorage
    ds.SOPInstanceUID = check_uid(shot["instance_uid"], "the SOP Instance UID")
    ds.StudyInstanceUID = check_uid(shot["study_uid"], "the Study Instance UID")
    ds.SeriesInstanceUID = check_uid(shot["series_uid"], "the Series Instance UID")
    ds.SpecificCharacterSet = "ISO_IR 192"
    _describe_patient(ds, shot)
    _describe_times(ds, shot["taken"])
    _describe_eye(ds, shot["laterality"])
    ds.InstanceNumber = shot["instance_number"]
    ds.Manufacturer, ds.ManufacturerModelName = "Unknown", "Fundus camera"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "0", "0"
    ds.BurnedInAnnotation = "NO"
    # one frame, but the multi-frame module is mandatory (C.7.6.6)
    ds.NumberOfFrames = 1
    ds.FrameIncrementPointer = Tag("FrameTime")
    ds.FrameTime = "0"
    return ds


def _describe_patient(ds: Dataset, shot: Shot) -> None:
    ds.PatientName, ds.PatientID = shot["patient_name"], shot["patient_id"]
    ds.PatientBirthDate = ds.PatientSex = None
    ds.ReferringPhysicianName = ds.AccessionNumber = None
    ds.StudyID, ds.SeriesNumber = "1", 1
    ds.Modality = "OP"


def _describe_times(ds: Dataset, taken: datetime) -> None:
    """Fill dates, and the Synchronization module (C.7.4.2) of an unsynchronised clock."""
    date, time = taken.strftime("%Y%m%d"), taken.strftime("%H%M%S")
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = time
    ds.AcquisitionDateTime = taken.strftime("%Y%m%d%H%M%S")
    ds.SynchronizationFrameOfReferenceUID = _UTC
    ds.SynchronizationTrigger = "NO TRIGGER"
    ds.AcquisitionTimeSynchronized = "N"


def _describe_eye(ds: Dataset, laterality: str) -> None:
    """Fill the ophthalmic modules (C.8.17.1 to C.8.17.5)."""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "", "COLOR"]
    ds.PatientOrientation = None
    ds.ImageLaterality = laterality
    ds.AnatomicRegionSequence = [coded("5665001", "SCT", "Retina")]
    ds.PatientEyeMovementCommanded = "NO"
    ds.PupilDilated = ds.RefractiveStateSequence = ds.EmmetropicMagnification = None
    ds.IntraOcularPressure = ds.HorizontalFieldOfView = None
    ds.AcquisitionDeviceTypeCodeSequence = [coded("409898007", "SCT", "Fundus Camera")]
    ds.IlluminationTypeCodeSequence = []
    ds.LightPathFilterTypeStackCodeSequence = []
    ds.ImagePathFilterTypeStackCodeSequence = []
    ds.LensesCodeSequence = []
    ds.DetectorType = None
