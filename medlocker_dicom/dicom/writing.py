"""A data set to the bytes of its file (PS3.10 section 7)."""

from io import BytesIO

from pydicom import uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite

from medlocker_dicom.dicom.elements import mark_explicit

IMPLEMENTATION_CLASS_UID = "2.25.215870936104929310612213953406512893297"
IMPLEMENTATION_VERSION = "MEDLOCKER_1"


def as_file(ds: Dataset) -> FileDataset:
    """Return `ds` with file meta information of ours, for Explicit VR Little Endian."""
    out = FileDataset(
        BytesIO(),
        ds,
        preamble=bytes(128),
        file_meta=_file_meta(ds),
        is_implicit_VR=False,
        is_little_endian=True,
    )
    mark_explicit(out, ds)
    return out


def _file_meta(ds: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    meta.ImplementationClassUID = uid.UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    return meta


def to_bytes(ds: Dataset) -> bytes:
    """Encode an instance as a file: preamble, file meta information, data set.

    Parameters
    ----------
    ds
        With ``file_meta``, as `capture.build_capture` and
        `restore.restore_source` return it.

    Returns
    -------
    bytes
        The same for the same data set.
    """
    stream = BytesIO()
    dcmwrite(stream, ds, enforce_file_format=True)
    return stream.getvalue()
