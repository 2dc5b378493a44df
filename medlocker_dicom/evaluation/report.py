"""A study as files: JSON, CSV, figures, and one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medlocker_dicom.evaluation.figures import draw
from medlocker_dicom.evaluation.names import HELP
from medlocker_dicom.evaluation.rates import Rate
from medlocker_dicom.evaluation.tables import flipped
from medlocker_dicom.files import write_file

if TYPE_CHECKING:
    from medlocker_dicom.evaluation.plans import Plan
    from medlocker_dicom.evaluation.study import Study
    from medlocker_dicom.evaluation.tables import Cell, Table
    from medlocker_dicom.pipeline.policy import Policy

#: Conditions of which locks are shown, and photographs of each.
CONDITIONS, PICTURES = 4, 3


def write_report(name: str, plan: Plan, study: Study, policy: Policy) -> list[Table]:
    """Write what a study found into its folder.

    ``NAME.json`` (facts, tables and rows), a CSV and a PNG for each table, ``NAME.html``.

    Parameters
    ----------
    name
        Of the study.
    plan
        What it compares.
    study
        With its rows.
    policy
        That its conditions share.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    made = plan.tables(study.rows, study.conditions, list(study.classifiers))
    facts = _facts(name, study, policy)
    figures = {table.name: draw(table) for table in made}
    for table in made:
        write_file(study.folder / f"{table.name}.csv", _csv(table).encode())
        if figure := figures[table.name]:
            write_file(study.folder / f"{table.name}.png", figure)
    whole = facts | {"tables": [_plain(table) for table in made], "rows": study.rows}
    write_file(study.folder / f"{name}.json", (json.dumps(whole, indent=1) + "\n").encode())
    environment = Environment(
        loader=PackageLoader("medlocker_dicom.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["words"] = words
    page = environment.get_template("evaluation.html").render(
        facts=facts,
        tables=made,
        figures={k: base64.b64encode(v).decode() for k, v in figures.items()},
        pictures=_pictures(study),
    )
    write_file(study.folder / f"{name}.html", page.encode("utf-8", "replace"))
    return made


def words(cell: Cell) -> str:
    """Write a cell for people; a rate as ``75.0 (6/8, 41-93)``: per cent, counts, interval."""
    if cell is None:
        return ""
    if isinstance(cell, Rate) and cell.n:
        low, high = (100 * bound for bound in cell.interval)
        return f"{100 * cell.share:.1f} ({cell.hits}/{cell.n}, {low:.0f}-{high:.0f})"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _facts(name: str, study: Study, policy: Policy) -> dict[str, Any]:
    counts = Counter(dict.fromkeys([(r["image"], r["grade"]) for r in study.rows]).keys())
    grades = Counter(grade for _, grade in counts)
    marked = {r["image"] for r in study.rows if r.get("true_lesions")}
    return {
        "study": name,
        "help": HELP[name],
        "photographs": len(counts),
        "by_grade": ", ".join(f"{n} of grade {grade}" for grade, n in sorted(grades.items())),
        "nowhere": study.nowhere,
        "locks": len(study.rows),
        "seed": study.seed,
        "models": [
            {"name": model, "sha256": one.bundle.weights_sha256}
            for model, one in study.classifiers.items()
        ],
        "segmenter": study.segmenter.bundle.weights_sha256,
        "lesions": f"true ones of {len(marked)} photographs; of the others those that "
        f"{study.segmenter.bundle.name} marks",
        "logo": study.logo.sha256.hex(),
        "policy": ", ".join(
            f"{key} {value}"
            for key, value in asdict(policy).items()
            if key in {"mode", "strategy", "budget", "margin", "sl", "seed"}
        ),
    }


def _pictures(study: Study) -> list[dict[str, str]]:
    """Choose some locks: a few conditions, first to last, and of each the same eyes."""
    names = [condition.name for condition in study.conditions]
    last = len(names) - 1
    chosen = {names[round(last * n / (CONDITIONS - 1))] for n in range(CONDITIONS)}
    rows = [row for row in study.rows if row["feasible"] and row["condition"] in chosen]
    images = list(dict.fromkeys(row["image"] for row in rows))[:PICTURES]
    return [
        {
            "image": row["image"],
            "condition": row["condition"],
            "outcome": f"grade {row['grade']}, {'turned' if flipped(row) else 'not turned'}",
            "jpeg": base64.b64encode((study.folder / row["picture"]).read_bytes()).decode(),
        }
        for row in rows
        if row["image"] in images and (study.folder / row["picture"]).is_file()
    ]


def _csv(table: Table) -> str:
    """Write CSV; a rate takes four columns: share in per cent, n, and its interval's bounds."""
    rates = [any(isinstance(row[n], Rate) for row in table.rows) for n in range(len(table.columns))]
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(
        [
            heading
            for column, rate in zip(table.columns, rates, strict=True)
            for heading in (
                [f"{column}, %", f"{column}, n", f"{column}, low", f"{column}, high"]
                if rate
                else [column]
            )
        ]
    )
    for row in table.rows:
        writer.writerow(
            [v for cell, rate in zip(row, rates, strict=True) for v in _values(cell, rate=rate)]
        )
    return stream.getvalue()


def _values(cell: Cell, *, rate: bool) -> list[Any]:
    if isinstance(cell, Rate):
        bounds = [round(100 * bound, 2) for bound in cell.interval]
        return [round(100 * cell.share, 2) if cell.n else None, cell.n, *bounds]
    return [cell, None, None, None] if rate else [cell]


def _plain(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "title": table.title,
        "columns": table.columns,
        "rows": [
            [
                {"hits": c.hits, "n": c.n, "interval": c.interval} if isinstance(c, Rate) else c
                for c in row
            ]
            for row in table.rows
        ],
    }
