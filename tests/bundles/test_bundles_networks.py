"""The seven graders of the paper answer alike in torch and in ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from conftest import BESIDE
from medlocker_dicom.bundles import networks
from medlocker_dicom.bundles.bundle import read_bundle
from medlocker_dicom.bundles.check import TOLERANCE
from medlocker_dicom.bundles.engine import OnnxEngine, TorchEngine
from medlocker_dicom.bundles.picture import read_rgb
from medlocker_dicom.bundles.preprocess import crop_to_retina, normalise
from medlocker_dicom.phantom import phantom
from medlocker_dicom.training.family import FAMILY
from tiny_bundles import GRADES, write_bundle

#: px, by grader: what its bundle asks for.
SIDES = {architecture.name: architecture.input_size for architecture in FAMILY}


@pytest.fixture(scope="module")
def eyes() -> list[NDArray[np.uint8]]:
    """Return three photographs, or phantoms where there are none."""
    folder = BESIDE / "data" / "idrid_grading" / "images"
    eyes = [read_rgb(path) for path in sorted(folder.glob("*.jpg"))[::200]]
    if not BESIDE.exists():
        eyes = [phantom(np.random.default_rng(n), (300, 300)).image for n in range(3)]
    assert len(eyes) == 3
    return eyes


def seeded(name: str, retinas: NDArray[np.float32]) -> nn.Module:
    """Build a grader whose answers depend on the picture, as a trained one's do.

    Batch normalisation takes the statistics of the pictures themselves, and the last layer,
    which is zero in a new vision transformer, is drawn.
    """
    torch.manual_seed(4)
    network: nn.Module = getattr(networks, name)()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.normal_(last.weight, 0, 0.1)
    with torch.no_grad():
        network.train()(torch.from_numpy(retinas))
    return network.eval()


@pytest.mark.parametrize("name", SIDES)
def test_a_grader_answers_alike(
    name: str, eyes: list[NDArray[np.uint8]], tmp_path: Path, export_cache: Path
) -> None:
    """Of each network the logits differ by at most 1e-3 of the largest, and tell eyes apart."""
    side = SIDES[name]
    retinas = normalise(np.stack([crop_to_retina(eye, side) for eye in eyes]))
    target = f"{networks.__name__}.{name}", {"num_classes": 5}, seeded(name, retinas)
    bundle = read_bundle(write_bundle(tmp_path / name, "dr-classifier", GRADES, side, target))
    reference = TorchEngine(bundle)(retinas)
    answer = OnnxEngine(bundle, export_cache)(retinas)
    assert reference.shape == (3, 5)
    largest = np.abs(reference).max()
    assert np.abs(reference - reference[::-1]).max() > 20 * TOLERANCE * largest
    assert np.abs(answer - reference).max() <= TOLERANCE * largest


@pytest.mark.parametrize("name", SIDES)
def test_a_grader_has_as_many_outputs_as_asked(name: str) -> None:
    """The argument that bundles give is the size of the last layer."""
    network = getattr(networks, name)(num_classes=3)
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    assert last.out_features == 3
