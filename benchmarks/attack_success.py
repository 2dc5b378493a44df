"""Attack success rate of the strategies, per mode, on held-out photographs.

    python benchmarks/attack_success.py --data ../shared/data [--images 60] [--out FILE]

Photographs are held-out ones that the ensemble grades correctly, drawn evenly over the grades as
far as they last. Success: the ensemble's grade of the locked photograph, at its full size and
through the models' own preprocessing, is not the true one. The search stops at the first flip on
the canvas, as the paper's does (margin 0), or at a number of distinct candidates that is the same
for all strategies and that each of them reaches. Rows of the same models that --out holds are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime
from functools import cache
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
from medlocker_dicom.search import STRATEGIES
from medlocker_dicom.training.photographs import EQUALISED, Graded, list_graded
from medlocker_dicom.watermark.png import default_logo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medlocker_dicom.bundles.models import Ensemble, Segmenter

MODES = (Mode.ANYWHERE, Mode.AVOID)
SEED = 20240613
#: Distinct candidates. `paper` would end by itself at about 520: of its 650, some come twice.
BUDGET = 500


def choose(data: Path, ensemble: Ensemble, count: int) -> list[Graded]:
    """Draw correctly graded held-out photographs, evenly over the grades."""
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
                if graded(ensemble, read_rgb(item.path)) == item.grade:
                    chosen.append(item)
                    break
    return chosen


def graded(ensemble: Ensemble, rgb: NDArray[np.uint8]) -> int:
    """Grade a photograph by the ensemble."""
    return int((ensemble.weights @ ensemble.photograph(rgb)).argmax())


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
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--models", default="", help="bundle names, comma separated")
    parser.add_argument("--out", type=Path, default=Path("runs/attack_success.jsonl"))
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"{arguments.data}: no photographs, skipped; name their folder by --data")
        return
    ensemble, segmenter = load_models([m for m in arguments.models.split(",") if m])
    items = choose(arguments.data, ensemble, arguments.images)
    masks = cache(lambda key: segmenter.lesions(np.frombuffer(key[0], np.uint8).reshape(key[1])))
    issuer = Identity(*_fixed_identity())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    stamp = _stamp(ensemble, segmenter)
    names = {f"{item.source}/{item.path.name}" for item in items}
    rows = [r for r in _rows(arguments.out) if r["models"] == stamp and r["image"] in names]
    done = {(r["mode"], r["strategy"], r["image"]) for r in rows}
    for number, item in enumerate(items, 1):
        source = instance(item)
        for mode in MODES:
            for strategy in STRATEGIES:
                name = f"{item.source}/{item.path.name}"
                if (str(mode), strategy, name) in done:
                    continue
                locker = Locker(
                    Policy(mode=mode, strategy=strategy, margin=0.0, budget=BUDGET),
                    ensemble,
                    lambda rgb: masks((rgb.tobytes(), rgb.shape)),
                    default_logo(),
                    issuer,
                    (issuer.public,),
                )
                row: dict[str, Any] = {"models": stamp, "mode": str(mode), "strategy": strategy}
                row |= {"image": name, "grade": item.grade}
                row |= attack(source, locker, item.grade)
                rows.append(row)
                with arguments.out.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
        masks.cache_clear()
        sys.stderr.write(f"{number}/{len(items)}\n")
    print(table(rows, len(items)))


def attack(source: Fundus, locker: Locker, grade: int) -> dict[str, Any]:
    """Lock one photograph; tell what came of it, and what the search alone cost."""
    started = time.monotonic()
    locker.lesions(source.display(0))  # remembered: its cost is the same for every strategy
    segmented = time.monotonic()
    try:
        record = lock(source, locker, now=datetime.now(UTC), label=grade).record.frames[0]
    except NoFeasiblePositionError:
        return {"feasible": False}
    return {
        "feasible": True,
        "flipped": record.locked_grade != str(grade),
        "canvas_flipped": record.canvas_flipped,
        "queries": record.queries,
        "seconds": round(time.monotonic() - segmented, 3),
        "segment_seconds": round(segmented - started, 3),
        "boxes": len(record.boxes),
        "covered_lesion_px": record.covered_lesion_px,
    }


def table(rows: list[dict[str, Any]], count: int) -> str:
    """Lay out a line a condition, and the rates of each true grade."""
    lines = [f"{count} correctly graded held-out photographs"]
    for mode in MODES:
        for strategy in STRATEGIES:
            mine = [r for r in rows if (r["mode"], r["strategy"]) == (str(mode), strategy)]
            tried = [r for r in mine if r["feasible"]]
            if not tried:
                continue
            full = Rate(sum(r["flipped"] for r in tried), len(tried))
            canvas = Rate(sum(r["canvas_flipped"] for r in tried), len(tried))
            grades = ", ".join(
                f"grade {g} {sum(r['flipped'] for r in tried if r['grade'] == g)}"
                f"/{sum(r['grade'] == g for r in tried)}"
                for g in range(5)
            )
            lines.append(
                f"{mode} {strategy}: ASR {full}; on the canvas {canvas}; "
                f"{fmean(r['queries'] for r in tried):.0f} queries, "
                f"{fmean(r['seconds'] for r in tried):.1f} s an image; "
                f"{len(mine) - len(tried)} without a feasible position"
            )
            lines.append(f"    {grades}")
    return "\n".join(lines)


def _stamp(ensemble: Ensemble, segmenter: Segmenter) -> str:
    bundles = [*(c.bundle for c in ensemble.classifiers), segmenter.bundle]
    return " ".join([*(bundle.weights_sha256[:12] for bundle in bundles), str(BUDGET)])


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _fixed_identity() -> tuple[Any, ...]:
    """Seeds of a fixed issuer: the same dither, hence the same figures, in every run."""
    from medlocker_dicom.keyfile import Kem  # noqa: PLC0415  beside its only use

    return Kem.X25519, b"\1" * 32, b"\2" * 32, b"\3" * 32


if __name__ == "__main__":
    main()
