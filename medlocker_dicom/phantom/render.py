"""Puts a generated fundus photograph together."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medlocker_dicom.phantom.eye import Bit, Eye, Floats, noise, random_eye, rgb
from medlocker_dicom.phantom.lesions import Canvas, add_lesions
from medlocker_dicom.phantom.retina import disc_coverage, ground, light, painted_disc, softened
from medlocker_dicom.phantom.vessels import blood, vessel_tree

VEIN_WIDTH = 0.035  # radii, at the disc
ARTERY_WIDTH = 0.025
VEIN_TAKES = (0.42, 0.80, 0.66)  # optical depth of the fullest vein, RGB
ARTERY_TAKES = (0.14, 0.58, 0.46)
REFLEX = (0.10, 0.16, 0.12)  # light that the middle of an artery gives back


@dataclass(frozen=True)
class Phantom:
    """A generated fundus photograph and what is in it.

    Attributes
    ----------
    image
        uint8 ``(H, W, 3)`` RGB; black outside the field of view.
    mask
        uint8 ``(H, W)`` of `Bit`: MA 1, HE 2, EX 4, SE 8, OD 16. A pixel belongs to
        what covers at least half of it; lesions and disc do not overlap.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


def phantom(
    rng: np.random.Generator, size: tuple[int, int] = (768, 768), *, lesions: bool = True
) -> Phantom:
    """Generate a fundus photograph.

    No photograph goes into it: the field of view, the retina, its vessels and
    lesions are all drawn from `rng`. It is for demonstrations and tests, and
    resembles a photograph to the eye, not in its statistics.

    Parameters
    ----------
    rng
        Source of every choice; the same seed and size give the same bytes
        with the same numpy and OpenCV.
    size
        ``(H, W)`` in pixels, each 96 to 4608.
    lesions
        Whether the eye has diabetic retinopathy; without, only the disc is marked.

    Raises
    ------
    PixelLayoutError
        The size is out of range.
    """
    eye = random_eye(rng, size)
    lamp = light(rng, eye)
    picture = painted_disc(rng, eye, ground(rng, eye))
    picture, barred = _with_vessels(rng, eye, picture)
    grain = noise(rng, size, 1.5)  # before the lesions, so that they change nothing else
    mask = np.where(disc_coverage(eye) >= 0.5, np.uint8(Bit.OD), np.uint8(0))
    if lesions:
        add_lesions(rng, Canvas(eye, picture, mask, barred))
    image = _exposed(eye, picture * lamp[..., None], grain)
    mask[(image == 0).all(axis=2)] = 0
    return Phantom(image, mask)


def _with_vessels(
    rng: np.random.Generator, eye: Eye, picture: Floats
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Draw veins, then arteries; also tell where a vessel or the disc is."""
    veins = vessel_tree(rng, eye, VEIN_WIDTH)
    arteries = vessel_tree(rng, eye, ARTERY_WIDTH)
    vein = softened(blood(eye, veins, VEIN_WIDTH, 1.0), 0.0022 * eye.radius)
    artery = softened(blood(eye, arteries, ARTERY_WIDTH, 1.0), 0.0022 * eye.radius)
    middle = softened(blood(eye, arteries, ARTERY_WIDTH, 0.34), 0.0025 * eye.radius)
    taken = vein[..., None] * rgb(*VEIN_TAKES)
    taken = np.maximum(taken, artery[..., None] * rgb(*ARTERY_TAKES))
    shown = picture * np.exp(-taken) * (1 + middle[..., None] * rgb(*REFLEX))
    barred = (np.maximum(vein, artery) > 0.3) | (disc_coverage(eye) > 0)
    return shown, barred


def _exposed(eye: Eye, picture: Floats, grain: Floats) -> npt.NDArray[np.uint8]:
    """Photograph the scene: optics, sensor noise, the field's edge, 8 bits."""
    seen = softened(picture, 0.0016 * eye.radius)
    seen = seen + grain[..., None] * rgb(0.004, 0.004, 0.006)
    levels = np.clip(seen, 0.02, 1.0) * eye.field[..., None] * 255
    return np.round(levels).astype(np.uint8)
