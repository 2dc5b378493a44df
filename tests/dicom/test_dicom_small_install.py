"""What a recipient installs is enough."""

import subprocess
import sys

PROGRAM = """
import sys
for name in ("torch", "monai", "cv2", "PIL", "pynetdicom", "SimpleITK", "matplotlib"):
    sys.modules[name] = None  # importing it fails
from medlocker_dicom.dicom import attributes, capture, fundus, locked, photograph, restore
"""


def test_the_package_needs_no_engine() -> None:
    """Every module imports where torch, OpenCV, Pillow and the rest are missing."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
