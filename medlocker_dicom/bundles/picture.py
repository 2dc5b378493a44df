"""Image files that are no DICOM: photographs of data sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image file as uint8 (H, W, 3) RGB.

    Raises
    ------
    OSError
        The file is missing or no image.
    """
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise OSError(f"{path}: not an image")
    rgb: NDArray[np.uint8] = np.ascontiguousarray(bgr[..., ::-1])
    return rgb
