"""One disc an eye: what else passes for it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from medlocker_dicom.lesions.discs import rival_discs

HEIGHT, WIDTH, DIAMETER, RADIUS = 800, 1202, 800, 60


def discs(*centres: tuple[int, int], radius: int = RADIUS) -> NDArray[np.bool_]:
    """Return a map with round regions."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    found = np.zeros((HEIGHT, WIDTH), np.bool_)
    for across, down in centres:
        found |= np.hypot(x - across, y - down) <= radius
    return found


def test_two_are_rivals() -> None:
    """Whichever is the disc: both are told, and nothing else."""
    pair, speck = discs((200, 400), (650, 420)), discs((900, 200), radius=10)
    np.testing.assert_array_equal(rival_discs(pair | speck, DIAMETER), pair)


@pytest.mark.parametrize(
    "found",
    [
        discs(),
        discs((200, 400)),
        discs((200, 400)) | discs((650, 420), radius=20),
        discs((150, 350), (200, 430), (240, 340), radius=35),
        np.ones((HEIGHT, WIDTH), np.bool_),
        np.ones((1, 1), np.bool_),
        np.zeros((3, 700), np.bool_),
    ],
    ids=["none", "one", "one and a speck", "one in parts", "all", "a single px", "a few rows"],
)
def test_one_has_none(found: NDArray[np.bool_]) -> None:
    """A disc that is alone, or in parts, has no rival."""
    assert not rival_discs(found, DIAMETER).any()


def test_regions_are_measured_by_the_retina() -> None:
    """At half the resolution the same are rivals, and in a photograph with much black around it."""
    pair = discs((200, 400), (650, 420))
    half = pair[::2, ::2]
    np.testing.assert_array_equal(rival_discs(half, DIAMETER // 2), half)
    framed = np.pad(pair, 900)
    np.testing.assert_array_equal(rival_discs(framed, DIAMETER), framed)


def test_any_map_of_any_size() -> None:
    """Whatever was taken for the disc, what is told is part of it."""
    rng = np.random.default_rng(5)
    for _ in range(400):
        height, width = rng.integers(1, 300, 2)
        found = rng.random((height, width)) < rng.choice([0.001, 0.02, 0.5])
        assert not (rival_discs(found, int(rng.integers(1, 300))) & ~found).any()
