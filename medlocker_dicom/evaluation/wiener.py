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
from scipy.fft import irfft2, rfft2
from scipy.sparse.linalg import LinearOperator, cg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Field = NDArray[np.float64]
    Floats = NDArray[np.float32]

_SOLID: Final = 0.98  # of a logo's greatest opacity, from which it is no edge
# Of conjugate gradients (Hestenes and Stiefel 1952). A tenth of a dB is told by what follows.
_STEPS: Final = 200
_ENOUGH: Final = 1e-2  # of what is wanted, left over
_ROUNDING: Final = 0.35  # levels; with some to spare, what 8 bits leave of each sample
_SEEN, _PAINTED = 2, 4  # levels of d and p, below which nothing is told


def missed(
    seen: Field, painted: Field, own: NDArray[np.uint8], errors: Floats, shades: Floats
) -> Floats:
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
        float32 (h, w, 3), to be added to what was painted.
    """
    d, p = (np.moveaxis(one, -1, 0) for one in (seen, painted))
    told = solid_of(own) & (np.sign(d) == np.sign(p)) & (np.abs(d) >= _SEEN)
    told &= np.abs(p) >= _PAINTED
    if not told.any():
        return np.zeros(seen.shape, np.float32)
    ratio = np.log(np.maximum(np.abs(d), 1) / np.maximum(np.abs(p), 1))
    heard = np.ma.array(ratio, mask=~told)
    level = np.ma.median(heard, axis=(1, 2), keepdims=True).filled(0)  # type: ignore[no-untyped-call]  # as NumPy ships it
    wanted = np.where(told, p * (ratio - level), 0).astype(np.float32)
    weight = np.where(told, p, 0).astype(np.float32)
    rounding = 0.5 + (weight * _ROUNDING / np.maximum(np.abs(d), 1)) ** 2
    loose = np.where(told, rounding, 1).astype(np.float32)
    used = (told | (own == 0)).astype(np.float32)

    def spread(field: Floats) -> Floats:
        part = field.reshape(used.shape) * used
        both = _filtered(errors, part) + weight * _filtered(shades, weight * part)
        return np.asarray(((both + loose * part) * used).ravel())

    # Much the same system, but alike at all px, is solved at once.
    usual = np.sqrt((weight**2).sum((1, 2)) / np.maximum(told.sum((1, 2)), 1))
    alike = errors + np.multiply.outer(usual, usual)[..., np.newaxis, np.newaxis] * shades
    alike += np.eye(3)[..., np.newaxis, np.newaxis] * np.average(loose, weights=used)
    undoing = np.linalg.inv(alike.transpose(2, 3, 0, 1)).transpose(2, 3, 0, 1).copy()
    error, shade = (np.einsum("iiyx->i", by) / by[0, 0].size for by in (errors, shades))
    error = np.maximum(error, 1e-9)  # where no painting misses anything
    power = error + usual**2 * shade, error + np.moveaxis(weight**2, 0, -1) * shade
    share = used * np.where(told, np.moveaxis(np.sqrt(power[0] / power[1]), -1, 0), 1)
    share = share.astype(np.float32)

    def guess(field: Floats) -> Floats:
        return np.asarray((share * _filtered(undoing, share * field.reshape(used.shape))).ravel())

    system, near = (
        LinearOperator((used.size, used.size), one, dtype=np.float32) for one in (spread, guess)
    )
    solved, _ = cg(system, wanted.ravel(), rtol=_ENOUGH, maxiter=_STEPS, M=near)
    return np.moveaxis(_filtered(errors, solved.reshape(used.shape) * used), 0, -1)


def solid_of(own: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Px of a logo, by its own opacity uint8 (h, w), that are no edges of it."""
    return np.asarray((own > 0) & (own >= _SOLID * own.max(initial=0)))


def spectra(fields: Sequence[Field], mask: NDArray[np.bool_]) -> Floats:
    """Tell how fields float64 (h, w, 3) vary under a mask (h, w), alike in all directions.

    Returns
    -------
    ndarray
        float32 (3, 3, P, P // 2 + 1): covariance of the channels by frequency; of a square of P px,
        large enough for both fields and what is beyond their edges.
    """
    side = cv2.getOptimalDFTSize(int(1.5 * max(mask.shape)))
    side += side % 2
    total = np.zeros((3, 3, side, side // 2 + 1))
    for field in fields:
        waves = rfft2(np.moveaxis(field * mask[..., np.newaxis], -1, 0), (side, side))
        total += np.einsum("iyx,jyx->ijyx", waves, waves.conj()).real
    far = np.hypot(np.fft.fftfreq(side)[:, np.newaxis], np.fft.rfftfreq(side))
    ring = np.rint(far * side).astype(int)
    counts = np.bincount(ring.ravel())
    sums = [np.bincount(ring.ravel(), one.ravel()) for one in total.reshape(9, -1)]
    means = (np.stack(sums) / counts)[:, ring].reshape(total.shape)
    return np.asarray(means / (max(len(fields), 1) * mask.sum()), np.float32)


def _filtered(by: Floats, field: Floats) -> Floats:
    side = by.shape[2]
    waves = rfft2(field, (side, side))
    mixed = np.stack([sum(map(np.multiply, row, waves)) for row in by])
    return np.asarray(irfft2(mixed, (side, side))[:, : field.shape[1], : field.shape[2]])
