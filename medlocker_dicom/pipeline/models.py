"""The models of a run, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medlocker_dicom.bundles.bundle import (
    bundle_folders,
    check_trust,
    find_bundle,
    list_bundles,
)
from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.bundles.models import Classifier, Ensemble, Segmenter
from medlocker_dicom.errors import BundleMissingError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

SEGMENTER = "lesion_segmenter"


def load_models(
    names: Sequence[str], folder: Path | None = None, trusted: Collection[str] = ()
) -> tuple[Ensemble, Segmenter]:
    """Load classifiers and the lesion segmenter.

    Parameters
    ----------
    names
        Bundles or architectures; none means every classifier that is found.
    folder
        Looked into before the shipped bundles.
    trusted
        Names of bundles that may run code.

    Raises
    ------
    BundleError
        One is missing, damaged, or of the wrong kind.
    UsageError
        A trusted name is not among them.
    """
    folders = bundle_folders(folder)
    if names:
        bundles = [find_bundle(name, folders, trusted) for name in names]
    else:
        bundles = [b for b in list_bundles(folders, trusted) if b.kind == "dr-classifier"]
    if not bundles:
        raise BundleMissingError(
            f"no classifier bundles in {', '.join(map(str, folders))}",
            "name a folder of bundles by --bundles",
        )
    ensemble = Ensemble([Classifier(bundle, OnnxEngine(bundle)) for bundle in bundles])
    segmenter = find_bundle(SEGMENTER, folders, trusted)
    check_trust(trusted, [*bundles, segmenter])
    return ensemble, Segmenter(segmenter, OnnxEngine(segmenter))
