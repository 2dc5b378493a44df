"""What ties packet and grants to one locked object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medlocker_dicom.dicom.elements import text
from medlocker_dicom.dicom.fundus import pixel_digest
from medlocker_dicom.keyfile import Binding
from medlocker_dicom.keyfile.binding import VERSION

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset


def binding_of(
    ds: Dataset,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    source_uid: str,
    issuer: bytes,
) -> Binding:
    """Compute the binding of a locked object from the object itself.

    Parameters
    ----------
    ds
        Attributes of the locked object.
    pixels
        (F, H, W, C): its decoded pixels.
    source_uid
        SOP Instance UID of its source.
    issuer
        Ed25519 public key of who locked it, 32 bytes.

    Raises
    ------
    UIDError, PixelLayoutError, IdentityError
        A field is unusable.
    """
    frames, rows, columns, channels = pixels.shape
    return Binding(
        version=VERSION,
        study_uid=text(ds, "StudyInstanceUID"),
        series_uid=text(ds, "SeriesInstanceUID"),
        sop_class_uid=text(ds, "SOPClassUID"),
        locked_uid=text(ds, "SOPInstanceUID"),
        source_uid=source_uid,
        rows=rows,
        columns=columns,
        frames=frames,
        # Of the decoded samples: an archive that recompresses losslessly may rename the stored one.
        photometric="RGB" if channels == 3 else "MONOCHROME2",
        pixel_sha256=pixel_digest(pixels),
        issuer=issuer,
    )
