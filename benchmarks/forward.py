"""Our query engine beside plain ONNX Runtime and plain torch, on the same network.

    python benchmarks/forward.py [--models a,b] [--rounds 40]

Each round asks every way once about the same square retina, in another order. Ours is what a
search pays for a candidate: composing it on the canvas, normalising, the network, calibrated
probabilities. The plain ways get normalised arrays and give logits. All have as many threads.
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
from medlocker_dicom.bundles.engine import OnnxEngine, default_cache, exported
from medlocker_dicom.bundles.models import Ensemble
from medlocker_dicom.bundles.preprocess import normalise, retina_crop
from medlocker_dicom.phantom import phantom
from medlocker_dicom.pipeline.canvas import Canvas
from medlocker_dicom.pipeline.models import load_models
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.scale import scale_logo

if TYPE_CHECKING:
    from collections.abc import Callable

    from medlocker_dicom.bundles.models import Classifier

SIDE = 1024
SEED = 20240613


def ways(classifier: Classifier) -> dict[str, Callable[[], object]]:
    """Give each way to ask the network of a classifier about one candidate."""
    bundle = classifier.bundle
    eye = phantom(np.random.default_rng(SEED), (SIDE, SIDE)).image
    logo = scale_logo(default_logo(), SIDE, SIDE, 4.0)
    canvas = Canvas(eye, retina_crop(eye), classifier.size, logo, bytes(32))
    genes = np.array([[150, classifier.size // 3, classifier.size // 3]], np.int32)
    ensemble = Ensemble([classifier])
    array = normalise(canvas.compose(genes))
    tensor = torch.from_numpy(array)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(
        str(exported(bundle, default_cache())), options, providers=["CPUExecutionProvider"]
    )
    network = build_network(bundle)
    wide = build_network(bundle).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    turned = tensor.contiguous(memory_format=torch.channels_last)
    OnnxEngine(bundle)  # exports, where it has not been yet
    return {
        "ours": lambda: ensemble.probabilities(canvas.compose(genes)),
        "plain ONNX Runtime": lambda: session.run(None, {"image": array}),
        "plain torch": lambda: network(tensor),
        "torch, channels last": lambda: wide(turned),
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
        seconds: dict[str, list[float]] = {name: [] for name in asked}
        order = np.random.default_rng(SEED)
        with torch.no_grad():
            for number in range(arguments.rounds + 3):
                for name in order.permutation(list(asked)):
                    started = time.perf_counter()
                    asked[name]()
                    if number >= 3:  # the first ones warm up
                        seconds[name].append(time.perf_counter() - started)
        ours = median(seconds["ours"])
        print(f"{classifier.bundle.name}, {classifier.size} px: ours {1 / ours:.1f} images/s")
        for name in list(asked)[1:]:
            ratio = median(b / a for a, b in zip(seconds["ours"], seconds[name], strict=True))
            print(f"    ours / {name}: {ratio:.2f}")


if __name__ == "__main__":
    main()
