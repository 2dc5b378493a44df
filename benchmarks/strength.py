"""How strong the lock is, as docs/strength.md: the paper's tables beside ours, and attacks.

    python benchmarks/strength.py [--data ../shared/data] [--each 4] [--out runs/strength]

Runs `medlocker evaluate` on held-out photographs, as the page tells for each table; what --out
holds is not done again.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from held_out import held_out
from models import table

from medlocker_dicom.evaluation.rates import Rate
from medlocker_dicom.evaluation.report import words
from medlocker_dicom.training.photographs import list_graded

PAGE = """# How strong the lock is

Made by `python benchmarks/strength.py`, which runs the command above each table on photographs
that were held out from training and that all models of the command grade correctly, at most {each}
of a grade. Rates are per cent, with hits, photographs and 95 % interval; the paper's figures are on
its own photographs and models. `paper` is the paper's search with its 650 candidates, `alpha-list`
the default with its 120 forward passes.
"""
_FOUR = "resnet18,vgg16,inceptionv3,mobilenetv3"


class Part(NamedTuple):
    """One run of `medlocker evaluate`: a heading, its study, where its rows are, its options."""

    title: str
    study: str
    folder: str
    options: tuple[str, ...]
    source: str = ""


PARTS = (
    Part("Table 1: models that the search asks", "asr", "all", ("--models", "all")),
    Part("Table 2: models that it does not ask", "transfer", "all", ("--models", "all")),
    Part(
        "Table 2, the paper's ensemble",
        "transfer",
        "all",  # shares the locks against one model
        ("--models", _FOUR, "--targets", "resnet50,densenet121,vit"),
    ),
    Part(
        "Table 3: where the logo may lie",
        "wsm",
        "wsm",
        ("--models", "resnet18"),
        "idrid_grading",
    ),
    Part("Attacks", "redteam", "redteam", ()),
)


def run(part: Part, data: Path, out: Path, each: int) -> tuple[list[str], dict[str, Any]]:
    """Evaluate; the command as one would type it among the data, and what it found."""
    labels = out / f"held-out{'-' * bool(part.source)}{part.source}.csv"
    write_labels(labels, data, part.source)
    options = ("--each", str(each), *part.options)
    typed = ["medlocker", "evaluate", part.study, ".", part.folder, "--labels", labels.name]
    subprocess.run(
        [
            *(sys.executable, "-m", "medlocker_dicom.cli.main", "evaluate", part.study),
            *(str(data), str(out / part.folder), "--labels", str(labels), *options),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    found = (out / part.folder / f"{part.study}.json").read_text()
    return [*typed, *options], json.loads(found)


def write_labels(path: Path, data: Path, source: str) -> None:
    """Write the true grades of the held-out photographs of one set, or of all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "grade"])
        for case in held_out(list_graded(data)):
            relative = case.path.relative_to(data)
            if source in {"", relative.parts[0]}:
                writer.writerow([relative.as_posix(), case.grade])


def markdown(found: dict[str, Any]) -> str:
    """Lay out a table of an evaluation."""
    rows = [
        [words(Rate(c["hits"], c["n"]) if isinstance(c, dict) else c) for c in row]
        for row in found["rows"]
    ]
    return f"{found['title']}.\n\n{table(found['columns'], rows)}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--each", type=int, default=4, help="photographs of a grade")
    parser.add_argument("--out", type=Path, default=Path("runs/strength"))
    parser.add_argument("--output", type=Path, default=Path("docs/strength.md"))
    arguments = parser.parse_args()
    lines = [PAGE.format(each=arguments.each)]
    for part in PARTS:
        sys.stderr.write(f"{part.title}\n")
        command, found = run(part, arguments.data.resolve(), arguments.out, arguments.each)
        lines += [f"## {part.title}\n", f"`{' '.join(command)}`\n"]
        lines += [f"{found['photographs']} photographs: {found['by_grade']}.\n"]
        lines += map(markdown, found["tables"])
    arguments.output.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
