"""What locking and models need beyond a recipient's install."""

from __future__ import annotations

from importlib.util import find_spec

from medlocker_dicom.errors import UsageError

#: Imported by every command that looks at photographs.
ENGINE = ("PIL", "cv2", "monai", "onnx", "onnxruntime", "torch")


def check_engine(what_needs: str, *further: str) -> None:
    """Say what to install where libraries are missing.

    Parameters
    ----------
    what_needs
        First words of the error, such as ``locking needs``.
    further
        Libraries beside ``ENGINE``.

    Raises
    ------
    UsageError
        Some are missing.
    """
    missing = [name for name in sorted((*ENGINE, *further)) if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{what_needs} {', '.join(missing)}", "pip install 'medlocker-dicom[engine]'"
        )
