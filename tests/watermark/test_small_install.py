"""What a recipient's small install can import."""

import subprocess
import sys

HEAVY = ("torch", "monai", "cv2", "PIL", "pynetdicom", "SimpleITK", "matplotlib")


def test_unlocking_needs_numpy_alone() -> None:
    """The modules of the way back import no library of the lock side."""
    ours = ("alpha", "blend", "codec", "logo", "placement", "recover")
    code = ";".join(f"import medlocker_dicom.watermark.{name}" for name in ours)
    check = f"import sys;{code};print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
