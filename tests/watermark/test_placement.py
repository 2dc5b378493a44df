"""Placements in range."""

import pytest

from medlocker_dicom.errors import PlacementError
from medlocker_dicom.watermark.placement import Placement


def test_holds_its_numbers() -> None:
    """A placement is a value: equal numbers, equal placement."""
    assert Placement(3, 4, 100) == Placement(x=3, y=4, alpha=100)


@pytest.mark.parametrize(
    ("x", "y", "alpha", "said"),
    [(-1, 0, 150, "-1, 0"), (0, -2, 150, "0, -2"), (0, 0, 99, "99"), (0, 0, 256, "256")],
)
def test_refuses_what_is_out_of_range(x: int, y: int, alpha: int, said: str) -> None:
    """Negative corners and alphas outside 100 to 255 are named."""
    with pytest.raises(PlacementError, match=said):
        Placement(x, y, alpha)
