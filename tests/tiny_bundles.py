"""MONAI bundles that take milliseconds: real networks, seeded weights, no training."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.nets.classifier import Classifier
from monai.networks.nets.unet import UNet
from torch import nn

from medlocker_dicom.bundles.preprocess import crop_to_retina, normalise
from medlocker_dicom.phantom import phantom

CLASSIFIER: dict[str, Any] = {
    "in_shape": [3, 64, 64],
    "classes": 5,
    "channels": [6, 12],
    "strides": [4, 4],
    "num_res_units": 1,
}
SEGMENTER: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 3,
    "out_channels": 5,
    "channels": [4, 8],
    "strides": [2],
}
OWN_CODE = '''"""A network of the hospital's own."""

from monai.networks.nets.classifier import Classifier

GAIN = 2


class Grader(Classifier):
    def forward(self, inputs):
        return GAIN * super().forward(inputs)
'''
WITHOUT_GRADIENT = '''"""A network outside the graph of torch, as of a foreign runtime."""

import torch
from monai.networks.nets.classifier import Classifier


class Grader(Classifier):
    @torch.no_grad()
    def forward(self, inputs):
        return super().forward(inputs)
'''
GRADES = ["0", "1", "2", "3", "4"]
LESIONS = ["MA", "HE", "EX", "SE", "OD"]


def write_bundle(
    path: Path,
    kind: str,
    labels: list[str],
    input_size: int,
    network: tuple[str, dict[str, Any], nn.Module],
) -> Path:
    """Write a bundle folder: a network's target, its arguments, and itself with its weights."""
    target, arguments, module = network
    (path / "configs").mkdir(parents=True)
    (path / "models").mkdir()
    weights = path / "models" / "model.pt"
    torch.save({k: v.half() for k, v in module.state_dict().items()}, weights)
    metadata = {
        "version": "0.0.1",
        "medlocker": {
            "kind": kind,
            "labels": labels,
            "input_size": input_size,
            "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
    }
    inference = {"network_def": {"_target_": target, **arguments}}
    (path / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (path / "configs" / "inference.json").write_text(json.dumps(inference))
    return path


def write_classifier(path: Path, seed: int = 3) -> Path:
    """Write a grader whose decision depends on the picture, and on what a logo does to it.

    The last layer of a random network is centred on a few phantoms and stretched: its five
    classes are then about as near to each other as pictures differ.
    """
    torch.manual_seed(seed)
    network = Classifier(**CLASSIFIER).eval()
    eyes = [phantom(np.random.default_rng(n), (160, 160)).image for n in range(6)]
    crops = normalise(np.stack([crop_to_retina(eye, 64) for eye in eyes]))
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        logits = network(torch.from_numpy(crops))
        stretch = 1.5 / float(logits.std(0).mean())
        last.weight *= stretch
        last.bias.copy_((last.bias - logits.mean(0)) * stretch)
    target = "monai.networks.nets.Classifier"
    return write_bundle(path, "dr-classifier", GRADES, 64, (target, CLASSIFIER, network))


def write_segmenter(path: Path, everywhere: float) -> Path:
    """Write a segmenter that gives every px the logit ``everywhere``."""
    network = UNet(**SEGMENTER)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        last = [m for m in network.modules() if isinstance(m, nn.ConvTranspose2d)][-1]
        assert last.bias is not None
        last.bias.fill_(everywhere)
    target = "monai.networks.nets.UNet"
    return write_bundle(path, "lesion-segmenter", LESIONS, 128, (target, SEGMENTER, network))


def write_own_code(path: Path, seed: int = 3) -> Path:
    """Write the grader as a hospital would whose network no library has.

    Its class stands in ``scripts/net.py`` beside it, and doubles the logits; its arguments are
    a reference and an expression, as in many bundles of MONAI.
    """
    write_classifier(path, seed)
    (path / "scripts").mkdir()
    (path / "scripts" / "net.py").write_text(OWN_CODE)
    definition = {"_target_": "scripts.net.Grader", **CLASSIFIER}
    definition |= {"classes": "@grades", "strides": "$[2 * 2, 4]"}
    inference = {"grades": 5, "network_def": definition}
    (path / "configs" / "inference.json").write_text(json.dumps(inference))
    return path


def write_without_gradient(path: Path) -> Path:
    """Write the grader with a class of its own that tells no gradient."""
    write_own_code(path)
    (path / "scripts" / "net.py").write_text(WITHOUT_GRADIENT)
    return path
