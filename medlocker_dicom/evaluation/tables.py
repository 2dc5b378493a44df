"""Rows of a study to tables: rates with their intervals, the paper's figures beside them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from medlocker_dicom.evaluation.rates import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from medlocker_dicom.evaluation.results import Row
    from medlocker_dicom.evaluation.study import Condition

Cell = Rate | float | int | str | None

#: Table 1, per cent, by the paper's names of models.
PAPER_ASR = {
    "resnet18": 71.69,
    "vgg16": 72.88,
    "inceptionv3": 50.00,
    "mobilenetv3": 60.89,
    "resnet50": 55.92,
    "densenet121": 66.96,
    "vit": 67.26,
    "ensemble": 52.05,
}
_TARGETS = tuple(PAPER_ASR)
#: The models of the paper's ensemble.
PAPER_ENSEMBLE = ("resnet18", "vgg16", "inceptionv3", "mobilenetv3")
#: Table 2, per cent: source, then targets in the order of table 1.
PAPER_TRANSFER = {
    "resnet18": (None, 91.10, 64.83, 69.91, 69.49, 67.01, 83.25, 70.34),
    "vgg16": (80.83, None, 54.89, 65.41, 63.16, 60.96, 74.56, 64.29),
    "inceptionv3": (73.91, 81.64, None, 70.53, 69.08, 71.62, 79.72, 74.88),
    "mobilenetv3": (72.69, 76.65, 55.07, None, 74.01, 77.66, 73.40, 69.60),
    "resnet50": (72.25, 74.01, 58.15, 74.01, None, 83.42, 78.39, 68.72),
    "densenet121": (62.60, 65.85, 55.04, 69.51, 73.58, None, 69.10, 52.44),
    "vit": (74.89, 79.15, 57.87, 70.21, 74.04, 72.34, None, 65.53),
    "ensemble": (None, None, None, None, 82.11, 78.71, 80.91, None),
}
#: Table 3, per cent: strategy, mode, eyes.
PAPER_WSM = {
    ("paper", "anywhere", "DR"): 72.06,
    ("paper", "anywhere", "no DR"): 73.53,
    ("paper", "inside", "DR"): 11.69,
    ("paper", "avoid", "DR"): 18.18,
    ("random-mutation", "anywhere", "DR"): 2.59,
    ("random-mutation", "anywhere", "no DR"): 58.82,
    ("random-mutation", "inside", "DR"): 12.98,
    ("random-mutation", "avoid", "DR"): 2.59,
}


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes
    ----------
    name
        Its file's name.
    title
        What it shows, and what a reader has to know of it.
    columns
        Their headings.
    rows
        As many cells each.
    alike
        Whether all its columns of rates tell the same, of one model each.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    alike: bool = False


def asr(rows: Sequence[Row], conditions: Sequence[Condition]) -> Table:
    """Table 1: how often the models that were searched against are turned."""
    lines: list[tuple[Cell, ...]] = []
    for condition, mine in _each(rows, conditions):
        paper = condition.policy.strategy == "paper"
        lines.append(
            (
                _source(condition),
                condition.policy.strategy,
                _rate(mine, flipped),
                *(_rate([r for r in mine if r["grade"] == g], flipped) for g in _grades(rows)),
                PAPER_ASR.get(_of_the_paper(condition)) if paper else None,
                _mean(mine, "forward_passes"),
                _mean(mine, "seconds"),
            )
        )
    grades = (f"grade {g}" for g in _grades(rows))
    columns = ("searched against", "strategy", "ASR", *grades, "paper, %", "passes", "s")
    return Table("asr", "Attack success rate on the models searched against", columns, tuple(lines))


def transfer(
    rows: Sequence[Row], conditions: Sequence[Condition], targets: Sequence[str]
) -> list[Table]:
    """Table 2: how often other models are turned, where the source is and of all.

    The last column and lines add up, and have no intervals: a photograph counts there once for
    each model that is asked about it.
    """
    tables = []
    alone = {(_source(one), one.policy.strategy) for one in conditions if len(one.sources) == 1}
    for conditional in (True, False):
        lines: list[tuple[Cell, ...]] = []
        for condition, mine in _each(rows, conditions):
            chosen = [r for r in mine if flipped(r)] if conditional else mine
            source = _source(condition)
            cells: list[Cell] = [
                None if t in condition.sources else _turned(chosen, t) for t in targets
            ]
            lines.append((source, condition.policy.strategy, *cells, _sum(cells)))
            known = PAPER_TRANSFER.get(_of_the_paper(condition))
            if conditional and known and condition.policy.strategy == "paper":
                paper = dict(zip(_TARGETS, known, strict=True))
                told = (paper.get(short(t)) for t in targets)
                lines.append((source, "in the paper, %", *told, None))
        for strategy in dict.fromkeys(condition.policy.strategy for condition in conditions):
            same = [line[2:-1] for line in lines if line[:2] in alone and line[1] == strategy]
            if len(same) > 1:
                cells = [cell for line in same for cell in line]
                sums = (*map(_sum, zip(*same, strict=True)), _sum(cells))
                lines.append(("each alone", strategy, *sums))
        words = (
            "Transfer, of the photographs on which the source is turned"
            if conditional
            else "Transfer, of all photographs"
        )
        name = "transfer-conditional" if conditional else "transfer"
        heads = ("searched against", "strategy", *map(short, targets), "all targets")
        tables.append(Table(name, words, heads, tuple(lines), alike=True))
    return tables


def wsm(rows: Sequence[Row], conditions: Sequence[Condition]) -> Table:
    """Table 3: success by where the logo may lie, with and without retinopathy."""
    lines = []
    for condition, mine in _each(rows, conditions, feasible=False):
        strategy, mode = condition.policy.strategy, str(condition.policy.mode)
        for eyes, chosen in (
            ("DR", [r for r in mine if r["grade"] > 0]),
            ("no DR", [r for r in mine if r["grade"] == 0]),
        ):
            placed = [r for r in chosen if r["feasible"]]
            lines.append(
                (
                    mode,
                    strategy,
                    eyes,
                    _rate(placed, flipped),
                    PAPER_WSM.get((strategy, mode, eyes)),
                    len(chosen) - len(placed),
                    sum(r["covered_box_px"] for r in placed),
                    sum(r["covered_lesion_px"] for r in placed),
                    _covered(placed),
                )
            )
    columns = (
        "mode",
        "strategy",
        "eyes",
        "ASR",
        "paper, %",
        "no position",
        "px of boxes covered",
        "lesion px covered",
        "of the lesions, %",
    )
    return Table("wsm", "Success by where the logo may lie", columns, tuple(lines))


def ablation(rows: Sequence[Row], conditions: Sequence[Condition]) -> Table:
    """Figure 4: one number changed at a time."""
    lines = []
    for condition, mine in _each(rows, conditions):
        parameter, _, value = condition.name.partition("=")
        lines.append((parameter, value, _rate(mine, flipped), _mean(mine, "forward_passes")))
    columns = ("parameter", "value", "ASR", "passes")
    return Table("ablation", "One parameter changed at a time", columns, tuple(lines))


def visibility(rows: Sequence[Row], conditions: Sequence[Condition]) -> Table:
    """Tell what the logo hides of a retina."""
    lines = []
    for condition, every in _each(rows, conditions, feasible=False):
        blind = condition.segmented
        mine = [r for r in every if r.get("true_lesions")] if blind else every
        placed = [r for r in mine if r["feasible"]]
        if blind and not mine:
            continue
        lines.append(
            (
                condition.name,
                _rate(placed, flipped),
                _mean(placed, "ssim"),
                100 * fmean(r["covered_retina"] for r in placed) if placed else None,
                len(mine) - len(placed),
                None if blind else sum(r["covered_box_px"] for r in placed),
                sum(r["covered_lesion_px"] for r in placed),
                _covered(placed),
            )
        )
    columns = (
        "lock",
        "ASR",
        "SSIM of the retina",
        "of the retina, %",
        "no position",
        "px of boxes covered",
        "lesion px covered",
        "of the lesions, %",
    )
    return Table("visibility", "What the logo hides", columns, tuple(lines))


def redteam(
    rows: Sequence[Row], conditions: Sequence[Condition], targets: Sequence[str]
) -> list[Table]:
    """Tell what removal attacks undo, a table for each condition."""
    return [
        _attacked(condition, mine, [t for t in targets if t not in condition.sources])
        for condition, mine in _each(rows, conditions)
    ]


def _attacked(condition: Condition, rows: list[Row], unseen: Sequence[str]) -> Table:
    lines: list[tuple[Cell, ...]] = [("none", None, None, None, _rate(rows, flipped))]
    flips = [r for r in rows if flipped(r)]
    for name in dict.fromkeys(name for r in rows for name in r["attacks"]):
        found = [(r, r["attacks"][name]) for r in rows if name in r["attacks"]]
        levels = [a["psnr"] for _, a in found if "psnr" in a]
        wrong = {id(r): _decision(a["locked"], r["sources"]) != r["grade"] for r, a in found}
        fair = [  # a model that errs on the clean photograph so treated proves nothing
            r
            for r, a in found
            if "clean" not in a or _decision(a["clean"], r["sources"]) == r["grade"]
        ]
        kept = [r for r in fair if flipped(r)]
        lines.append(
            (
                name,
                fmean(levels) if levels else None,
                max(levels) if levels else None,
                Rate(sum(wrong[id(r)] for r in kept), len(kept)),
                Rate(sum(wrong[id(r)] for r in fair), len(fair)),
            )
        )
    lines += [
        (f"A10 asked of {short(t)}", None, None, _turned(flips, t), _turned(rows, t))
        for t in unseen
    ]
    columns = ("attack", "PSNR, dB", "highest PSNR", "flips that remain", "ASR under it")
    title = f"What attacks undo: {condition.name}, against {_source(condition)}"
    return Table(f"redteam-{condition.name}", title, columns, tuple(lines))


def flipped(row: Row) -> bool:
    """Whether the models searched against, together, no longer tell the true grade."""
    return bool(_decision(row["locked"], row["sources"]) != row["grade"])


def turned(row: Row, model: str) -> bool:
    """Whether one model no longer tells the true grade."""
    return bool(np.argmax(row["locked"][model]) != row["grade"])


def short(model: str) -> str:
    """Give a model's architecture, as the paper calls it."""
    return model.removeprefix("dr_classifier_")


def _decision(chances: dict[str, list[float]], sources: Iterable[str]) -> int:
    return int(np.mean([chances[name] for name in sources], 0).argmax())


def _source(condition: Condition) -> str:
    return short(condition.sources[0]) if len(condition.sources) == 1 else "ensemble"


def _of_the_paper(condition: Condition) -> str:
    """Give the paper's name of the models searched against; empty where it has none."""
    names = {short(name) for name in condition.sources}
    return _source(condition) if len(names) == 1 or names == set(PAPER_ENSEMBLE) else ""


def _each(
    rows: Sequence[Row], conditions: Sequence[Condition], *, feasible: bool = True
) -> list[tuple[Condition, list[Row]]]:
    return [
        (c, [r for r in rows if r["condition"] == c.name and (r["feasible"] or not feasible)])
        for c in conditions
    ]


def _grades(rows: Sequence[Row]) -> list[int]:
    return sorted({r["grade"] for r in rows})


def _rate(rows: Sequence[Row], hit: Callable[[Row], bool]) -> Rate:
    return Rate(sum(map(hit, rows)), len(rows))


def _sum(cells: Iterable[Cell]) -> str | None:
    rates = [cell for cell in cells if isinstance(cell, Rate)]
    if not rates:
        return None
    return f"{sum(rate.hits for rate in rates)} of {sum(rate.n for rate in rates)}"


def _turned(rows: Sequence[Row], model: str) -> Rate:
    return Rate(sum(turned(row, model) for row in rows), len(rows))


def _mean(rows: Sequence[Row], name: str) -> float | None:
    return fmean(r[name] for r in rows) if rows else None


def _covered(rows: Sequence[Row]) -> float | None:
    """Share of all lesion px that logos cover, per cent."""
    lesions = sum(r["lesion_px"] for r in rows)
    return 100 * sum(r["covered_lesion_px"] for r in rows) / lesions if lesions else None
