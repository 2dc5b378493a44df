"""Figures of merit, as the field reports them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    cohen_kappa_score,
    roc_auc_score,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

REFERABLE = 2


def grading_figures(
    probabilities: NDArray[np.float32], grades: NDArray[np.int64]
) -> dict[str, float | None]:
    """Measure a grader.

    Parameters
    ----------
    probabilities
        float (n, 5), rows sum to one.
    grades
        int (n,), 0 to 4.

    Returns
    -------
    dict
        ``n``; ``accuracy`` of the argmax; ``kappa``, quadratic weighted; ``auc_any``
        (grade >= 1) and ``auc_referable`` (grade >= 2), area under the ROC curve; None where
        one class is absent.
    """
    chosen = probabilities.argmax(1)
    figures: dict[str, float | None] = {
        "n": float(len(grades)),
        "accuracy": float(accuracy_score(grades, chosen)),
        "kappa": _defined(
            cohen_kappa_score(grades, chosen, weights="quadratic", labels=list(range(5)))
        ),
    }
    for name, least in (("auc_any", 1), ("auc_referable", REFERABLE)):
        truth = grades >= least
        score = probabilities[:, least:].sum(1)
        both = 0 < truth.sum() < len(truth)
        figures[name] = _defined(roc_auc_score(truth, score)) if both else None
    return {name: None if v is None else round(v, 4) for name, v in figures.items()}


def _defined(value: float) -> float | None:
    """Give None for NaN, which JSON does not have."""
    return None if math.isnan(value) else float(value)


def segmentation_figures(
    probabilities: NDArray[np.float32], truth: NDArray[np.bool_], threshold: float
) -> dict[str, float | None]:
    """Measure one lesion over all px of all images at once.

    Parameters
    ----------
    probabilities
        float (n,) px, 0 to 1.
    truth
        bool (n,) px.
    threshold
        Probability from which a px counts as lesion.

    Returns
    -------
    dict
        ``dice`` at the threshold and ``aupr``, area under the precision-recall curve; None
        where no px carries the lesion, and for ``dice`` where none is marked either.
    """
    marked = probabilities >= threshold
    both = 2 * float((marked & truth).sum())
    either = float(marked.sum() + truth.sum())
    return {
        "dice": round(both / either, 4) if either else None,
        "aupr": round(float(average_precision_score(truth, probabilities)), 4)
        if truth.any()
        else None,
    }
