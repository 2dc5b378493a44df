"""What the strategies reach, and how it travels: one run, the same photographs, the same models.

    python benchmarks/search.py --data ../shared/data [--images 24] [--models a,b] [--targets c]

Photographs are held-out ones that all models grade correctly, drawn evenly over the grades as far
as they last. Success: the grade of the locked photograph, at its full size and through the models'
own preprocessing, is not the true one: by the ensemble that was searched against (source), and by
each target, which was not, of all photographs and of those on which the source was turned. Searches
over places stop at the first flip (margin 0), as the paper's does; `alpha-list` spends its budget.
A gradient counts as three forward passes. Rows of the same models that --out holds are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from medlocker_dicom.bundles.picture import read_rgb
from medlocker_dicom.dicom.fundus import Fundus, decode_fundus
from medlocker_dicom.dicom.photograph import photograph
from medlocker_dicom.dicom.uids import derive_uid
from medlocker_dicom.errors import NoFeasiblePositionError
from medlocker_dicom.evaluation.rates import Rate
from medlocker_dicom.keyfile import Identity
from medlocker_dicom.lesions.positions import Mode
from medlocker_dicom.pipeline.lock import Locker, lock
from medlocker_dicom.pipeline.models import load_models
from medlocker_dicom.pipeline.policy import Policy
from medlocker_dicom.training.photographs import EQUALISED, Graded, list_graded
from medlocker_dicom.watermark.png import default_logo

if TYPE_CHECKING:
    from medlocker_dicom.bundles.models import Classifier, Segmenter

SEED = 20240613
#: Strategies and budgets. `paper` ends by itself at about 520: of its 650, some come twice.
CONDITIONS = (
    ("random-placement", 650),
    ("paper", 650),
    ("guided", 16),
    ("guided", 32),
    ("guided", 64),
    ("guided", 128),
    ("alpha-list", 128),
    ("alpha-list", 200),
)


def choose(data: Path, models: list[Classifier], count: int) -> list[Graded]:
    """Draw held-out photographs that every model grades correctly, evenly over the grades."""
    held = [i for i in list_graded(data) if i.validation and i.source != EQUALISED]
    order = np.random.default_rng(SEED).permutation(len(held))
    waiting: dict[int, list[Graded]] = defaultdict(list)
    for item in (held[n] for n in order):
        waiting[item.grade].append(item)
    chosen: list[Graded] = []
    while len(chosen) < count and any(waiting.values()):
        for grade in sorted(waiting):
            while waiting[grade] and len(chosen) < count:
                item = waiting[grade].pop()
                rgb = read_rgb(item.path)
                if all(int(one.photograph(rgb).argmax()) == item.grade for one in models):
                    chosen.append(item)
                    break
    return chosen


def instance(item: Graded) -> Fundus:
    """Wrap a photograph as an instance whose UIDs follow from its name."""
    name = f"{item.source}/{item.path.name}"
    uids = {k: derive_uid(name.ljust(16).encode(), k, "1.2") for k in ("study", "series", "image")}
    ds = photograph(
        read_rgb(item.path),
        patient_name="Benchmark",
        patient_id=name[:64],
        laterality="L",
        study_uid=uids["study"],
        series_uid=uids["series"],
        instance_uid=uids["image"],
        instance_number=1,
        taken=datetime(2024, 1, 1, tzinfo=UTC),
    )
    return decode_fundus(ds)


def main() -> None:
    """Run every condition and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--models", default="", help="searched against, comma separated")
    parser.add_argument("--targets", default="", help="asked about the results, comma separated")
    parser.add_argument("--modes", default="anywhere,avoid")
    parser.add_argument("--out", type=Path, default=Path("runs/search.jsonl"))
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"{arguments.data}: no photographs, skipped; name their folder by --data")
        return
    ensemble, segmenter = load_models([m for m in arguments.models.split(",") if m])
    named = [m for m in arguments.targets.split(",") if m]
    targets = list(load_models(named)[0].classifiers) if named else []
    items = choose(arguments.data, [*ensemble.classifiers, *targets], arguments.images)
    masks = cache(lambda key: segmenter.lesions(np.frombuffer(key[0], np.uint8).reshape(key[1])))
    issuer = Identity(*_fixed_identity())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    stamp = _stamp([*ensemble.classifiers, *targets], segmenter)
    names = {f"{item.source}/{item.path.name}" for item in items}
    modes = [Mode(one) for one in arguments.modes.split(",")]
    rows = [r for r in _rows(arguments.out) if r["models"] == stamp and r["image"] in names]
    done = {(r["mode"], r["strategy"], r["budget"], r["image"]) for r in rows}
    for number, item in enumerate(items, 1):
        source, name = instance(item), f"{item.source}/{item.path.name}"
        for mode, (strategy, budget) in product(modes, CONDITIONS):
            if (str(mode), strategy, budget, name) in done:
                continue
            locker = Locker(
                Policy(mode=mode, strategy=strategy, margin=0.0, budget=budget),
                ensemble,
                lambda rgb: masks((rgb.tobytes(), rgb.shape)),
                default_logo(),
                issuer,
                (issuer.public,),
            )
            row: dict[str, Any] = {"models": stamp, "mode": str(mode), "strategy": strategy}
            row |= {"budget": budget, "image": name, "grade": item.grade}
            row |= attack(source, locker, item.grade, targets)
            rows.append(row)
            with arguments.out.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        masks.cache_clear()
        sys.stderr.write(f"{number}/{len(items)}\n")
    print(table([r for r in rows if r["mode"] in map(str, modes)], modes, targets))


def attack(source: Fundus, locker: Locker, grade: int, targets: list[Classifier]) -> dict[str, Any]:
    """Lock one photograph; tell what came of it, and what the search alone cost."""
    locker.lesions(source.display(0))  # remembered: its cost is the same for every strategy
    started = time.monotonic()
    try:
        result = lock(source, locker, now=datetime.now(UTC), label=grade)
    except NoFeasiblePositionError:
        return {"feasible": False}
    seconds = round(time.monotonic() - started, 3)
    record = result.record.frames[0]
    locked = replace(source, pixels=result.pixels).display(0)
    return {
        "feasible": True,
        "flipped": record.locked_grade != str(grade),
        "targets": [int(one.photograph(locked).argmax()) != grade for one in targets],
        "forward_passes": record.forward_passes,
        "seconds": seconds,
        "boxes": len(record.boxes),
        "covered_lesion_px": record.covered_lesion_px,
    }


def table(rows: list[dict[str, Any]], modes: list[Mode], targets: list[Classifier]) -> str:
    """Lay out a line a condition, with the rates of each true grade and of each target."""
    lines = [f"{len({r['image'] for r in rows})} correctly graded held-out photographs"]
    for mode, (strategy, budget) in product(modes, CONDITIONS):
        condition = (str(mode), strategy, budget)
        mine = [r for r in rows if (r["mode"], r["strategy"], r["budget"]) == condition]
        tried = [r for r in mine if r["feasible"]]
        if not tried:
            continue
        lines.append(
            f"{mode} {strategy} {budget}: ASR {_rate(tried)}; "
            f"{fmean(r['forward_passes'] for r in tried):.0f} forward passes, "
            f"{fmean(r['seconds'] for r in tried):.1f} s an image; "
            f"{len(mine) - len(tried)} without a feasible position"
        )
        graded = [(g, [r for r in tried if r["grade"] == g]) for g in range(5)]
        lines.append(
            "    "
            + ", ".join(
                f"grade {g} {sum(r['flipped'] for r in g_rows)}/{len(g_rows)}"
                for g, g_rows in graded
            )
        )
        for number, target in enumerate(targets):
            turned = [{"flipped": r["targets"][number]} for r in tried]
            given = [t for t, r in zip(turned, tried, strict=True) if r["flipped"]]
            lines.append(
                f"    {target.bundle.name}: {_rate(turned)}, where the source is turned "
                f"{_rate(given) if given else '-'}"
            )
    return "\n".join(lines)


def _rate(rows: list[dict[str, Any]]) -> Rate:
    return Rate(sum(r["flipped"] for r in rows), len(rows))


def _stamp(classifiers: list[Classifier], segmenter: Segmenter) -> str:
    bundles = [*(one.bundle for one in classifiers), segmenter.bundle]
    return " ".join(bundle.weights_sha256[:12] for bundle in bundles)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _fixed_identity() -> tuple[Any, ...]:
    """Seeds of a fixed issuer: the same dither, hence the same figures, in every run."""
    from medlocker_dicom.keyfile import Kem  # noqa: PLC0415  beside its only use

    return Kem.X25519, b"\1" * 32, b"\2" * 32, b"\3" * 32


if __name__ == "__main__":
    main()
