"""What is under a logo of unknown opacities, as far as statistics tell it (Wiener 1949).

A thief paints the logo over. Where p is what was painted less the logo's colour, and d what is seen
less it, log(d / p) is the sum of what the painting missed, as a share of p, and of the logarithm of
how much shines through. How the first varies over an eye he learns by painting over other parts of
the photograph; how the second does, by locking with keys of his own. Both are taken for fields of
Gaussian noise with these spectra, the channels together, and the first is estimated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
from scipy.sparse.linalg import LinearOperator, cg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Field = NDArray[np.float64]

_SOLID: Final = 0.98  # of a logo's greatest opacity, from which it is no edge
# Of conjugate gradients (Hestenes and Stiefel 1952): for speed, and far from solved. With more of
# them more is told.
_STEPS: Final = 60
_ENOUGH: Final = 1e-3  # of what is wanted, left over
_ROUNDING: Final = 0.35  # levels; with some to spare, what 8 bits leave of each sample
_SEEN, _PAINTED = 2, 4  # levels of d and p, below which nothing is told


def missed(
    seen: Field, painted: Field, own: NDArray[np.uint8], errors: Field, shades: Field
) -> Field:
    """Estimate by how much a painting missed.

    Parameters
    ----------
    seen, painted
        float64 (h, w, 3): d and p.
    own
        uint8 (h, w): the logo's own opacity. Where it is 0, p is right; its edges tell nothing.
    errors
        Spectra of paintings' errors (`spectra`), in levels.
    shades
        Those of the logarithm of what shines through.

    Returns
    -------
    ndarray
        float64 (h, w, 3), to be added to what was painted.
    """
    told = solid_of(own)[..., np.newaxis] & (np.sign(seen) == np.sign(painted))
    told &= (np.abs(seen) >= _SEEN) & (np.abs(painted) >= _PAINTED)
    ratio = np.log(np.maximum(np.abs(seen), 1) / np.maximum(np.abs(painted), 1))
    heard = np.ma.array(ratio, mask=~told)
    level = np.ma.median(heard, axis=(0, 1)).filled(0)  # type: ignore[no-untyped-call]  # as NumPy ships it
    weight = np.where(told, painted, 0.0)
    used = told | (own == 0)[..., np.newaxis]
    loose = np.where(told, 0.5 + (weight * _ROUNDING / np.maximum(np.abs(seen), 1)) ** 2, 1.0)

    def spread(field: Field) -> Field:
        part = field.reshape(seen.shape) * used
        both = _filtered(errors, part) + weight * _filtered(shades, weight * part)
        return np.asarray(((both + loose * part) * used).ravel())

    wanted = np.where(told, painted * (ratio - level), 0.0).ravel()
    system = LinearOperator((wanted.size, wanted.size), spread, dtype=np.float64)
    solved, _ = cg(system, wanted, rtol=_ENOUGH, maxiter=_STEPS)
    found: Field = _filtered(errors, solved.reshape(seen.shape) * used)
    return found


def solid_of(own: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Px of a logo, by its own opacity uint8 (h, w), that are no edges of it."""
    return np.asarray((own > 0) & (own >= _SOLID * own.max(initial=0)))


def spectra(fields: Sequence[Field], mask: NDArray[np.bool_]) -> Field:
    """Tell how fields float64 (h, w, 3) vary under a mask (h, w), alike in all directions.

    Returns
    -------
    ndarray
        float64 (P, P // 2 + 1, 3, 3): covariance of the channels by frequency; of a square of P px,
        large enough for both fields and what is beyond their edges.
    """
    side = cv2.getOptimalDFTSize(int(1.5 * max(mask.shape)))
    side += side % 2
    total = np.zeros((side, side // 2 + 1, 3, 3))
    for field in fields:
        waves = np.fft.rfft2(field * mask[..., np.newaxis], (side, side), (0, 1))
        total += np.einsum("...i,...j->...ij", waves, waves.conj()).real
    far = np.hypot(np.fft.fftfreq(side)[:, np.newaxis], np.fft.rfftfreq(side))
    ring = np.rint(far * side).astype(int)
    counts = np.bincount(ring.ravel())
    flat = total.reshape(-1, 9).T
    means = np.stack([np.bincount(ring.ravel(), one) / counts for one in flat], -1)
    return np.asarray(means[ring].reshape(total.shape) / (max(len(fields), 1) * mask.sum()))


def _filtered(by: Field, field: Field) -> Field:
    side = len(by)
    waves = np.einsum("...ij,...j->...i", by, np.fft.rfft2(field, (side, side), (0, 1)))
    whole = np.fft.irfft2(waves, (side, side), (0, 1))
    return np.asarray(whole[: field.shape[0], : field.shape[1]])
