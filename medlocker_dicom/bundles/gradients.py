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
"""By how much the class to lead away from may lead in a model's calibrated logits. A surer model
hardly moves the mean beside models that are turned, and would be left as it is."""


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
        Where the networks are.

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

    def logits(self, index: int, seen: torch.Tensor) -> torch.Tensor:
        """Ask a model about levels (1, 3, s, s): calibrated logits (classes,)."""
        classifier = self.classifiers[index]
        with running(classifier.bundle, "torch"), computing(self.device):
            logits = self._networks[index](_inputs(seen, classifier.size))[0]
        calibrated: torch.Tensor = logits / classifier.bundle.temperature
        return calibrated


class Away:
    """Tells, by one model after the other, how an image is led away from a class.

    Parameters
    ----------
    gradients
        The models.
    target
        The class.

    Attributes
    ----------
    turns : int
        How many gradients were asked for.
    """

    def __init__(self, gradients: Gradients, target: int) -> None:
        self._models, self._target = gradients, target
        self._shares: dict[int, torch.Tensor] = {}
        self.turns = 0

    @property
    def turned(self) -> bool:
        """Whether another class leads in the mean of what each model told last, by any view.

        None counts as surer of the class than `SUREST`. False until all have told.
        """
        everyone = len(self._shares) == len(self._models.classifiers)
        with computing(self._models.device):
            return everyone and float(self._lead(list(self._shares.values()))) < 0

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
        first, self.turns = self.turns, self.turns + 1
        with computing(device):
            for passed in range(len(models)):
                # Anew each time: a gradient that is no number has used the graph up.
                leaf = torch.from_numpy(image).to(device).requires_grad_()
                seen = _seen(leaf.permute(2, 0, 1)[None], view)
                index = (first + passed) % len(models)
                share = self._share(index, self._models.logits(index, seen))
                if bool(share.isfinite().all()):
                    self._shares[index] = share.detach()
                    if not share.requires_grad:
                        continue
                    others = [one for n, one in self._shares.items() if n != index]
                    held = functional.softplus(self._lead([share, *others]) + 1)
                    (gradient,) = torch.autograd.grad(held, leaf)
                    if bool(gradient.isfinite().all()):
                        result: NDArray[np.float32] = gradient.cpu().numpy()
                        return result
                if device != CPU:
                    reason = f"{device}: answers or gradients that are no numbers"
                    raise DeviceError(reason, WITHOUT)
        names = ", ".join(one.bundle.name for one in models)
        raise NoGradientError(f"{names}: no gradient is told", "search by --strategy paper")

    def _share(self, index: int, logits: torch.Tensor) -> torch.Tensor:
        """Give the logarithms of a model's share of eq. 8, no surer of the class than allowed."""
        lead = float(self._lead([logits.detach()]))
        if lead > SUREST:
            logits = logits * (SUREST / lead)
        return logits.log_softmax(0) + float(np.log(self._models.weights[index]))

    def _lead(self, shares: list[torch.Tensor]) -> torch.Tensor:
        """Tell by how much the class leads all others, as a difference of logarithms."""
        mean = torch.stack(shares).logsumexp(0)
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
