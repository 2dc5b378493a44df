"""Our query engine beside plain ONNX Runtime and plain torch, on the same network.

    python benchmarks/forward.py [--models a,b] [--rounds 40]

Each round asks every way once about the same square retina, in another order. Ours is what a
search pays for a candidate: composing it on the canvas, normalising, the network, calibrated
probabilities. The plain ways get normalised arrays and give logits. All have as many threads. Then:
how much could be saved at most by computing anew only what the logo touches.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import torch
from torch import nn

from medlocker_dicom.bundles.bundle import build_network
from medlocker_dicom.bundles.engine import OnnxEngine, default_cache, exported
from medlocker_dicom.bundles.models import Ensemble
from medlocker_dicom.bundles.preprocess import crop_to_retina, normalise, retina_crop
from medlocker_dicom.phantom import phantom
from medlocker_dicom.pipeline.canvas import Canvas
from medlocker_dicom.pipeline.models import load_models
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.scale import scale_logo

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from medlocker_dicom.bundles.models import Classifier

SIDE = 1024
SEED = 20240613


def laid_out(size: int) -> tuple[Canvas, NDArray[np.int32], NDArray[np.uint8]]:
    """Lay an eye and a logo out at a model's size in px: with a candidate, and the eye alone.

    The candidate is int32 (1, 3), the eye uint8 (S, S, 3).
    """
    eye = phantom(np.random.default_rng(SEED), (SIDE, SIDE)).image
    logo = scale_logo(default_logo(), SIDE, SIDE, 4.0)
    canvas = Canvas(eye, retina_crop(eye), size, logo, bytes(32))
    genes = np.array([[150, size // 3, size // 3]], np.int32)
    return canvas, genes, crop_to_retina(eye, size)


def plain_session(classifier: Classifier, profile: str = "") -> onnxruntime.InferenceSession:
    """Open a network in plain ONNX Runtime; where a name is given, it writes a profile there."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(
        str(exported(classifier.bundle, default_cache())),
        options,
        providers=["CPUExecutionProvider"],
    )


def ways(classifier: Classifier) -> dict[str, Callable[[], object]]:
    """Give each way to ask the network of a classifier about one candidate."""
    bundle = classifier.bundle
    canvas, genes, _ = laid_out(classifier.size)
    ensemble = Ensemble([classifier])
    array = normalise(canvas.compose(genes))
    tensor = torch.from_numpy(array)
    session = plain_session(classifier)
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


def touched(classifier: Classifier) -> list[float]:
    """Tell of each convolution in turn in what share of its answer the logo is seen, as a box."""
    canvas, genes, clean = laid_out(classifier.size)
    network = build_network(classifier.bundle)
    answers: list[list[torch.Tensor]] = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *seen: answers[-1].append(seen[-1]))
    for view in (clean[None], canvas.compose(genes)):
        answers.append([])
        network(torch.from_numpy(normalise(view)))
    shares = []
    for one, other in zip(*answers, strict=True):
        differs = (one != other).any(1)[0]
        shares.append(int(differs.any(0).sum()) * int(differs.any(1).sum()) / differs.numel())
    return shares


def bound(classifier: Classifier, rounds: int) -> float:
    """Tell how much faster ONNX Runtime could be at most that computes anew what the logo touches.

    Of each convolution's time, and of what follows up to the next, it would take the share that is
    touched; finding it, and bringing old and new together, would cost nothing.
    """
    _, _, clean = laid_out(classifier.size)
    array = normalise(clean[None])
    with tempfile.TemporaryDirectory() as folder:
        session = plain_session(classifier, f"{folder}/profile")
        for _ in range(rounds):
            session.run(None, {"image": array})
        events = json.loads(Path(session.end_profiling()).read_text())
    shares, convolutions = touched(classifier), 0
    whole = part = 0.0
    for event in sorted(events, key=itemgetter("ts")):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            convolutions += "Conv" in event["args"]["op_name"]
            whole += event["dur"]
            part += event["dur"] * shares[max(convolutions - 1, 0) % len(shares)]
    if convolutions != rounds * len(shares):
        raise SystemExit(f"{classifier.bundle.name}: {convolutions} convolutions were timed")
    return whole / part


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
        with torch.no_grad():
            most = bound(classifier, arguments.rounds)
        print(f"    computing anew only what the logo touches: at most {most:.2f} times as fast")


if __name__ == "__main__":
    main()
