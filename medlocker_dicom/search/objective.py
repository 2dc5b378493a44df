"""What is looked for: candidates, their outcomes, and when to stop (eq. 3 and 8)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from medlocker_dicom.errors import BundleError

GeneArray = npt.NDArray[np.int32]
"""Candidates, ``int32 (n, 3)``: one row ``(alpha, x, y)`` each."""

FloatArray = npt.NDArray[np.float64]

Probabilities = Callable[[GeneArray], npt.NDArray[np.floating]]
"""Ensemble softmax of candidates: ``int32 (n, 3)`` to float ``(n, classes)`` (eq. 8)."""

MINIMUM_CLASSES = 2
ROUNDING = 1e-3  # half-precision softmax may leave [0, 1] by this much


class Genes(NamedTuple):
    """A candidate placement on the canvas, eq. 3's ``[alpha, x, y]``.

    Attributes
    ----------
    alpha
        Opacity of the logo, 0 to 255.
    x, y
        Column and row of the logo's upper-left pixel.
    """

    alpha: int
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the ensemble says of one candidate.

    Attributes
    ----------
    genes
        The candidate.
    probability
        ``f_t``, the ensemble's probability of the label's class, 0 to 1.
    margin
        ``max over j != t of P_j - P_t``, -1 to 1; positive once another class wins.
    flipped
        Whether the ensemble decides for a class other than the label.
    """

    genes: Genes
    probability: float
    margin: float
    flipped: bool


class Objective(Enum):
    """The quantity that selection makes small."""

    PROBABILITY = "probability"
    """``f_t`` itself (eq. 3)."""

    MARGIN = "margin"
    """Minus the margin: how far the strongest other class is ahead. In two classes
    it orders candidates as `PROBABILITY` does; in more it does not."""

    def loss(self, outcome: Outcome) -> float:
        """Return the loss of an outcome; smaller is better."""
        return outcome.probability if self is Objective.PROBABILITY else -outcome.margin


@dataclass(frozen=True, slots=True)
class Stop:
    """When a candidate is good enough to end the search.

    Attributes
    ----------
    on_flip
        Stop at the first candidate that turns the ensemble's decision.
    margin
        Stop at the first candidate with at least this margin; ``inf`` never does.
    """

    on_flip: bool
    margin: float = math.inf

    FIRST_FLIP: ClassVar["Stop"]
    """The paper's rule."""

    NEVER: ClassVar["Stop"]
    """Spend the whole budget."""

    @classmethod
    def at_margin(cls, margin: float) -> "Stop":
        """Stop once a candidate has at least this margin (-1 to 1)."""
        return cls(on_flip=False, margin=margin)

    def reached(self, outcome: Outcome) -> bool:
        """Whether this outcome ends the search."""
        return (self.on_flip and outcome.flipped) or outcome.margin >= self.margin


Stop.FIRST_FLIP = Stop(on_flip=True)
Stop.NEVER = Stop(on_flip=False)


def margin_of(probabilities: FloatArray, label: int) -> float:
    """By how much the strongest other class leads a label's, -1 to 1."""
    return float(np.delete(probabilities, label).max()) - float(probabilities[label])


def outcome_of(genes: Genes, probabilities: FloatArray, label: int) -> Outcome:
    """Judge one candidate.

    Parameters
    ----------
    genes
        The candidate.
    probabilities
        Ensemble softmax, float64 ``(classes,)``.
    label
        Index of the class to lead away from, 0 to ``classes - 1``.

    Returns
    -------
    Outcome
        A tie counts as the decision that ``numpy.argmax`` takes: the lower class.
    """
    return Outcome(
        genes=genes,
        probability=float(probabilities[label]),
        margin=margin_of(probabilities, label),
        flipped=int(probabilities.argmax()) != label,
    )


def checked(probabilities: npt.NDArray[np.floating], count: int, label: int) -> FloatArray:
    """Return the ensemble's answer as float64 once it is one.

    Parameters
    ----------
    probabilities
        What the ensemble returned for `count` candidates.
    count
        How many candidates were asked about.
    label
        The class that must be among those answered.

    Raises
    ------
    BundleError
        The answer has another shape, lacks the label's class, or holds values that
        are no probabilities: a search must not go on with a model that fails.
    """
    answer = np.asarray(probabilities, dtype=np.float64)
    if answer.ndim != 2 or answer.shape[0] != count:
        raise BundleError(
            f"the ensemble answered with shape {answer.shape} to {count} candidates",
            "one row of class probabilities a candidate is needed",
        )
    if answer.shape[1] < MINIMUM_CLASSES or not 0 <= label < answer.shape[1]:
        raise BundleError(
            f"the ensemble has {answer.shape[1]} classes, label {label} is not among them",
            "take the label from this ensemble's own decision on the clean image",
        )
    if not bool(np.all((answer >= -ROUNDING) & (answer <= 1 + ROUNDING))):
        raise BundleError(
            "the ensemble answered with values that are no probabilities",
            "check the weights for damage and that softmax is applied",
        )
    return answer
