"""Figures of merit on cases small enough to work out by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from medlocker_dicom.training.measures import grading_figures, segmentation_figures


def sure(grades: list[int]) -> NDArray[np.float32]:
    """Return the probabilities of a grader that has no doubt."""
    return np.eye(5, dtype=np.float32)[grades]


def test_a_perfect_grader() -> None:
    """Every figure is 1, and the cases are counted."""
    grades = [0, 1, 2, 3, 4, 0]
    figures = grading_figures(sure(grades), np.array(grades))
    assert figures == {"n": 6, "accuracy": 1, "kappa": 1, "auc_any": 1, "auc_referable": 1}


def test_a_grader_worked_out_by_hand() -> None:
    """Of grades 0, 0, 1, 2 the last is taken for 4, and one 0 for 1.

    Accuracy 2/4. Quadratic disagreement: observed 1 + 4 over expected, the mean over all
    pairs of a grade with a decision, times 4: (18 + 18 + 10 + 10) / 4.
    """
    figures = grading_figures(sure([0, 1, 1, 4]), np.array([0, 0, 1, 2]))
    assert figures["accuracy"] == 0.5
    assert figures["kappa"] == round(1 - 5 / 14, 4)
    # any disease: {1, 2} above the surer 0, level with the other: (1 + 1/2 + 1 + 1/2) / 4
    assert figures["auc_any"] == 0.75
    assert figures["auc_referable"] == 1


def test_auc_ranks_by_the_sum_of_the_grades() -> None:
    """The score of disease is the probability of all its grades, whatever the argmax."""
    probabilities = np.array(
        [[0.40, 0.15, 0.15, 0.15, 0.15], [0.45, 0.55, 0, 0, 0], [0.3, 0.35, 0.35, 0, 0]], np.float32
    )
    figures = grading_figures(probabilities, np.array([3, 1, 2]))
    assert figures["auc_referable"] == 1
    assert figures["auc_any"] is None


@pytest.mark.parametrize(
    ("grades", "undefined"),
    [
        ([0, 0, 0], {"auc_any", "auc_referable"}),
        ([0, 1, 0], {"auc_referable"}),
        ([2, 3, 4], {"auc_any", "auc_referable"}),
        ([1, 2, 2], {"auc_any"}),
        ([0, 1, 2], set()),
    ],
)
def test_no_auc_without_both_classes(grades: list[int], undefined: set[str]) -> None:
    """Where one class is absent there is no area, and the rest are numbers."""
    figures = grading_figures(sure([0, 1, 2]), np.array(grades))
    assert {name for name, value in figures.items() if value is None} == undefined


def test_masks_worked_out_by_hand() -> None:
    """Dice from the threshold on, precision-recall from the ranking."""
    scores = np.array([0.9, 0.5, 0.4, 0.1], np.float32)
    truth = np.array([True, False, True, False])
    # marked 2, true 2, both 1; precision 1 up to recall 1/2, 2/3 up to 1
    assert segmentation_figures(scores, truth, 0.5) == {"dice": 0.5, "aupr": round(5 / 6, 4)}
    # marked 1, true 2, both 1; the ranking is the same
    assert segmentation_figures(scores, truth, 0.6) == {"dice": 0.6667, "aupr": round(5 / 6, 4)}
    assert segmentation_figures(scores, scores > 0.45, 0.5) == {"dice": 1, "aupr": 1}


def test_nothing_marked() -> None:
    """A model that marks nothing has Dice 0, and for AUPR the share of the label."""
    truth = np.array([True, False, False, False])
    assert segmentation_figures(np.zeros(4, np.float32), truth, 0.5) == {"dice": 0, "aupr": 0.25}


def test_a_label_that_nobody_carries() -> None:
    """Without a true px there is no AUPR; Dice is 0 where some are marked, else there is none."""
    nowhere = np.zeros(2, bool)
    marked, unmarked = np.array([0.9, 0.1], np.float32), np.zeros(2, np.float32)
    assert segmentation_figures(marked, nowhere, 0.5) == {"dice": 0, "aupr": None}
    assert segmentation_figures(unmarked, nowhere, 0.5) == {"dice": None, "aupr": None}
