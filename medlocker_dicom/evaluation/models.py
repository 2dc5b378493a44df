"""Figures of a model on photographs whose grades or lesions are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medlocker_dicom.bundles.picture import read_bits, read_rgb
from medlocker_dicom.bundles.preprocess import retina_at
from medlocker_dicom.dicom.reading import naming
from medlocker_dicom.errors import UsageError
from medlocker_dicom.evaluation.measures import Tally

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from medlocker_dicom.bundles.models import Classifier, Segmenter


@dataclass(frozen=True)
class Masked:
    """A photograph whose lesions are known.

    Attributes
    ----------
    image
        uint8 (H, W, 3) RGB, at the segmenter's scale.
    mask
        uint8 (H, W): bit n is set where label n is.
    known
        Labels that the mask tells; the others count nowhere.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    known: tuple[int, ...]


def grade(classifier: Classifier, photographs: Iterable[Path]) -> NDArray[np.float32]:
    """Grade photographs through the product's own preprocessing; float32 (n, grades).

    Raises
    ------
    PictureError
        One is no image.
    NotFundusError
        One shows no retina.
    """
    rows = []
    for path in photographs:
        rgb = read_rgb(path)
        with naming(path):
            rows.append(classifier.photograph(rgb))
    return np.stack(rows).astype(np.float32)


def read_masked(image: Path, mask: Path, segmenter: Segmenter) -> Masked:
    """Read a photograph and its mask, and bring both to the segmenter's scale.

    Raises
    ------
    UsageError
        The mask is missing, of another size than the photograph, or has bits of no label.
    PictureError
        One of them is no image, or the mask has more than one channel of 8 bits.
    NotFundusError
        The photograph shows no retina.
    """
    labels = len(segmenter.bundle.labels)
    rgb = read_rgb(image)
    if not mask.is_file():
        raise UsageError(
            f"{mask}: no mask of {image.name}",
            "a black one says that there are no lesions in the photograph",
        )
    bits = read_bits(mask)
    if bits.shape != rgb.shape[:2] or int(bits.max()) >> labels:
        raise UsageError(
            f"{mask}: not a mask of {image.name}: "
            f"{rgb.shape[1]} x {rgb.shape[0]} px and bits 0 to {labels - 1} are wanted",
            "bit n of a px is set where it carries label n of the bundle",
        )
    with naming(image):
        small, plane = retina_at(rgb, segmenter.bundle.input_size, bits)
    assert plane is not None
    return Masked(small, plane, tuple(range(labels)))


def measure_segmenter(segmenter: Segmenter, photographs: Iterable[Masked]) -> dict[str, Any]:
    """Dice and AUPR of each label, and what is marked in photographs without any lesion.

    Parameters
    ----------
    segmenter
        Looks at each photograph.
    photographs
        One at a time, so that any number fits in memory.

    Returns
    -------
    dict
        By label, ``n`` photographs that tell it, ``dice`` at the segmenter's threshold and
        ``aupr``, over all px at once; ``healthy``, where there are any: ``n`` photographs without
        lesions, mean ``marked_share`` of px that are marked as lesions, and how many are
        ``without_any``.
    """
    labels, lesions = segmenter.bundle.labels, segmenter.lesion_labels
    tallies, told = [Tally() for _ in labels], [0] * len(labels)
    shares = []
    for one in photographs:
        scores = segmenter.scores(one.image)
        planes = [one.mask >> bit & 1 for bit in range(len(labels))]
        for bit in one.known:
            tallies[bit].add(scores[bit], planes[bit].astype(bool))
            told[bit] += 1
        if not any(planes[bit].any() for bit in lesions):
            marked = (scores[lesions] >= segmenter.threshold).any(0)
            shares.append(float(marked.mean()))
    figures: dict[str, Any] = {
        label: {"n": n, **tally.figures(segmenter.threshold)}
        for label, tally, n in zip(labels, tallies, told, strict=True)
    }
    if shares:
        figures["healthy"] = {
            "n": len(shares),
            "marked_share": round(float(np.mean(shares)), 6),
            "without_any": sum(share == 0 for share in shares),
        }
    return figures
