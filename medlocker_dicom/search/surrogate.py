"""What the candidates that were asked tell of all others: a Gaussian process over them."""

from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from threadpoolctl import ThreadpoolController

from medlocker_dicom.search.objective import FloatArray, GeneArray

ALPHA_LENGTHS = (100.0, 300.0)
"""Levels of 255 over which losses are alike; the likeliest is taken, with that of positions."""

POSITION_LENGTHS = (0.08, 0.15, 0.3)
"""Shares of the canvas' width."""

NOISE = 0.02
"""Share of the losses' variance that no smooth function explains."""

MEMORY = 128
"""Candidates that are learnt from, the best where there are more: the cost grows by their cube."""

#: Such small matrices are no faster on several threads, which then stand in the models' way.
_POOLS = ThreadpoolController()


class Surrogate:
    """Foretells losses, and how far they may be off.

    Parameters
    ----------
    genes
        int (n, 3), rows ``(alpha, x, y)``: candidates that were asked.
    losses
        float64 (n,): what came of them.
    width
        Of the canvas in px.
    """

    def __init__(self, genes: GeneArray, losses: FloatArray, width: int) -> None:
        kept = np.argsort(losses, kind="stable")[:MEMORY]
        self._genes, self._losses = genes[kept].astype(np.float64), losses[kept]
        kernels = [
            RBF((alpha, share * width, share * width))
            for alpha, share in product(ALPHA_LENGTHS, POSITION_LENGTHS)
        ]
        with _POOLS.limit(limits=1, user_api="blas"):
            processes = [_fitted(kernel, self._genes, self._losses) for kernel in kernels]
        self._process = max(processes, key=lambda one: one.log_marginal_likelihood_value_)

    def most_promising(self, candidates: GeneArray, count: int) -> npt.NDArray[np.intp]:
        """Pick the candidates of which most improvement is expected (Mockus 1978).

        Each is believed to turn out as foretold before the next is picked, so that they do not
        all ask about one place (Ginsbourger et al. 2010).

        Parameters
        ----------
        candidates
            int (m, 3), distinct, none of them asked yet.
        count
            How many to pick, at least 1.

        Returns
        -------
        numpy.ndarray
            Their rows, at most `count`, the first pick first.
        """
        with _POOLS.limit(limits=1, user_api="blas"):
            return self._picked(candidates.astype(np.float64), count)

    def _picked(self, points: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
        process, genes, losses = self._process, self._genes, self._losses
        picked: list[int] = []
        for number in range(min(count, len(points))):
            if number:
                process = _fitted(process.kernel, genes, losses)
            foretold, spread = process.predict(points, return_std=True)
            spread = np.maximum(spread, 1e-12)
            gain = (losses.min() - foretold) / spread
            promise = spread * (gain * ndtr(gain) + np.exp(-(gain**2) / 2) / np.sqrt(2 * np.pi))
            promise[picked] = -np.inf
            best = int(promise.argmax())
            picked.append(best)
            genes = np.vstack([genes, points[best]])
            losses = np.append(losses, foretold[best])
        return np.array(picked, np.intp)


def _fitted(
    kernel: RBF, genes: npt.NDArray[np.float64], losses: FloatArray
) -> GaussianProcessRegressor:
    process = GaussianProcessRegressor(kernel, alpha=NOISE, optimizer=None, normalize_y=True)
    fitted: GaussianProcessRegressor = process.fit(genes, losses)
    return fitted
