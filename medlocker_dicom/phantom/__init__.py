"""Generated fundus photographs with exact ground truth, for the demo and the tests."""

from medlocker_dicom.phantom.eye import Bit
from medlocker_dicom.phantom.render import Phantom, phantom

__all__ = ["Bit", "Phantom", "phantom"]
