"""Peers: delivered graders that teach another architecture.

They cost no training of a teacher: the first gives its maps, all give their grades.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from medlocker_dicom.bundles.bundle import build_network, bundle_folders, find_bundle
from medlocker_dicom.bundles.networks import channels_last
from medlocker_dicom.training.features import Feature, channels_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medlocker_dicom.bundles.bundle import Bundle


@dataclass(frozen=True)
class Peers:
    """Which bundles teach.

    Attributes
    ----------
    bundles
        Of graders, at least one.
    layers
        Four submodules of the first, whose maps are at 1/4, 1/8, 1/16 and 1/32 of the side.
    """

    bundles: tuple[Bundle, ...]
    layers: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over that of every bundle's weights, hexadecimal."""
        weights = " ".join(bundle.weights_sha256 for bundle in self.bundles)
        return hashlib.sha256(weights.encode()).hexdigest()

    def load(self, device: torch.device) -> PeerTeacher:
        """Load their networks, ready to teach."""
        teacher = PeerTeacher(self)
        channels_last(teacher, device)
        return teacher.eval()


def find_peers(names: Sequence[str], layers: Sequence[str]) -> Peers:
    """Find the bundles of these names.

    Raises
    ------
    BundleError
        One is missing or damaged.
    """
    folders = bundle_folders()
    return Peers(tuple(find_bundle(name, folders) for name in names), tuple(layers))


class PeerTeacher(nn.Module):
    """Peers in the place of ``teacher.Teacher``."""

    def __init__(self, peers: Peers) -> None:
        super().__init__()
        self._bundles = peers.bundles
        self.networks = nn.ModuleList(build_network(bundle) for bundle in peers.bundles)
        self.requires_grad_(requires_grad=False)
        self._features = [Feature(self.networks[0], name) for name in peers.layers]
        size = peers.bundles[0].input_size
        self.channels = channels_of(self.networks[0], self._features, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map float32 (B, 3, S, S) to the logarithms (B, 5) of their mean probabilities."""
        chances = []
        for bundle, network in zip(self._bundles, self.networks, strict=True):
            size = (bundle.input_size, bundle.input_size)
            shown = functional.interpolate(x, size, mode="bilinear", antialias=True)
            chances.append((network(shown).float() / bundle.temperature).softmax(1))
        return torch.stack(chances).mean(0).log()

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Give the first one's maps (B, C, S/r, S/r) for C of ``channels``."""
        self.networks[0](x)
        return [feature.map() for feature in self._features]
