"""Figures of merit on cases small enough to work out by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score

from medlocker_dicom.evaluation.measures import (
    Tally,
    calibration_error,
    fit_temperature,
    grading_figures,
)


def sure(grades: list[int]) -> NDArray[np.float32]:
    """Return the probabilities of a grader that has no doubt."""
    return np.eye(5, dtype=np.float32)[grades]


def test_a_perfect_grader() -> None:
    """Every figure is 1, and the cases are counted."""
    grades = [0, 1, 2, 3, 4, 0]
    figures = grading_figures(sure(grades), np.array(grades))
    assert figures == {
        "n": 6,
        "accuracy": 1,
        "kappa": 1,
        "ece": 0,
        "auc_any": 1,
        "auc_referable": 1,
    }


def test_a_grader_worked_out_by_hand() -> None:
    """Of grades 0, 0, 1, 2 the last is taken for 4, and one 0 for 1.

    Accuracy 2/4. Quadratic disagreement: observed 1 + 4 over expected, the mean over all
    pairs of a grade with a decision, times 4: (18 + 18 + 10 + 10) / 4.
    """
    figures = grading_figures(sure([0, 1, 1, 4]), np.array([0, 0, 1, 2]))
    assert figures["accuracy"] == 0.5
    assert figures["ece"] == 0.5  # sure of every answer, right in half of them
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


def test_calibration_error_worked_out_by_hand() -> None:
    """Two answers of 0.5 to 0.53, one right, and three of 0.9, all right, and one sure and wrong.

    Of bins of 1/15, the first holds confidence 1.03 and 1 right, the next 2.7 and 3, the last 1
    and 0: (0.03 + 0.3 + 1) / 6.
    """
    rest = [0.2, 0.12, 0.09, 0.09]
    rows = [[0.5, *rest], [0.53, 0.17, 0.12, 0.09, 0.09], *[[0.025, 0.9, 0.025, 0.025, 0.025]] * 3]
    rows.append([0, 0, 0, 0, 1])
    probabilities, grades = np.array(rows, np.float32), np.array([0, 3, 1, 1, 1, 0])
    assert calibration_error(probabilities, grades) == pytest.approx(1.33 / 6, abs=1e-6)
    assert grading_figures(probabilities, grades)["ece"] == round(1.33 / 6, 4)


def test_errors_of_one_bin_cancel_out() -> None:
    """Calibration is a matter of the mean in a bin, not of each answer."""
    probabilities = np.tile(np.array([0.75, 0.25, 0, 0, 0], np.float32), (4, 1))
    assert calibration_error(probabilities, np.array([0, 0, 0, 1])) == pytest.approx(0, abs=1e-7)
    assert calibration_error(probabilities, np.array([0, 0, 1, 1])) == pytest.approx(0.25)


def drawn_grades(logits: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Draw a grade for each row, as often as its softmax says."""
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    draws = np.random.default_rng(seed).random((len(logits), 1))
    return np.asarray((chances.cumsum(1) < draws).sum(1).clip(0, 4), np.int64)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    """Logits that are too sure, or not sure enough, are divided back to what they were."""
    honest = np.random.default_rng(1).normal(0, 2, (20000, 5))
    found = fit_temperature(honest * temperature, drawn_grades(honest, 2))
    assert found == pytest.approx(temperature, rel=0.03)
    shifted = honest * temperature + np.arange(20000)[:, None]
    assert fit_temperature(shifted, drawn_grades(honest, 2)) == pytest.approx(found, abs=2e-4)


def test_a_fitted_temperature_calibrates() -> None:
    """The error of a grader that is far too sure all but vanishes."""
    honest = np.random.default_rng(3).normal(0, 1.5, (20000, 5))
    grades, sure_of_it = drawn_grades(honest, 4), 4 * honest

    def error(logits: NDArray[np.float64]) -> float:
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return calibration_error(chances.astype(np.float32), grades)

    assert error(sure_of_it) > 0.2
    assert error(sure_of_it / fit_temperature(sure_of_it, grades)) < 0.02


@pytest.mark.parametrize(("grades", "limit"), [([0, 1, 2], 0.1), ([1, 2, 0], 10)])
def test_temperatures_have_limits(grades: list[int], limit: float) -> None:
    """One who is always right, or always wrong, gets no boundless temperature."""
    logits = np.eye(5)[[0, 1, 2]]
    assert fit_temperature(logits, np.array(grades)) == pytest.approx(limit, 0.02)


def figures_of(
    scores: NDArray[np.float32], truth: NDArray[np.bool_], threshold: float
) -> dict[str, float | None]:
    """Measure one photograph."""
    tally = Tally()
    tally.add(scores, truth)
    return tally.figures(threshold)


def test_masks_worked_out_by_hand() -> None:
    """Dice from the threshold on, precision-recall from the ranking."""
    scores = np.array([0.9, 0.5, 0.4, 0.1], np.float32)
    truth = np.array([True, False, True, False])
    # marked 2, true 2, both 1; precision 1 up to recall 1/2, 2/3 up to 1
    assert figures_of(scores, truth, 0.5) == {"dice": 0.5, "aupr": round(5 / 6, 4)}
    # marked 1, true 2, both 1; the ranking is the same
    assert figures_of(scores, truth, 0.6) == {"dice": 0.6667, "aupr": round(5 / 6, 4)}
    assert figures_of(scores, scores > 0.45, 0.5) == {"dice": 1, "aupr": 1}


@pytest.mark.parametrize("seed", range(4))
def test_a_tally_is_as_good_as_all_scores(seed: int) -> None:
    """Over px of several photographs it gives what sklearn gives for all of them at once."""
    rng = np.random.default_rng(seed)
    truth = rng.random((4, 150, 160)) < 0.01 * (1 + seed)
    noise = rng.beta(0.4, 6, truth.shape) + truth * rng.normal(0.1 * seed, 0.15, truth.shape)
    scores = noise.clip(0, 1).astype(np.float32)
    tally = Tally()
    for one, mask in zip(scores, truth, strict=True):
        tally.add(one, mask)
    for threshold in (0.5, 0.25, 1 / 4096):
        figures = tally.figures(threshold)
        assert figures["dice"] == round(f1_score(truth.ravel(), scores.ravel() >= threshold), 4)
        wanted = average_precision_score(truth.ravel(), scores.ravel())
        assert figures["aupr"] == pytest.approx(wanted, abs=1e-3)


def test_a_score_at_the_threshold_counts_as_marked() -> None:
    """As for the segmenter itself; the float below it does not; 0 and 1 are scores as well."""
    for score, dice in (
        (0.5, 1),
        (np.nextafter(np.float32(0.5), np.float32(0)), 0),
        (1, 1),
        (0, 0),
    ):
        assert figures_of(np.array([score], np.float32), np.array([True]), 0.5)["dice"] == dice


def test_nothing_marked() -> None:
    """A model that marks nothing has Dice 0, and for AUPR the share of the label."""
    truth = np.array([True, False, False, False])
    assert figures_of(np.zeros(4, np.float32), truth, 0.5) == {"dice": 0, "aupr": 0.25}


def test_a_label_that_nobody_carries() -> None:
    """Without a true px there is no AUPR; Dice is 0 where some are marked, else there is none."""
    nowhere = np.zeros(2, bool)
    marked, unmarked = np.array([0.9, 0.1], np.float32), np.zeros(2, np.float32)
    assert figures_of(marked, nowhere, 0.5) == {"dice": 0, "aupr": None}
    assert figures_of(unmarked, nowhere, 0.5) == {"dice": None, "aupr": None}
    assert Tally().figures(0.5) == {"dice": None, "aupr": None}
