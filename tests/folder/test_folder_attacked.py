"""What an owner is told of a lock that was attacked."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from medlocker_dicom.folder.attacked import quick_attacks


@dataclass(frozen=True)
class Source:
    """A photograph, as far as it is looked at here."""

    pixels: NDArray[np.uint8]

    def display(self, number: int) -> NDArray[np.uint8]:
        """Return a frame."""
        frame: NDArray[np.uint8] = self.pixels[number]
        return frame


@pytest.mark.parametrize(("flipped", "undone"), [(True, ["A4 Telea"]), (False, None)])
def test_only_the_clean_grade_undoes_a_lock(
    monkeypatch: pytest.MonkeyPatch, *, flipped: bool, undone: list[str] | None
) -> None:
    """A pipeline that misleads the models by itself gives a thief nothing."""
    found = {
        "A4 Telea": {"psnr": 31.0, "locked": 0},
        "A1 Wiener": {"psnr": 33.0, "locked": 2},
        "A9 CLAHE": {"clean": 3, "locked": 3},
        "A9 JPEG 75": {"clean": 0, "locked": 2},
    }
    monkeypatch.setattr("medlocker_dicom.folder.attacked.attacked", lambda *_: found)
    monkeypatch.setattr("medlocker_dicom.folder.attacked.logo_on", lambda *_: None)
    pixels = np.zeros((1, 8, 8, 3), np.uint8)
    frame = SimpleNamespace(
        placement=(0, 0, 200), logo_size=(4, 4), clean_grade="0", flipped=flipped
    )
    locked = SimpleNamespace(pixels=pixels, record=SimpleNamespace(frames=[frame]))
    ensemble = SimpleNamespace(labels=("0", "1", "2", "3", "4"))
    locker = SimpleNamespace(ensemble=ensemble, logo=None, policy=None)
    (told,) = quick_attacks(cast("Any", Source(pixels)), cast("Any", locked), cast("Any", locker))
    assert told == {"psnr": 33.0, "undone_by": undone}
