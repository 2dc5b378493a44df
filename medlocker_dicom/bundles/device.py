"""Where networks run in torch; an ensemble on a GPU: whole populations at once, halved."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np
import torch

from medlocker_dicom.bundles.bundle import build_network
from medlocker_dicom.bundles.networks import channels_last
from medlocker_dicom.bundles.preprocess import MEAN, STD
from medlocker_dicom.errors import DeviceError, MedLockerError, UsageError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from medlocker_dicom.bundles.bundle import Bundle
    from medlocker_dicom.bundles.models import Classifier

CPU: Final = torch.device("cpu")
VARIABLE = "MEDLOCKER_DEVICE"
"""Names the device; the CPU where it is not set."""
WITHOUT: Final = f"set {VARIABLE}=cpu to do without"
"""The hint where one fails."""


def chosen_device() -> torch.device:
    """Tell which device the user wants: ``cpu``, or ``cuda`` by itself or with a number.

    Raises
    ------
    UsageError
        It is none of these, or torch finds no such GPU.
    """
    name = os.environ.get(VARIABLE) or "cpu"
    if not re.fullmatch(r"cpu|cuda(:(0|[1-9]\d?))?", name):
        raise UsageError(f"{VARIABLE} is {name!r}", "it may be cpu, cuda or cuda:1")
    device = torch.device(name)
    if device != CPU and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"{VARIABLE} is {name!r}, and torch {torch.__version__} finds no such GPU",
            "leave the variable away, or install torch for the GPU's driver",
        )
    return device


@contextmanager
def computing(device: torch.device) -> Iterator[None]:
    """Say that it is the device which fails, where it is not the CPU.

    Raises
    ------
    DeviceError
        What was done there failed.
    """
    try:
        yield
    except MedLockerError:
        raise
    except Exception as error:
        if device.type == "cpu":
            raise
        reason = first_line(error)
        raise DeviceError(f"{device}: {reason}", WITHOUT) from error


def load_onto(
    device: torch.device, bundle: Bundle, precision: torch.dtype = torch.float32
) -> nn.Module:
    """Build a bundle's network on a device.

    Raises
    ------
    BundleFormatError
        It does not load.
    DeviceError
        There is no room for it.
    """
    with computing(device):
        return channels_last(build_network(bundle).to(precision), device)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Bring levels float32 (B, 3, S, S) into the classifiers' range, as `preprocess.normalise`."""
    mean, std = (images.new_tensor(one)[:, None, None] for one in (MEAN, STD))
    return ((images / 255 - mean) / std).contiguous(memory_format=torch.channels_last)


class DeviceEnsemble:
    """Classifiers in torch that grade candidates where these are composed.

    Half precision is enough to tell candidates apart: the one that is taken is graded again, as the
    whole photograph, by the engines of the ensemble.

    Parameters
    ----------
    classifiers
        Of the ensemble.
    weights
        beta, float64 (k,).
    device
        Where the networks go.
    precision
        Theirs.

    Raises
    ------
    BundleFormatError, DeviceError
        As of `load_onto`.
    """

    def __init__(
        self,
        classifiers: Sequence[Classifier],
        weights: NDArray[np.float64],
        device: torch.device,
        precision: torch.dtype = torch.float16,
    ) -> None:
        self.device, self.precision = device, precision
        self._classifiers, self._weights = classifiers, weights.tolist()
        self._networks = [load_onto(device, one.bundle, precision) for one in classifiers]

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Grade crops float32 (B, 3, S, S), 0 to 255, no smaller than a model's size.

        The answer is the models' mean (eq. 8), float32 (B, classes).
        """
        seen = {one.size: self._inputs(images, one.size) for one in self._classifiers}
        answers = [
            weight * (network(seen[one.size]).float() / one.bundle.temperature).softmax(1)
            for one, network, weight in zip(
                self._classifiers, self._networks, self._weights, strict=True
            )
        ]
        return torch.stack(answers).sum(0)

    def _inputs(self, images: torch.Tensor, size: int) -> torch.Tensor:
        """Bring crops to a model's size, as `preprocess.resample` does, and into its range."""
        side = images.shape[-1]
        if size != side:
            one_each = np.eye(side, dtype=np.float32)
            shares = cv2.resize(one_each, (side, size), interpolation=cv2.INTER_AREA)
            rows = torch.from_numpy(shares).to(self.device)
            images = rows @ images @ rows.T
            # cv2 rounds halves up where it adds four px, and to the even otherwise.
            images = (images + 0.5).floor() if side == 2 * size else images.round()
        return normalised(images).to(self.precision)
