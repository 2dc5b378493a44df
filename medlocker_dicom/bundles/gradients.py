"""Gradients of the ensemble's objective by the px of a crop, through strangers' pipelines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

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


SUREST: Final = 6.0
"""By how much a class may lead in a model's logits. The mean beside models that are turned hardly
changes with those of a surer one, which so would be left as it is."""


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

    Attributes
    ----------
    device
        Theirs.

    Raises
    ------
    BundleFormatError, DeviceError
        As of `load_onto`.
    """

    classifiers: Sequence[Classifier]
    weights: NDArray[np.float64]
    _networks: list[nn.Module] = field(init=False, repr=False)
    device: torch.device = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Load the networks."""
        self.device = self.classifiers[0].device
        self._networks = []
        for one in self.classifiers:
            network = load_onto(self.device, one.bundle)
            self._networks.append(network.requires_grad_(requires_grad=False))

    def away_from(self, target: int) -> Away:
        """Begin to lead an image away from a class."""
        return Away(self, target)

    def told(self, number: int, seen: torch.Tensor) -> torch.Tensor:
        """Ask a model about levels (1, 3, s, s): calibrated logits (classes,)."""
        classifier = self.classifiers[number]
        with running(classifier.bundle, "torch"), computing(self.device):
            logits = self._networks[number](_inputs(seen, classifier.size))[0]
        told: torch.Tensor = logits / classifier.bundle.temperature
        return told


class Away:
    """Leads an image, as it changes, away from a class: asks one model after the other.

    Parameters
    ----------
    gradients
        The models.
    target
        The class.
    """

    def __init__(self, gradients: Gradients, target: int) -> None:
        self._models, self._target = gradients, target
        self._turn = 0
        self._told: dict[int, torch.Tensor] = {}

    @property
    def turned(self) -> bool:
        """Whether another class leads in the mean (eq. 8) of what each model told last."""
        everyone = len(self._told) == len(self._models.classifiers)
        with computing(self._models.device):
            return everyone and float(self._lead(list(self._told.values()))) < 0

    def __call__(self, image: NDArray[np.float32], view: View) -> NDArray[np.float32]:
        """Tell what each px does for the class, by the model whose turn it is.

        The objective is ``log(1 + e P_t / max P_j)`` over j other than t, P being the mean (eq. 8)
        of what the model tells and of what the others told last: so the models agree on a class,
        and none that is turned far enough takes effort from the others. No model counts as surer
        of t than `SUREST`. It is the next one's turn where a model tells no gradient, or what is
        no number.

        Parameters
        ----------
        image
            float32 (S, S, 3) RGB, 0 to 255.
        view
            What is done to the image first.

        Returns
        -------
        ndarray
            float32 (S, S, 3): the objective's gradient by `image`.

        Raises
        ------
        BundleFormatError
            A network does not run.
        NoGradientError
            None of them tells one.
        DeviceError
            The GPU fails.
        """
        models, device = self._models.classifiers, self._models.device
        first, self._turn = self._turn, self._turn + 1
        with computing(device):
            for passed in range(len(models)):
                leaf = torch.from_numpy(image).to(device).requires_grad_()
                seen = _seen(leaf.permute(2, 0, 1)[None], view)
                number = (first + passed) % len(models)
                told = self._share(number, self._models.told(number, seen))
                numbers = bool(told.isfinite().all())
                if numbers:
                    self._told[number] = told.detach()
                if numbers and told.requires_grad:
                    others = [one for n, one in self._told.items() if n != number]
                    held = functional.softplus(self._lead([told, *others]) + 1)
                    (gradient,) = torch.autograd.grad(held, leaf)
                    numbers = bool(gradient.isfinite().all())
                    if numbers:
                        result: NDArray[np.float32] = gradient.cpu().numpy()
                        return result
                if not numbers and device != CPU:
                    raise DeviceError(f"{device}: gradients that are no numbers", WITHOUT)
        names = ", ".join(one.bundle.name for one in models)
        raise NoGradientError(f"{names}: no gradient is told", "search by --strategy paper")

    def _share(self, number: int, logits: torch.Tensor) -> torch.Tensor:
        """Give the logarithms of a model's share of eq. 8, no surer of the class than allowed."""
        lead = float(self._lead([logits.detach()]))
        if lead > SUREST:
            logits = logits * (SUREST / lead)
        return logits.log_softmax(0) + float(np.log(self._models.weights[number]))

    def _lead(self, told: Sequence[torch.Tensor]) -> torch.Tensor:
        """Tell by how much the class leads all others, as a difference of logarithms."""
        mean = torch.stack(list(told)).logsumexp(0)
        others = torch.cat([mean[: self._target], mean[self._target + 1 :]])
        return mean[self._target] - others.max()


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
