"""Gradients of the ensemble's objective by the px of a crop, through strangers' pipelines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch.nn import functional

from medlocker_dicom.bundles.device import CPU, WITHOUT, computing, load_onto, normalised
from medlocker_dicom.bundles.engine import running
from medlocker_dicom.errors import DeviceError, NoGradientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from medlocker_dicom.bundles.models import Classifier


@dataclass(frozen=True)
class View:
    """What an input pipeline does to a square crop before a network sees it.

    Attributes
    ----------
    extent
        Share of the side that is kept, above 0 to 1.
    across, down
        Where the kept window lies, 0 (left, top) to 1.
    scale
        Share of the resolution that is left, above 0 to 1.
    gain, shift
        Contrast, and brightness in levels of 255.
    quality
        Of JPEG, 1 to 100; None for none.
    """

    extent: float = 1.0
    across: float = 0.5
    down: float = 0.5
    scale: float = 1.0
    gain: float = 1.0
    shift: float = 0.0
    quality: int | None = None


def draw_view(rng: np.random.Generator) -> View:
    """Draw a pipeline: crop, resolution, colour and JPEG as strangers choose them."""
    return View(
        extent=rng.uniform(0.9, 1.0),
        across=rng.uniform(),
        down=rng.uniform(),
        scale=rng.uniform(0.5, 1.0),
        gain=rng.uniform(0.9, 1.1),
        shift=rng.uniform(-10, 10),
        quality=int(rng.integers(50, 96)),
    )


@dataclass
class Gradients:
    """The classifiers of an ensemble in torch, which can tell gradients.

    Parameters
    ----------
    classifiers
        Of the ensemble, all on one device.
    weights
        beta, float64 (k,).

    Raises
    ------
    BundleFormatError, DeviceError
        As of `load_onto`.
    """

    classifiers: Sequence[Classifier]
    weights: NDArray[np.float64]
    _networks: list[nn.Module] = field(init=False, repr=False)
    _device: torch.device = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Load the networks."""
        self._device = self.classifiers[0].device
        self._networks = []
        for one in self.classifiers:
            network = load_onto(self._device, one.bundle)
            self._networks.append(network.requires_grad_(requires_grad=False))

    def __call__(
        self, image: NDArray[np.float32], target: int, view: View, turn: int
    ) -> NDArray[np.float32]:
        """Tell what each px does for one model of the ensemble to hold on to a class.

        The objective is ``log(1 + exp(z_t - max z_j + 1))`` over j other than t, times the model's
        weight, z being the calibrated logits: no model that is turned far enough takes effort from
        the others.

        Parameters
        ----------
        image
            float32 (S, S, 3) RGB, 0 to 255.
        target
            The class to lead away from.
        view
            What is done to the image first.
        turn
            Says whose turn it is, one model after the other; the next one's where that tells no
            gradient, or one that is no number.

        Returns
        -------
        ndarray
            float32 (S, S, 3): its gradient by `image`.

        Raises
        ------
        BundleFormatError
            A network does not run.
        NoGradientError
            None of them tells one.
        DeviceError
            The GPU fails.
        """
        models = len(self.classifiers)
        with computing(self._device):
            leaf = torch.from_numpy(image).to(self._device).requires_grad_()
            seen = _seen(leaf.permute(2, 0, 1)[None], view)
            for passed in range(models):
                part = self._held((turn + passed) % models, seen, target)
                if part.requires_grad:
                    (gradient,) = torch.autograd.grad(part, leaf)
                    if bool(gradient.isfinite().all()):
                        result: NDArray[np.float32] = gradient.cpu().numpy()
                        return result
                    if self._device != CPU:
                        raise DeviceError(f"{self._device}: gradients that are no numbers", WITHOUT)
        names = ", ".join(one.bundle.name for one in self.classifiers)
        raise NoGradientError(f"{names}: no gradient is told", "search by --strategy paper")

    def _held(self, number: int, seen: torch.Tensor, target: int) -> torch.Tensor:
        """Tell how much a model holds on to a class, times its weight."""
        classifier = self.classifiers[number]
        with running(classifier.bundle, "torch"), computing(self._device):
            logits = self._networks[number](_inputs(seen, classifier.size))[0]
        logits = logits / classifier.bundle.temperature
        others = torch.cat([logits[:target], logits[target + 1 :]])
        held = functional.softplus(logits[target] - others.max() + 1)
        return float(self.weights[number]) * held


def _seen(image: torch.Tensor, view: View) -> torch.Tensor:
    """Put (1, 3, S, S) through a pipeline; (1, 3, s, s)."""
    whole = image.shape[-1]
    side = max(1, round(whole * view.extent))
    left, top = (round((whole - side) * place) for place in (view.across, view.down))
    kept = image[..., top : top + side, left : left + side]
    small = max(1, round(side * view.scale))
    if small < side:
        kept = functional.interpolate(kept, (small, small), mode="bilinear", antialias=True)
    coloured = (kept * view.gain + view.shift).clamp(0, 255)
    return coloured if view.quality is None else coloured + _loss_of_jpeg(coloured, view.quality)


def _loss_of_jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    """Give what JPEG changes, as a constant: gradients pass it by (straight through)."""
    plain = image.detach()[0].permute(1, 2, 0).cpu().numpy()
    levels = np.rint(plain).astype(np.uint8)
    coded = cv2.imencode(".jpg", levels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    back = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.float32)[..., ::-1]
    return torch.from_numpy(back - plain).permute(2, 0, 1)[None].to(image.device)


def _inputs(image: torch.Tensor, size: int) -> torch.Tensor:
    """Bring (1, 3, s, s) to what a classifier expects."""
    if image.shape[-1] != size:
        smaller = image.shape[-1] > size
        image = functional.interpolate(image, (size, size), mode="bilinear", antialias=smaller)
    return normalised(image)
