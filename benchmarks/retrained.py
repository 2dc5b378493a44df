"""A8: a thief who owns a grader and graded photographs teaches it to live with logos.

    python benchmarks/retrained.py --data ../shared/data [--model mobilenetv3] [--views 8192]
        [--budget 200] [--each 6]

Training photographs get logos as we make them, of any place, size, opacity and key, and holes
(cutout, DeVries and Taylor 2017); the grader is trained on with the true grades. Then held-out
photographs that both graders tell correctly are locked against the first, and both are asked. The
thief knows all but the keys and the places.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from held_out import held_out

from medlocker_dicom.bundles.bundle import build_network
from medlocker_dicom.bundles.models import Classifier
from medlocker_dicom.bundles.networks import channels_last
from medlocker_dicom.bundles.preprocess import normalise
from medlocker_dicom.evaluation.plans import policy_of
from medlocker_dicom.evaluation.rates import Rate
from medlocker_dicom.evaluation.report import words
from medlocker_dicom.evaluation.study import Condition, Study
from medlocker_dicom.evaluation.tables import turned
from medlocker_dicom.lesions.positions import Mode
from medlocker_dicom.pipeline.models import load_models
from medlocker_dicom.pipeline.policy import Policy
from medlocker_dicom.search import ALPHA_LIST
from medlocker_dicom.training.augment import recoloured
from medlocker_dicom.training.augment import turned as view_of
from medlocker_dicom.training.classifier import CROP
from medlocker_dicom.training.descent import Descent
from medlocker_dicom.training.grading import grade_loss, sampling_weights, training_rows
from medlocker_dicom.training.photographs import EQUALISED, load_crops
from medlocker_dicom.watermark.alpha import SEED_BYTES, alpha_map, grid_shape, pack_grid
from medlocker_dicom.watermark.blend import blend, logo_samples
from medlocker_dicom.watermark.placement import ALPHA_MAX, ALPHA_MIN
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.scale import scale_logo

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from medlocker_dicom.training.photographs import Crops

SEED = 20240613
BATCH = 32
CELLS = 56
LOGOS, HOLES = 0.7, 0.3  # shares of the views


def hidden(view: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Put a logo, a hole, both or none on a view uint8 (S, S, 3)."""
    result, side = view.copy(), len(view)
    if rng.random() < HOLES:
        size = int(side * rng.uniform(0.15, 0.35))
        x, y = rng.integers(0, side - size, 2)
        result[y : y + size, x : x + size] = result.mean((0, 1))
    if rng.random() < LOGOS:
        logo = scale_logo(default_logo(), side, side, rng.uniform(2.5, 5))
        x, y = rng.integers(0, side - logo.width), rng.integers(0, side - logo.height)
        window = np.s_[y : y + logo.height, x : x + logo.width]
        # Channels from alike to apart, as locks have them, and as evolution leaves them.
        own, common = (
            rng.integers(
                ALPHA_MIN,
                ALPHA_MAX,
                (channels, *grid_shape(logo.alpha.shape, CELLS)),
                endpoint=True,
            )
            for channels in (3, 1)
        )
        nodes = np.rint(common + rng.choice([0, 0.5, 1]) * (own - common)).astype(np.uint8)
        if rng.random() < 0.5:
            nodes[:] = rng.integers(ALPHA_MIN, ALPHA_MAX, endpoint=True)
        opacity = alpha_map(logo.alpha, 0, rng.bytes(SEED_BYTES), grid=pack_grid(CELLS, nodes))
        colours = logo_samples(logo.rgba, 3, 8).astype(np.uint8)
        result[window] = blend(result[window], colours, opacity)
    return result


def retrain(network: nn.Module, size: int, crops: Crops, views: int) -> nn.Module:
    """Train a network on views with logos; the averaged one."""
    rng = np.random.default_rng(SEED)
    torch.manual_seed(SEED)
    network = channels_last(network, torch.device("cpu")).requires_grad_().train()
    steps, rows = views // BATCH, training_rows(crops)
    weights = sampling_weights(crops, rows)
    descent = Descent(network, [(network.parameters(), 3e-4)], steps, decay=0.05, memory=0.98)
    started = time.monotonic()
    for step in range(steps):
        chosen = rng.choice(rows, BATCH, p=weights)
        shown = [hidden(recoloured(view_of(crops.pixels[n], size, rng), rng), rng) for n in chosen]
        inputs = torch.from_numpy(normalise(np.stack(shown)))
        logits = network(inputs.contiguous(memory_format=torch.channels_last))
        grades = torch.tensor([crops.items[n].grade for n in chosen])
        loss = descent.step(grade_loss(logits, grades))
        if not (step + 1) % 32:
            print(f"{step + 1}/{steps}: loss {loss:.2f}, {time.monotonic() - started:.0f} s")
    return descent.average.eval()


def classifier_of(known: Classifier, network: nn.Module) -> Classifier:
    """Give a network in the place of a classifier's own."""

    @torch.no_grad()
    def engine(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = network(torch.from_numpy(inputs)).numpy()
        return answer

    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.numpy().tobytes())
    name = f"{known.bundle.name}-retrained"
    return Classifier(
        replace(known.bundle, name=name, weights_sha256=digest.hexdigest(), temperature=1.0), engine
    )


def main() -> None:
    """Retrain, lock, ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="mobilenetv3")
    parser.add_argument("--views", type=int, default=8192)
    parser.add_argument("--budget", type=int, default=Policy.budget, help="of the default search")
    parser.add_argument("--each", type=int, default=6, help="photographs of a grade")
    parser.add_argument("--out", type=Path, default=Path("runs/retrained"))
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        print(f"{arguments.data}: no photographs, skipped; name their folder by --data")
        return
    ensemble, segmenter = load_models([arguments.model])
    (known,) = ensemble.classifiers
    crops = load_crops(arguments.data, CROP, arguments.out)
    network = retrain(build_network(known.bundle), known.size, crops, arguments.views)
    wise = classifier_of(known, network)
    ours = Policy(mode=Mode.ANYWHERE, budget=arguments.budget)
    study = Study(
        held_out(crops.items),
        {one.bundle.name: one for one in (known, wise)},
        segmenter,
        [
            Condition(name, (known.bundle.name,), policy_of(name, ours))
            for name in ("paper", ALPHA_LIST)
        ],
        arguments.out,
        default_logo(),
        arguments.each,
        SEED,
    )
    held = [n for n, item in enumerate(crops.items) if item.validation and item.source != EQUALISED]
    grades = np.array([crops.items[n].grade for n in held])
    for one in (known, wise):
        told = np.array([one.probabilities(crops.pixels[n][None])[0].argmax() for n in held])
        print(f"{one.bundle.name}: accuracy {np.mean(told == grades):.3f} (n = {len(held)}), clean")
    drawn = [case for case in study.draw() if case is not None]
    for _ in study.run(drawn):
        pass
    for condition in study.conditions:
        rows = [r for r in study.rows if r["condition"] == condition.name and r["feasible"]]
        for one in (known, wise):
            name = one.bundle.name
            gone = Rate(sum(turned(row, name) for row in rows), len(rows))
            print(f"{condition.name}: {name} turned {words(gone)}")


if __name__ == "__main__":
    main()
