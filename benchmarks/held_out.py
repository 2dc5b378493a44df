"""The photographs that benchmarks lock: held out from training, of natural colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medlocker_dicom.evaluation.cases import Case
from medlocker_dicom.training.photographs import EQUALISED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from medlocker_dicom.training.photographs import Graded


def held_out(items: Iterable[Graded]) -> list[Case]:
    """Pick them, as cases of a study."""
    return [
        Case(f"{item.source}/{item.path.name}", item.path, item.grade)
        for item in items
        if item.validation and item.source != EQUALISED
    ]
