"""The models of a run, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medlocker_dicom.bundles.bundle import (
    bundle_folders,
    check_trust,
    find_bundle,
    list_bundles,
)
from medlocker_dicom.bundles.device import chosen_device
from medlocker_dicom.bundles.engine import OnnxEngine
from medlocker_dicom.bundles.models import Classifier, Ensemble, Segmenter
from medlocker_dicom.errors import BundleMissingError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from medlocker_dicom.bundles.bundle import Bundle

SEGMENTER = "lesion_segmenter"
#: Classifiers that are asked where none are named: those that are quick to ask.
QUICK = ("resnet18", "mobilenetv3")
ALL = "all"


def load_models(
    names: Sequence[str], folder: Path | None = None, trusted: Collection[str] = ()
) -> tuple[Ensemble, Segmenter]:
    """Load classifiers and the lesion segmenter, for the device that `chosen_device` tells.

    Parameters
    ----------
    names
        Bundles or architectures. None means every classifier of the user's own folders, or where
        these have none, the quick ones of the shipped; ``all`` alone means every classifier.
    folder
        Looked into before the shipped bundles.
    trusted
        Names of bundles that may run code.

    Raises
    ------
    BundleError
        One is missing, damaged, or of the wrong kind.
    UsageError
        A trusted name is not among them, or there is no such device.
    """
    bundles, segmenter = find_models(names, folder, trusted)
    device = chosen_device()
    ensemble = Ensemble([Classifier(bundle, OnnxEngine(bundle), device) for bundle in bundles])
    return ensemble, Segmenter(segmenter, OnnxEngine(segmenter))


def find_models(
    names: Sequence[str], folder: Path | None = None, trusted: Collection[str] = ()
) -> tuple[list[Bundle], Bundle]:
    """Find the bundles of classifiers and of the segmenter, and load none; as `load_models`."""
    chosen_device()
    folders = bundle_folders(folder)
    bundles = _chosen(names, folders, trusted)
    segmenter = find_bundle(SEGMENTER, folders, trusted)
    check_trust(trusted, [*bundles, segmenter])
    return bundles, segmenter


def _chosen(names: Sequence[str], folders: list[Path], trusted: Collection[str]) -> list[Bundle]:
    if names and list(names) != [ALL]:
        return [find_bundle(name, folders, trusted) for name in names]
    searched = folders if names else folders[:-1]
    found = [b for b in list_bundles(searched, trusted) if b.kind == "dr-classifier"]
    if found:
        return found
    if names:
        raise BundleMissingError(f"no classifier bundles in {', '.join(map(str, searched))}")
    return [find_bundle(name, folders, trusted) for name in QUICK]
