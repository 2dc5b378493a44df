"""Whether a bundle runs, and says the same in both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medlocker_dicom.bundles.bundle import build_network
from medlocker_dicom.bundles.engine import OnnxEngine, TorchEngine
from medlocker_dicom.bundles.models import Classifier, Segmenter
from medlocker_dicom.bundles.preprocess import Crop, crop_to_retina, cut, normalise, retina_at
from medlocker_dicom.errors import BundleFormatError
from medlocker_dicom.phantom import phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from medlocker_dicom.bundles.bundle import Bundle

#: Most that logits of the two engines may differ, relative to the largest of them.
TOLERANCE = 1e-3
SEED = 20240615


def check_bundle(bundle: Bundle) -> dict[str, Any]:
    """Run a bundle on a drawn eye in both engines.

    Returns
    -------
    dict
        ``parameters``, ``megabytes`` of the weights file, and ``engines_differ``: the largest
        difference of logits, relative to the largest logit.

    Raises
    ------
    BundleFormatError
        The network does not load, run or answer to its labels, or the engines disagree.
    """
    parameters = sum(p.numel() for p in build_network(bundle).parameters())
    eye = phantom(np.random.default_rng(SEED), (600, 600)).image
    onnx, torch = OnnxEngine(bundle), TorchEngine(bundle)
    if bundle.kind == "dr-classifier":
        Classifier(bundle, onnx).photograph(eye)
        shown = crop_to_retina(eye, bundle.input_size)
    else:
        image, _ = retina_at(eye, bundle.input_size, None)
        shown = _middle(image, 256)
        Segmenter(bundle, onnx).scores(shown)
    inputs = normalise(shown[None])
    first, second = onnx(inputs), torch(inputs)
    differ = float(np.abs(first - second).max() / max(float(np.abs(second).max()), 1.0))
    if differ > TOLERANCE:
        raise BundleFormatError(
            f"{bundle.path}: ONNX Runtime and torch disagree by {differ:.2g}",
            "the network has parts that do not export",
        )
    size = bundle.weights_file.stat().st_size / 1e6
    return {
        "parameters": parameters,
        "megabytes": round(size, 1),
        "engines_differ": float(f"{differ:.2g}"),
    }


def _middle(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Cut the middle out of an image; what lies outside a smaller one is black."""
    height, width = image.shape[:2]
    return cut(image, Crop((width - side) // 2, (height - side) // 2, side))
