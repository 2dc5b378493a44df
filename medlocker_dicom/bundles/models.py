"""Classifier, ensemble and segmenter: photographs in, probabilities out."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scipy.signal.windows import gaussian

from medlocker_dicom.bundles.device import CPU, DeviceEnsemble
from medlocker_dicom.bundles.engine import near
from medlocker_dicom.bundles.gradients import Gradients
from medlocker_dicom.bundles.preprocess import crop_to_retina, normalise, resample, retina_at
from medlocker_dicom.errors import BundleFormatError
from medlocker_dicom.lesions.discs import rival_discs

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from numpy.typing import NDArray

    from medlocker_dicom.bundles.bundle import Bundle
    from medlocker_dicom.bundles.engine import Engine

DISC, EXUDATES = "OD", "EX"
WINDOW = 512
STRIDE = 384


class Classifier:
    """A DR classifier.

    Parameters
    ----------
    bundle
        Of kind ``dr-classifier``.
    engine
        Runs its network.
    device
        Where torch runs it: for gradients, and a GPU for whole populations.

    Raises
    ------
    BundleFormatError
        The bundle is of another kind.
    """

    def __init__(self, bundle: Bundle, engine: Engine, device: torch.device = CPU) -> None:
        if bundle.kind != "dr-classifier":
            raise BundleFormatError(f"{bundle.path}: a {bundle.kind}, not a dr-classifier")
        self.bundle = bundle
        self.size = bundle.input_size
        self.device = device
        self._engine = engine

    def probabilities(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Grade retina crops.

        Parameters
        ----------
        crops
            uint8 (B, S, S, 3) RGB; resampled where S is not the model's size.

        Returns
        -------
        ndarray
            float64 (B, classes), rows sum to one; calibrated by the bundle's temperature.

        Raises
        ------
        BundleFormatError
            The network has not as many outputs as the bundle has labels.
        """
        return self.graded(_inputs(crops, self.size))

    def graded(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Grade what `normalise` made of crops, float32 (B, 3, size, size); as `probabilities`."""
        logits = self._engine(inputs).astype(np.float64)
        _check_outputs(self.bundle, logits, 2)
        logits /= self.bundle.temperature
        powers = np.exp(logits - logits.max(1, keepdims=True))
        result: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
        return result

    def near(self, inputs: NDArray[np.float32]) -> Classifier:
        """Give the same for what differs in a small box from inputs (1, 3, size, size)."""
        return Classifier(self.bundle, near(self._engine, inputs), self.device)

    def photograph(self, rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Grade a whole photograph uint8 (H, W, 3); float64 (classes,)."""
        probability: NDArray[np.float64] = self.probabilities(crop_to_retina(rgb, self.size)[None])[
            0
        ]
        return probability


class Ensemble:
    """Several classifiers with weights beta (eq. 8).

    Parameters
    ----------
    classifiers
        At least one; all with the same labels.
    weights
        beta, as many, above 0; equal by default.
    """

    def __init__(
        self, classifiers: Sequence[Classifier], weights: Sequence[float] | None = None
    ) -> None:
        labels = {c.bundle.labels for c in classifiers}
        if len(labels) != 1:
            names = ", ".join(c.bundle.name for c in classifiers)
            raise BundleFormatError(
                f"classifiers with different labels cannot vote together: {names}"
            )
        self.classifiers = tuple(classifiers)
        self.labels = labels.pop()
        self._sizes = {c.size for c in classifiers}
        self.size = max(self._sizes)
        beta = np.asarray(weights if weights is not None else np.ones(len(classifiers)), np.float64)
        self.weights: NDArray[np.float64] = beta / beta.sum()

    def each(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probabilities of every model, float64 (k, B, classes), of crops uint8 (B, S, S, 3)."""
        inputs = {size: _inputs(crops, size) for size in self._sizes}
        return np.stack([c.graded(inputs[c.size]) for c in self.classifiers])

    def probabilities(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Weighted mean of the models' probabilities (eq. 8), float64 (B, classes)."""
        mean: NDArray[np.float64] = np.tensordot(self.weights, self.each(crops), 1)
        return mean

    def near(self, crop: NDArray[np.uint8]) -> Ensemble:
        """Give the same for crops that differ from one, uint8 (S, S, 3), in a small box.

        Its answers are the same, but for rounding, and come sooner.
        """
        inputs = {size: _inputs(crop[None], size) for size in self._sizes}
        return Ensemble([c.near(inputs[c.size]) for c in self.classifiers], self.weights.tolist())

    @cached_property
    def gradients(self) -> Gradients:
        """The same networks in torch, loaded when first asked for."""
        return Gradients(self.classifiers, self.weights)

    @cached_property
    def on_device(self) -> DeviceEnsemble | None:
        """The same on the classifiers' GPU, loaded when first asked for; None without one."""
        device = self.classifiers[0].device
        return None if device == CPU else DeviceEnsemble(self.classifiers, self.weights, device)

    def photograph(self, rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Probabilities of every model for a whole photograph uint8 (H, W, 3); (k, classes)."""
        inputs = {size: normalise(crop_to_retina(rgb, size)[None]) for size in self._sizes}
        return np.concatenate([c.graded(inputs[c.size]) for c in self.classifiers])


class Segmenter:
    """The lesion segmenter.

    Parameters
    ----------
    bundle
        Of kind ``lesion-segmenter``.
    engine
        Runs its network.
    threshold
        Probability from which a px counts as lesion.

    Attributes
    ----------
    lesion_labels
        Numbers of the labels that are lesions: all but the optic disc.
    """

    def __init__(self, bundle: Bundle, engine: Engine, threshold: float = 0.5) -> None:
        if bundle.kind != "lesion-segmenter":
            raise BundleFormatError(f"{bundle.path}: a {bundle.kind}, not a lesion-segmenter")
        self.bundle = bundle
        self.threshold = threshold
        self._engine = engine
        self.lesion_labels = [n for n, label in enumerate(bundle.labels) if label != DISC]

    def lesions(self, rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Mark the lesions of a photograph (WSM step 1).

        Parameters
        ----------
        rgb
            uint8 (H, W, 3).

        Returns
        -------
        ndarray
            bool (H, W): any lesion; the optic disc is none.
        """
        return np.asarray(self.labels_of(rgb)[self.lesion_labels].any(0), np.bool_)

    def labels_of(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mark every label of a photograph uint8 (H, W, 3); uint8 (labels, H, W), 0 or 1."""
        image, _ = retina_at(rgb, self.bundle.input_size, None)
        found = (self.scores(image) >= self.threshold).astype(np.uint8)
        size = (rgb.shape[1], rgb.shape[0])
        planes = [cv2.resize(p, size, interpolation=cv2.INTER_NEAREST) for p in found]
        return np.stack([np.asarray(plane, np.uint8) for plane in planes])

    def scores(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 (labels, H, W) of an image uint8 (H, W, 3) at the model's scale.

        Overlapping windows; each px takes the mean over the windows that hold it, of which those
        count most that have it near their middle. Where more than one region passes for the optic
        disc, all of them but one are plaques of exudates: each px of them is as likely exudate as
        disc, so that no logo comes to lie on either.
        """
        height, width = image.shape[:2]
        rows, columns = _starts(height), _starts(width)
        padded = np.zeros((max(height, WINDOW), max(width, WINDOW), 3), np.uint8)
        padded[:height, :width] = image
        total = np.zeros((len(self.bundle.labels), *padded.shape[:2]), np.float32)
        seen = np.zeros(padded.shape[:2], np.float32)
        across = gaussian(WINDOW, WINDOW / 8).astype(np.float32)
        weights = np.outer(across, across)
        for top in rows:
            for left in columns:
                window = np.s_[top : top + WINDOW, left : left + WINDOW]
                if not padded[window].any():
                    seen[window] += weights
                    continue
                logits = self._engine(normalise(padded[window][None]))
                _check_outputs(self.bundle, logits, 4)
                total[:, *window] += weights / (1 + np.exp(-np.clip(logits[0], -30, 30)))
                seen[window] += weights
        scores = (total / seen)[:, :height, :width].astype(np.float32)
        if {DISC, EXUDATES} <= set(self.bundle.labels):
            disc = scores[self.bundle.labels.index(DISC)]
            exudates = scores[self.bundle.labels.index(EXUDATES)]
            rivals = rival_discs(disc >= self.threshold, self.bundle.input_size)
            exudates[rivals] = np.maximum(exudates, disc)[rivals]
        return scores


def _inputs(crops: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    """Bring crops uint8 (B, S, S, 3) to a model's size, and normalise them."""
    if crops.shape[1:3] != (size, size):
        crops = np.stack([resample(crop, (size, size)) for crop in crops])
    return normalise(crops)


def _check_outputs(bundle: Bundle, logits: NDArray[Any], axes: int) -> None:
    labels = len(bundle.labels)
    if logits.ndim != axes or logits.shape[1] != labels:
        raise BundleFormatError(
            f"{bundle.path}: the network answers with shape {logits.shape} to {labels} labels",
            "labels and network_def in the bundle have to agree",
        )
    if not np.isfinite(logits).all():
        raise BundleFormatError(
            f"{bundle.path}: the network answers with values that are no numbers",
            "restore the bundle from its source",
        )


def _starts(length: int) -> list[int]:
    if length <= WINDOW:
        return [0]
    return [*range(0, length - WINDOW, STRIDE), length - WINDOW]
