"""The estimate of what a painting missed."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from medlocker_dicom.evaluation import wiener
from medlocker_dicom.evaluation.wiener import missed, spectra

SIDE = 96
Field = NDArray[np.float64]


def smooth(rng: np.random.Generator, size: float, width: float) -> Field:
    """Draw a field (h, w, 3) that varies over so many px, by as much."""
    field = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE, 3)), (0, 0), width)
    return np.asarray(size * field / field.std())


@pytest.mark.parametrize("seed", range(3))
def test_what_was_missed_is_told_from_what_shines_through(seed: int) -> None:
    """A coarse error under fine shades is found; under shades of its own kind it hardly is."""
    rng = np.random.default_rng(seed)
    own = np.zeros((SIDE, SIDE), np.uint8)
    own[20:76, 20:76] = 255
    solid, painted = own > 0, np.full((SIDE, SIDE, 3), 90.0)
    error = smooth(rng, 8, 6) * solid[..., None]
    errors = spectra([smooth(rng, 8, 6) for _ in range(6)], solid)
    left = []
    for width in (0.5, 6):
        shade = smooth(rng, 0.3, width)
        shades = spectra([smooth(rng, 0.3, width) for _ in range(6)], solid)
        seen = np.where(solid[..., None], (painted + error) * np.exp(shade - 1), painted)
        found = missed(seen, painted, own, errors, shades)
        left.append(float((found - error)[solid].std() / error[solid].std()))
    assert left[0] < 0.75
    assert left[0] + 0.2 < left[1] < 1.2


def test_the_estimate_is_near_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight times the steps change it little, on a logo part of which is near the eye's colour."""
    rng = np.random.default_rng(3)
    own = np.zeros((SIDE, SIDE), np.uint8)
    own[20:76, 20:76] = 255
    solid, painted = own > 0, np.linspace(6, 180, SIDE)[:, None, None] * np.ones((SIDE, 3))
    errors = spectra([smooth(rng, 8, 4) for _ in range(6)], solid)
    shades = spectra([smooth(rng, 0.3, 1) for _ in range(6)], solid)
    error = smooth(rng, 8, 4) * solid[..., None]
    seen = np.where(solid[..., None], (painted + error) * np.exp(smooth(rng, 0.3, 1) - 1), painted)
    soon = missed(seen, painted, own, errors, shades)
    monkeypatch.setattr(wiener, "_STEPS", 1600)
    monkeypatch.setattr(wiener, "_ENOUGH", 1e-4)
    late = missed(seen, painted, own, errors, shades)
    assert late[solid].std() > 3
    assert (soon - late)[solid].std() < 0.05 * late[solid].std()


def test_nothing_is_added_where_nothing_is_told() -> None:
    """Where the logo hides all, or its colour is the eye's, the painting stays."""
    own = np.full((SIDE, SIDE), 255, np.uint8)
    own[:10] = 0
    spectrum = spectra([smooth(np.random.default_rng(0), 5, 3)], own > 0)
    for seen, painted in ((0.0, 90.0), (50.0, 1.0), (-50.0, 90.0)):
        one, two = (np.full((SIDE, SIDE, 3), value) for value in (seen, painted))
        assert np.abs(missed(one, two, own, spectrum, spectrum)).max() < 1e-9
