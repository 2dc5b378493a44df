"""Our query engine beside plain ONNX Runtime and plain torch, on the same network.

    python benchmarks/forward.py [--models a,b] [--rounds 40]

Each round asks every way once about the same square retina with the logo at the same eight places,
in another order. Ours is what a search pays for eight candidates: composing them on the canvas,
normalising, the network, calibrated probabilities; `beside the eye` computes anew what the logo
touches, as a search does, `whole` all; `on the GPU`, with MEDLOCKER_DEVICE=cuda, takes the
eight at once in half precision, as a search does there. The plain ways get normalised arrays one at
a time and give logits. All have as many threads.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch

from medlocker_dicom.bundles.bundle import build_network
from medlocker_dicom.bundles.device import CPU
from medlocker_dicom.bundles.engine import default_cache, exported
from medlocker_dicom.bundles.models import Ensemble
from medlocker_dicom.bundles.preprocess import normalise, retina_crop
from medlocker_dicom.phantom import phantom
from medlocker_dicom.pipeline.canvas import Canvas
from medlocker_dicom.pipeline.models import load_models
from medlocker_dicom.pipeline.population import asked
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.scale import scale_logo

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from medlocker_dicom.bundles.models import Classifier

SIDE = 1024
SEED = 20240613
PLACES = 8
#: In which the threads of the way before, which wait for more of it, fall asleep.
REST_S = 0.3


def laid_out(size: int) -> tuple[Canvas, NDArray[np.int32]]:
    """Lay an eye and a logo out at a model's size in px: with candidates int32 (8, 3)."""
    rng = np.random.default_rng(SEED)
    eye = phantom(rng, (SIDE, SIDE)).image
    logo = scale_logo(default_logo(), SIDE, SIDE, 4.0)
    canvas = Canvas(eye, retina_crop(eye), size, logo, bytes(32))
    x, y = (rng.integers(0, size - one, PLACES, endpoint=True) for one in canvas.logo_size)
    return canvas, np.column_stack([rng.integers(100, 256, PLACES), x, y]).astype(np.int32)


def ways(classifier: Classifier) -> dict[str, Callable[[], object]]:
    """Give each way to ask the network of a classifier about the candidates."""
    bundle = classifier.bundle
    canvas, genes = laid_out(classifier.size)
    ensemble = Ensemble([classifier])
    near = ensemble.near(canvas.levels)
    arrays = [normalise(one[None]) for one in canvas.compose(genes)]
    tensors = [torch.from_numpy(one) for one in arrays]
    turned = [one.contiguous(memory_format=torch.channels_last) for one in tensors]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(exported(bundle, default_cache())), options, providers=["CPUExecutionProvider"]
    )
    network = build_network(bundle)
    wide = build_network(bundle).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    ours: dict[str, Callable[[], object]] = {
        "ours, beside the eye": lambda: near.probabilities(canvas.compose(genes)),
        "ours, whole": lambda: ensemble.probabilities(canvas.compose(genes)),
    }
    if classifier.device != CPU:
        together = asked(ensemble, canvas)
        ours["ours, on the GPU"] = lambda: together(genes)
    return ours | {
        "plain ONNX Runtime": lambda: [session.run(None, {"image": one}) for one in arrays],
        "plain torch": lambda: [network(one) for one in tensors],
        "torch, channels last": lambda: [wide(one) for one in turned],
    }


def main() -> None:
    """Time every way, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="", help="comma separated")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    ensemble, _ = load_models([m for m in arguments.models.split(",") if m])
    for classifier in ensemble.classifiers:
        asked = ways(classifier)
        names = list(asked)
        seconds: dict[str, list[float]] = {name: [] for name in asked}
        order = np.random.default_rng(SEED)
        with torch.no_grad():
            for number in range(arguments.rounds + 3):
                for name in order.permutation(names):
                    time.sleep(REST_S)
                    started = time.perf_counter()
                    asked[name]()
                    if number >= 3:  # the first ones warm up
                        seconds[name].append(time.perf_counter() - started)
        print(f"{classifier.bundle.name}, {classifier.size} px, images/s:")
        for name in names:
            print(f"    {name}: {PLACES / median(seconds[name]):.1f}")
        for ours in (name for name in names if name.startswith("ours")):
            for plain in names[-3:]:
                pairs = zip(seconds[ours], seconds[plain], strict=True)
                print(f"    {ours} / {plain}: {median(b / a for a, b in pairs):.2f}")


if __name__ == "__main__":
    main()
