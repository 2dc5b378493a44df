"""Tables from rows that can be counted by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from medlocker_dicom.evaluation import tables
from medlocker_dicom.evaluation.figures import bars, draw, fields
from medlocker_dicom.evaluation.names import HELP
from medlocker_dicom.evaluation.plans import STUDIES
from medlocker_dicom.evaluation.rates import Rate
from medlocker_dicom.evaluation.report import words
from medlocker_dicom.evaluation.study import Condition
from medlocker_dicom.lesions.positions import Mode
from medlocker_dicom.pipeline.policy import Policy

ONE, TWO = "dr_classifier_resnet18", "dr_classifier_vit"
PAPER = Condition("c", (ONE,), Policy(strategy="paper", mode=Mode.AVOID))


def sure(grade: int) -> list[float]:
    """Return the probabilities of a model without doubt."""
    return [float(n == grade) for n in range(5)]


def row(grade: int, one: int, two: int, **fields: Any) -> dict[str, Any]:
    """Return a row: the true grade, and what two models make of the locked photograph."""
    return {
        "condition": "c",
        "image": f"{grade}{one}{two}",
        "grade": grade,
        "feasible": True,
        "sources": [ONE],
        "clean": {ONE: sure(grade), TWO: sure(grade)},
        "locked": {ONE: sure(one), TWO: sure(two)},
        "forward_passes": 10,
        "seconds": 0.5,
        "covered_lesion_px": 3,
        "covered_box_px": 2,
        "lesion_px": 30,
        "ssim": 0.9,
        "covered_retina": 0.05,
    } | fields


ROWS = [row(0, 1, 0), row(0, 0, 0), row(2, 0, 0), row(2, 3, 2), row(2, 2, 0)]


def test_success_by_grade() -> None:
    """Three of five turned; one of two without retinopathy; the paper's figure beside it."""
    table = tables.asr(ROWS, [PAPER])
    assert table.columns[2:5] == ("ASR", "grade 0", "grade 2")
    assert table.rows == (
        ("resnet18", "paper", Rate(3, 5), Rate(1, 2), Rate(2, 3), 71.69, 10, 0.5),
    )


@pytest.mark.parametrize(
    ("names", "paper"),
    [
        (("vgg16", "mobilenetv3", "resnet18", "inceptionv3"), 52.05),
        (("resnet18", "vit"), None),
        (("vit",), 67.26),
        (("tiny",), None),
    ],
)
def test_the_papers_figure_is_of_the_papers_models(
    names: tuple[str, ...], paper: float | None
) -> None:
    """Its ensemble is four models, whatever their order; another has no figure beside it."""
    sources = tuple(f"dr_classifier_{name}" for name in names)
    mine = Condition("c", sources, PAPER.policy)
    told = row(0, 1, 0) | {"sources": list(sources), "locked": dict.fromkeys(sources, sure(1))}
    (line,) = tables.asr([told], [mine]).rows
    assert line[-3] == paper


def test_transfer_of_those_turned_and_of_all() -> None:
    """Where the source is turned, one of three goes along; of all, two of five."""
    conditional, whole = tables.transfer(ROWS, [PAPER], [ONE, TWO])
    heads = ("searched against", "strategy", "resnet18", "vit", "all targets")
    assert conditional.columns == heads
    assert conditional.rows == (
        ("resnet18", "paper", None, Rate(1, 3), "1 of 3"),
        ("resnet18", "in the paper, %", None, 83.25, None),
    )
    assert whole.rows == (("resnet18", "paper", None, Rate(2, 5), "2 of 5"),)


def test_transfer_adds_up() -> None:
    """A line sums the sources alone, not together, the last column the models that were asked."""
    other = replace(PAPER, name="other", sources=(TWO,))
    both = replace(PAPER, name="both", sources=(ONE, TWO))
    mine = [one | {"condition": "other", "sources": [TWO]} for one in ROWS]
    _, whole = tables.transfer([*ROWS, *mine], [PAPER, other, both], [ONE, TWO])
    one, two = Rate(2, 5), whole.rows[1][2]
    assert isinstance(two, Rate)
    assert whole.rows[-1] == (
        "each alone",
        "paper",
        f"{two.hits} of {two.n}",
        "2 of 5",
        f"{one.hits + two.hits} of {one.n + two.n}",
    )


def test_eyes_with_and_without_retinopathy() -> None:
    """Those without a position count by themselves, and lesions under the logo add up."""
    nowhere = {"condition": "c", "image": "x", "grade": 2, "feasible": False}
    table = tables.wsm([*ROWS, nowhere], [PAPER])
    assert table.rows == (
        ("avoid", "paper", "DR", Rate(2, 3), 18.18, 1, 6, 9, 10.0),
        ("avoid", "paper", "no DR", Rate(1, 2), None, 0, 4, 6, 10.0),
    )


def test_a_vote_is_of_all_sources() -> None:
    """Two models that are searched against together decide by their mean."""
    both = row(2, 2, 0) | {"sources": [ONE, TWO]}
    both["locked"] = {ONE: [0.3, 0, 0.7, 0, 0], TWO: [0.9, 0, 0.1, 0, 0]}
    assert tables.flipped(both)
    assert not tables.turned(both, ONE)
    assert tables.turned(both, TWO)


def test_attacks_count_against_the_clean_photograph_so_treated() -> None:
    """A pipeline that errs on the clean photograph counts neither for nor against the lock."""
    attacks: list[dict[str, Any]] = [
        {"A1": {"psnr": 20.0, "locked": {ONE: sure(0)}}, "A9": {"clean": {ONE: sure(0)}}},
        {"A1": {"psnr": 10.0, "locked": {ONE: sure(2)}}, "A9": {"clean": {ONE: sure(2)}}},
        {"A1": {"psnr": 15.0, "locked": {ONE: sure(2)}}, "A9": {"clean": {ONE: sure(0)}}},
    ]
    for one, seen in zip(attacks, (1, 2, 3), strict=True):
        one["A9"]["locked"] = {ONE: sure(seen)}
    rows = [
        row(0, 1, 1, attacks=attacks[0]),  # turned, given back by A1, kept under A9
        row(2, 1, 2, attacks=attacks[1]),  # turned, given back by both
        row(2, 0, 2, attacks=attacks[2]),  # turned, given back by A1; the clean one errs under A9
    ]
    (table,) = tables.redteam(rows, [PAPER], [ONE, TWO])
    none, known, pipeline, unseen = table.rows
    assert none == ("none", None, None, None, Rate(3, 3))
    assert known == ("A1", 15.0, 20.0, Rate(0, 3), Rate(0, 3))
    assert pipeline == ("A9", None, None, Rate(1, 2), Rate(1, 2))
    assert unseen == ("A10 asked of vit", None, None, Rate(1, 3), Rate(1, 3))


def test_what_the_logo_hides() -> None:
    """Of all that are locked: success, similarity, shares, and px of boxes and lesions."""
    ((lock, rate, similarity, retina, *counts),) = tables.visibility(ROWS, [PAPER]).rows
    assert (lock, rate, counts) == ("c", Rate(3, 5), [0, 10, 15, 10.0])
    assert [similarity, retina] == pytest.approx([0.9, 5.0])


def test_lesions_as_segmented_are_counted_where_true_ones_are_known() -> None:
    """Its boxes are the segmenter's, so that none of their px say anything."""
    blind = Condition("c", (ONE,), PAPER.policy, segmented=True)
    marked = [row(2, 0, 0, true_lesions=True), row(0, 0, 0, true_lesions=False)]
    (line,) = tables.visibility(marked, [blind]).rows
    assert (line[1], line[5:]) == (Rate(1, 1), (None, 3, 10.0))
    assert tables.visibility(marked[1:], [blind]).rows == ()


def test_attacks_on_some_photographs_alone() -> None:
    """What needs many locks of one size is counted over those that it had."""
    seen = {"A3 matting": {"psnr": 12.0, "locked": {ONE: sure(1)}}}
    rows = [row(0, 1, 1, attacks={}), row(2, 1, 2, attacks=seen)]
    (table,) = tables.redteam(rows, [PAPER], [ONE])
    assert table.rows[0][-1] == Rate(2, 2)
    assert table.rows[1] == ("A3 matting", 12.0, 12.0, Rate(1, 1), Rate(1, 1))


def test_baselines_that_do_not_stop() -> None:
    """Chance has our budget; the paper's search has its own, to its first flip and to its end."""
    ours = Policy()
    made = STUDIES["redteam"].conditions((ONE,), ours)
    found = {one.name: (one.policy.budget, one.policy.margin) for one in made}
    assert found == {
        "default": (ours.budget, ours.margin),
        "paper": (650, 0.0),
        "random-placement": (ours.budget, 1.0),
        "paper-whole-budget": (650, 1.0),
    }


def test_figures_show_rates() -> None:
    """Bars as long as the shares of a column; of models alike, a field each with its counts."""
    (axes,) = bars(tables.asr(ROWS, [PAPER]), 2).axes
    lengths = [patch.get_width() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert lengths == [pytest.approx(60)]
    conditional, _ = found = tables.transfer(ROWS, [PAPER], [ONE, TWO])
    assert all(draw(one).startswith(b"\x89PNG") for one in found)
    axes, _bar = fields(conditional, [3]).axes
    assert [text.get_text() for text in axes.texts] == ["1/3"]
    assert np.asarray(axes.images[0].get_array()).tolist() == [[pytest.approx(100 / 3)]]


def test_tables_of_nothing() -> None:
    """Where no photograph could be locked, tables say no cases."""
    nowhere = [{"condition": "c", "image": "x", "grade": 2, "feasible": False}]
    assert tables.asr(nowhere, [PAPER]).rows[0][2] == Rate(0, 0)
    seen = tables.visibility(nowhere, [PAPER])
    assert seen.rows == (("c", Rate(0, 0), None, None, 1, 0, 0, None),)
    assert draw(seen) == b""
    assert tables.redteam(nowhere, [PAPER], [ONE])[0].rows[0][-1] == Rate(0, 0)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Rate(6, 8), "75.0 (6/8, 41-93)"),
        (Rate(0, 0), "no cases"),
        (None, ""),
        (0.123456, "0.1235"),
        (7, "7"),
        ("word", "word"),
    ],
)
def test_words_of_cells(cell: Any, text: str) -> None:
    """A reader gets per cent, counts and the interval."""
    assert words(cell) == text


def test_every_study_has_its_line() -> None:
    """The help names the studies that there are."""
    assert set(HELP) == set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_conditions_have_names_of_their_own(name: str) -> None:
    """No condition's rows are taken for another's."""
    conditions = STUDIES[name].conditions((ONE, TWO), Policy())
    assert len({c.name for c in conditions}) == len(conditions) > 1
    assert len({(c.policy.digest, c.sources) for c in conditions}) >= len(conditions) - 5
