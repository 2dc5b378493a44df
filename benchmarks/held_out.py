"""The photographs that benchmarks lock: held out from training, of natural colour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medlocker_dicom.bundles.preprocess import retina_crop
from medlocker_dicom.evaluation.cases import Case
from medlocker_dicom.lesions.fov import field_of_view
from medlocker_dicom.lesions.positions import Mode, feasible_positions
from medlocker_dicom.pipeline.canvas import Canvas
from medlocker_dicom.search import Feasible
from medlocker_dicom.training.photographs import EQUALISED
from medlocker_dicom.watermark.png import default_logo
from medlocker_dicom.watermark.scale import scale_logo
from medlocker_dicom.watermark.style import AS_IT_IS, Look, drawn

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


def anywhere(case: Case, size: int, sl: float, look: Look = AS_IT_IS) -> tuple[Canvas, Feasible]:
    """Lay a photograph and the logo out at the models' size in px; and where the logo may lie."""
    rgb = case.fundus().display(0)
    height, width = rgb.shape[:2]
    logo = scale_logo(default_logo(), width, height, sl)
    allowed = feasible_positions(field_of_view(rgb), (logo.width, logo.height), (), Mode.ANYWHERE)
    canvas = Canvas(rgb, retina_crop(rgb), size, drawn(logo, look, width), bytes(32))
    return canvas, Feasible.from_map(canvas.allowed(allowed))
