"""Networks by the paper's names, built without reaching for weights of others."""

from __future__ import annotations

import importlib
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from types import ModuleType

#: Outputs of a grader: ICDR 0 none, 1 mild, 2 moderate, 3 severe, 4 proliferative.
GRADES = 5

# The library handle must stay alive as long as the operators are wanted.
_operators: torch.library.Library | None = None


def torchvision_models() -> ModuleType:
    """Import ``torchvision.models``, also beside a torch built for CPU alone.

    The torchvision wheel registers its operators from a CUDA-linked library;
    beside a CPU-only torch its import fails because the schemas of ``nms`` and
    ``qnms`` are unknown. Declaring them is enough for every classification
    network, none of which calls them.

    Returns
    -------
    module
        ``torchvision.models``.
    """
    global _operators  # noqa: PLW0603  one declaration a process is all torch allows
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision.models")


def resnet18(num_classes: int = GRADES) -> nn.Module:
    """Build ResNet18 (He et al. 2016), randomly initialised like every network here.

    Parameters
    ----------
    num_classes
        Outputs of the last layer; 5 ICDR grades by default.

    Returns
    -------
    nn.Module
        float32 (B, 3, H, W) normalised RGB -> float32 (B, num_classes) logits.
    """
    return _torchvision("resnet18", num_classes)


def resnet50(num_classes: int = GRADES) -> nn.Module:
    """Build ResNet50 (He et al. 2016); inputs and outputs as those of ``resnet18``."""
    return _torchvision("resnet50", num_classes)


def densenet121(num_classes: int = GRADES) -> nn.Module:
    """Build DenseNet121 (Huang et al. 2017); inputs and outputs as those of ``resnet18``."""
    return _torchvision("densenet121", num_classes)


def mobilenetv3(num_classes: int = GRADES) -> nn.Module:
    """Build MobileNetV3-Large (Howard et al. 2019); inputs and outputs as those of ``resnet18``."""
    return _torchvision("mobilenet_v3_large", num_classes)


def inceptionv3(num_classes: int = GRADES) -> nn.Module:
    """Build InceptionV3 (Szegedy et al. 2016) without its auxiliary head.

    Its convolutions are drawn as those of the other networks are (He et al. 2015). Inputs and
    outputs as those of ``resnet18``; H and W at least 75 px.
    """
    network = _torchvision("inception_v3", num_classes, aux_logits=False, init_weights=False)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def vgg16(num_classes: int = GRADES) -> nn.Module:
    """Build VGG16 (Simonyan and Zisserman 2015) with a small head.

    The mean over all places takes the place of the two layers of 4096, which hold nine tenths
    of the weights (Lin et al. 2014). The convolutions carry batch normalisation, torchvision's
    ``vgg16_bn``, without which the network hardly trains from random weights; in inference it
    is a scale and a shift that fold into the convolutions. Inputs and outputs as those of
    ``resnet18``.
    """
    vgg = torchvision_models().vgg
    head: dict[str, nn.Module] = {
        "features": vgg.make_layers(vgg.cfgs["D"], batch_norm=True),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "dropout": nn.Dropout(0.2),
        "classifier": nn.Linear(512, num_classes),
    }
    return nn.Sequential(OrderedDict(head))


def vit(num_classes: int = GRADES) -> nn.Module:
    """Build a vision transformer of the tiny size (Dosovitskiy et al. 2021; Touvron et al. 2021).

    Patches of 16 px, 12 layers, 3 heads, 192 channels. Inputs and outputs as those of
    ``resnet18``; H and W are 160 px.
    """
    network: nn.Module = torchvision_models().VisionTransformer(
        image_size=160,
        patch_size=16,
        num_layers=12,
        num_heads=3,
        hidden_dim=192,
        mlp_dim=768,
        num_classes=num_classes,
    )
    return network


def _torchvision(name: str, num_classes: int, **arguments: Any) -> nn.Module:
    build = getattr(torchvision_models(), name)
    network: nn.Module = build(weights=None, num_classes=num_classes, **arguments)
    return network


def unetplusplus(labels: int = 5) -> nn.Module:
    """Build the lesion segmenter's UNet++, see `LesionUNetPlusPlus`.

    Parameters
    ----------
    labels
        Output channels: MA, HE, EX, SE and the optic disc.
    """
    # MONAI takes seconds to import, and a network that was exported is run without it.
    module = importlib.import_module("medlocker_dicom.bundles.unetplusplus")
    network: nn.Module = module.LesionUNetPlusPlus(labels)
    return network


def channels_last(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to a device, in the memory layout that convolutions like best."""
    moved = network.to(device)
    moved.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's types
    return moved
