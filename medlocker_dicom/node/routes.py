"""Which route an object takes."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from medlocker_dicom.dicom.elements import text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from medlocker_dicom.node.config import NodeConfig, Route


@dataclass(frozen=True)
class Facts:
    """What routes ask of an object; empty where it does not say.

    Attributes
    ----------
    calling_ae_title
        Who sent it.
    sop_class
        SOP Class UID.
    modality, station_name, laterality
        Values of its elements; laterality is Image Laterality, else Laterality.
    """

    calling_ae_title: str
    sop_class: str
    modality: str
    station_name: str
    laterality: str


def facts_of(calling_ae_title: str, sop_class: str, ds: Dataset) -> Facts:
    """Read what routes ask from an object's header."""
    return Facts(
        calling_ae_title,
        sop_class,
        text(ds, "Modality"),
        text(ds, "StationName"),
        text(ds, "ImageLaterality") or text(ds, "Laterality"),
    )


def route_for(config: NodeConfig, facts: Facts) -> Route | None:
    """Give the first route that matches; None where none does."""
    return next((route for route in config.routes if _matches(route, facts)), None)


def _matches(route: Route, facts: Facts) -> bool:
    """Tell whether each list of the route that is given names the object's value."""
    return all(
        not patterns or any(fnmatchcase(getattr(facts, name), one) for one in patterns)
        for name, patterns in route.match
    )
