"""The logo of a run, from its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medlocker_dicom.errors import LogoError
from medlocker_dicom.watermark.png import MAX_BYTES, default_logo, load_logo

if TYPE_CHECKING:
    from pathlib import Path

    from medlocker_dicom.watermark.logo import Logo


def read_logo(path: Path | None) -> Logo:
    """Read a logo from a PNG file; None gives MedLocker's own.

    Raises
    ------
    LogoError
        It cannot be read, or is no logo.
    """
    if path is None:
        return default_logo()
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise LogoError(f"{path}: cannot be read: {error.strerror}") from error
    return load_logo(data, str(path))
