"""How strong the lock is, as docs/strength.md: the paper's tables beside ours, and attacks.

    python benchmarks/strength.py [--data ../shared/data] [--each 8] [--out runs/strength]

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
from typing import TYPE_CHECKING, Any, NamedTuple

from held_out import held_out
from models import table

from medlocker_dicom.bundles.picture import list_images, read_rgb
from medlocker_dicom.evaluation.rates import Rate
from medlocker_dicom.evaluation.report import words
from medlocker_dicom.evaluation.tables import PAPER_ENSEMBLE
from medlocker_dicom.pipeline.models import load_models
from medlocker_dicom.pipeline.policy import Policy
from medlocker_dicom.training.photographs import held_out_by_number, list_graded

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = """# How strong the lock is

Made by `python benchmarks/strength.py`, which runs the command above each table. DATA is a folder
of public sets, and a CSV named beside it tells the grades of those of its photographs that were
held out from training: of all sets of natural colour, or of one. The photographs are those that all
models of the command grade correctly, at most {each} of a grade. Rates are per cent, with hits,
photographs and 95 % interval; the paper's figures are on its own photographs and models. `paper` is
the paper's search with its 650 candidates, `alpha-list` the default with its {budget} forward
passes at most. PSNR is over what the logo covers, at most 512 px a side.
"""


class Part(NamedTuple):
    """One run of `medlocker evaluate`: a heading, its study, its photographs, its options."""

    title: str
    study: str
    labels: str
    options: tuple[str, ...]
    note: str = ""


#: Parts with the same labels share a folder, and in it what they have in common.
PARTS = (
    Part("Table 1: models that the search asks", "asr", "held-out", ("--models", "all")),
    Part("Table 2: models that it does not ask", "transfer", "held-out", ("--models", "all")),
    Part(
        "Table 2, the paper's ensemble",
        "transfer",
        "held-out",
        ("--models", ",".join(PAPER_ENSEMBLE), "--targets", "resnet50,densenet121,vit"),
    ),
    Part(
        "Table 3: where the logo may lie",
        "wsm",
        "idrid_grading",
        ("--models", "resnet18"),
        "Boxes and lesions are what the segmenter marks; in healthy eyes its errors.",
    ),
    Part("Attacks", "redteam", "held-out", ()),
    Part(
        "What the logo hides",
        "visibility",
        "idrid_lesions",
        ("--models", "mobilenetv3", "--mode", "avoid", "--masks", "DATA/idrid_lesions/masks"),
        "Of these photographs the lesions are known, and no grades: each counts as what the model "
        "says of it, and only what is covered tells anything. The search is given the true "
        "lesions, and in the last line what the segmenter finds instead.",
    ),
)


def run(part: Part, data: Path, out: Path, each: int) -> tuple[str, dict[str, Any]]:
    """Evaluate; the command, and what it found."""
    labels = out / f"{part.labels}.csv"
    write_labels(labels, data)
    named = {"DATA": str(data), "OUT": str(out / part.labels), "CSV": str(labels)}
    words = ["evaluate", part.study, "DATA", "OUT", "--labels", "CSV", "--each", str(each)]
    words += part.options
    command = [sys.executable, "-m", "medlocker_dicom.cli.main"]
    for word in words:
        first, slash, rest = word.partition("/")
        command.append(named.get(first, first) + slash + rest)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((out / part.labels / f"{part.study}.json").read_text())
    return " ".join(["medlocker", *words]).replace(" CSV ", f" {labels.name} "), found


def write_labels(path: Path, data: Path) -> None:
    """Write the grades of held-out photographs: of all sets, or of that by which it is named."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "grade"])
        if path.stem == "idrid_lesions":
            writer.writerows(told(data / path.stem / "images"))
            return
        for case in held_out(list_graded(data)):
            relative = case.path.relative_to(data)
            if path.stem in {"held-out", relative.parts[0]}:
                writer.writerow([relative.as_posix(), case.grade])


def told(images: Path) -> Iterator[tuple[str, int]]:
    """Grade photographs that no one graded, those that the segmenter did not learn from."""
    (grader,) = load_models(["mobilenetv3"])[0].classifiers
    for path in list_images(images):
        if held_out_by_number(path.name):
            grade = grader.photograph(read_rgb(path)).argmax()
            yield path.relative_to(images.parents[1]).as_posix(), int(grade)


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
    parser.add_argument("--each", type=int, default=8, help="photographs of a grade")
    parser.add_argument("--out", type=Path, default=Path("runs/strength"))
    parser.add_argument("--output", type=Path, default=Path("docs/strength.md"))
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"{arguments.data}: no photographs, skipped; name their folder by --data")
        return
    lines = [PAGE.format(each=arguments.each, budget=Policy.budget)]
    for part in PARTS:
        sys.stderr.write(f"{part.title}\n")
        command, found = run(part, arguments.data.resolve(), arguments.out, arguments.each)
        lines += [f"## {part.title}\n", f"`{command}`\n"]
        lines += [f"{part.note}\n"] if part.note else []
        lines += [f"{found['photographs']} photographs: {found['by_grade']}.\n"]
        lines += map(markdown, found["tables"])
    arguments.output.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
