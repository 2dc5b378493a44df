"""What the owner learns of each locked instance; plain values, ready for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ModelRecord:
    """One model's answers.

    Attributes
    ----------
    name
        Bundle name.
    clean, locked
        Probabilities of each class, for the original and the locked photograph, both through
        the model's own preprocessing of the full image.
    """

    name: str
    clean: tuple[float, ...]
    locked: tuple[float, ...]


@dataclass(frozen=True)
class FrameRecord:
    """How one frame was locked.

    Attributes
    ----------
    placement
        x, y in px of the image, alpha.
    logo_size
        Width and height in px.
    boxes
        Lesion boxes: x, y, width, height in px.
    lesion_px, covered_lesion_px
        Px that the segmenter marked; those of them under the logo.
    label
        Class that the search led away from.
    label_given
        True if it was the owner's, False if the ensemble's own.
    models
        Each model's answers.
    clean_grade, locked_grade
        The ensemble's decisions.
    queries, requests, forward_passes
        Distinct candidates of the search; with repeats; computed. A gradient counts as three
        passes.
    verified
        Candidates judged again at full size; neither `queries` nor `forward_passes` counts them.
    canvas_flipped
        Whether the best candidate turned the ensemble at the search's scale.
    legibility
        How much of the logo's strokes is seen, by `medlocker_dicom.watermark.legibility`.
    history
        (queries, probability of the label) at each improvement; last, where the lock has a list
        of opacities, (forward passes, the probability that it leaves at full size).
    """

    placement: tuple[int, int, int]
    logo_size: tuple[int, int]
    boxes: tuple[tuple[int, int, int, int], ...]
    lesion_px: int
    covered_lesion_px: int
    label: str
    label_given: bool
    models: tuple[ModelRecord, ...]
    clean_grade: str
    locked_grade: str
    queries: int
    requests: int
    forward_passes: int
    verified: int
    canvas_flipped: bool
    legibility: float
    history: tuple[tuple[int, float], ...]

    @property
    def flipped(self) -> bool:
        """Whether the ensemble decides otherwise on the locked image than on the clean one."""
        return self.clean_grade != self.locked_grade


@dataclass(frozen=True)
class InstanceRecord:
    """How one instance was locked.

    Attributes
    ----------
    source_sop_instance_uid, locked_sop_instance_uid
        Of the instance.
    study_instance_uid
        Of both.
    source_series_instance_uid, locked_series_instance_uid
        Of its series.
    seconds
        Spent on it.
    frames
        One record a frame.
    """

    source_sop_instance_uid: str
    locked_sop_instance_uid: str
    study_instance_uid: str
    source_series_instance_uid: str
    locked_series_instance_uid: str
    seconds: float
    frames: tuple[FrameRecord, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings; adds ``flipped`` to each frame."""
        value = asdict(self)
        for frame, plain in zip(self.frames, value["frames"], strict=True):
            plain["flipped"] = frame.flipped
        return value
