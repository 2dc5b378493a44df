"""Figures of merit, as the field reports them."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    roc_auc_score,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

REFERABLE = 2
BINS = 15
#: Steps of a score that a tally tells apart.
LEVELS = 4096


def grading_figures(
    probabilities: NDArray[np.float32], grades: NDArray[np.int64]
) -> dict[str, float | None]:
    """Measure a grader.

    Parameters
    ----------
    probabilities
        float (n, grades), rows sum to one.
    grades
        int (n,), from 0.

    Returns
    -------
    dict
        ``n``; ``accuracy`` of the argmax; ``kappa``, quadratic weighted; ``ece``, expected
        calibration error; ``auc_any`` (grade >= 1) and ``auc_referable`` (grade >= 2), area
        under the ROC curve; None where one class is absent.
    """
    chosen = probabilities.argmax(1)
    figures: dict[str, float | None] = {
        "n": len(grades),
        "accuracy": float(accuracy_score(grades, chosen)),
        "kappa": _kappa(grades, chosen, probabilities.shape[1]),
        "ece": calibration_error(probabilities, grades),
    }
    for name, least in (("auc_any", 1), ("auc_referable", REFERABLE)):
        truth = grades >= least
        score = probabilities[:, least:].sum(1)
        both = 0 < truth.sum() < len(truth)
        figures[name] = _defined(roc_auc_score(truth, score)) if both else None
    return {name: None if v is None else round(v, 4) for name, v in figures.items()}


def _kappa(grades: NDArray[np.int64], chosen: NDArray[np.int64], labels: int) -> float | None:
    with warnings.catch_warnings():  # of what None says: all is of one grade
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return _defined(
            cohen_kappa_score(grades, chosen, weights="quadratic", labels=list(range(labels)))
        )


def calibration_error(probabilities: NDArray[np.float32], grades: NDArray[np.int64]) -> float:
    """Measure the expected calibration error of the winning grade, over 15 bins of equal width.

    The mean over photographs of the distance between confidence and accuracy in their bin
    (Guo et al. 2017, eq. 3).

    Parameters
    ----------
    probabilities
        float (n, grades), rows sum to one.
    grades
        int (n,).
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == grades
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs(float((confidence - right)[bins == b].sum())) for b in range(BINS)]
    return sum(gaps) / len(grades)


def fit_temperature(logits: NDArray[np.float64], grades: NDArray[np.int64]) -> float:
    """Find the temperature of the likeliest probabilities (Guo et al. 2017, section 4.2).

    Parameters
    ----------
    logits
        float (n, grades).
    grades
        int (n,).

    Returns
    -------
    float
        Between 0.1 and 10.
    """

    def surprise(logarithm: float) -> float:
        chances = log_softmax(logits / math.exp(logarithm), axis=1)
        return -float(chances[np.arange(len(grades)), grades].mean())

    found = minimize_scalar(surprise, bounds=(math.log(0.1), math.log(10)), method="bounded")
    return round(math.exp(found.x), 4)


def _defined(value: float) -> float | None:
    """Give None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)


class Tally:
    """Counts px of one label by score, so that any number of photographs fits in memory."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, LEVELS), np.int64)

    def add(self, scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> None:
        """Count px.

        Parameters
        ----------
        scores
            float, any shape, 0 to 1.
        truth
            bool, the same shape.
        """
        level = np.minimum((scores.ravel() * LEVELS).astype(np.int64), LEVELS - 1)
        both = np.bincount(level + LEVELS * truth.ravel(), minlength=2 * LEVELS)
        self._counts += both.reshape(2, LEVELS)

    def figures(self, threshold: float) -> dict[str, float | None]:
        """Measure one label over all px of all photographs at once.

        Parameters
        ----------
        threshold
            Score from which a px counts as marked; kept to one part in 4096.

        Returns
        -------
        dict
            ``dice`` at the threshold and ``aupr``, area under the precision-recall curve; None
            where no px carries the label, and for ``dice`` where none is marked either.
        """
        first = math.ceil(threshold * LEVELS)
        right = float(self._counts[1, first:].sum())
        carried, marked = float(self._counts[1].sum()), float(self._counts[:, first:].sum())
        either = carried + marked
        truth = np.repeat([0, 1], LEVELS)
        scores = np.tile(np.arange(LEVELS), 2)
        return {
            "dice": round(2 * right / either, 4) if either else None,
            "aupr": round(
                float(average_precision_score(truth, scores, sample_weight=self._counts.ravel())),
                4,
            )
            if carried
            else None,
        }
