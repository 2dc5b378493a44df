"""Lock photographs under several conditions, ask every model, and attack what came out."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from medlocker_dicom.bundles.device import CPU
from medlocker_dicom.bundles.models import Ensemble
from medlocker_dicom.bundles.picture import read_rgb
from medlocker_dicom.bundles.preprocess import crop_to_retina
from medlocker_dicom.dicom.reading import naming
from medlocker_dicom.errors import DestinationError, NoFeasiblePositionError, UsageError
from medlocker_dicom.evaluation.attacks import (
    ATTACKS_VERSION,
    FEWEST,
    attacked,
    logo_on,
    matted,
)
from medlocker_dicom.evaluation.results import Results, Row, key_of
from medlocker_dicom.files import sha256_of, write_file
from medlocker_dicom.keyfile import Identity, Kem
from medlocker_dicom.lesions.fov import field_of_view
from medlocker_dicom.pipeline.lock import Locker, lock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from medlocker_dicom.bundles.models import Classifier, Segmenter
    from medlocker_dicom.evaluation.cases import Case
    from medlocker_dicom.pipeline.policy import Policy
    from medlocker_dicom.pipeline.record import FrameRecord
    from medlocker_dicom.watermark.logo import Logo

#: Raised whenever rows would mean something else: older ones are not taken for new.
VERSION = 5
#: px of the retina at which similarity is measured, and of the pictures that are kept.
LOOK = 512
#: What every row has, and every row of a lock.
_OF_A_ROW = {"image", "grade", "feasible"}
_OF_A_LOCK = {
    *("sources", "clean", "locked", "placement", "logo_size", "boxes", "true_lesions"),
    *("forward_passes", "seconds", "ssim", "covered_retina"),
    *("lesion_px", "covered_lesion_px", "covered_box_px"),
}
#: Locks for nobody: the same dither, hence the same figures, in every run.
_NOBODY = Identity(Kem.X25519, b"\1" * 32, b"\2" * 32, b"\3" * 32)


@dataclass(frozen=True)
class Condition:
    """One way to lock.

    Attributes
    ----------
    name
        Of no other condition of the study.
    sources
        Names of the models that the search asks.
    policy
        The rest.
    segmented
        Whether the lesions to avoid are those that the segmenter marks even where the true ones
        are known, which are what is counted as covered.
    """

    name: str
    sources: tuple[str, ...]
    policy: Policy
    segmented: bool = False


@dataclass(frozen=True)
class Study:
    """Photographs x conditions, each row kept as soon as it is found.

    Attributes
    ----------
    cases
        Photographs to draw from.
    classifiers
        By name: all that are asked, searched against or not.
    segmenter
        Finds lesions where no one marked the true ones.
    conditions
        What is compared, on the same photographs.
    folder
        Gets ``rows.jsonl``, and a small picture of every lock in ``pictures/``.
    logo
        At its own size.
    each
        Most photographs of a grade.
    seed
        Of the draw.
    attacks
        Whether the removal attacks are run as well.
    """

    cases: Sequence[Case]
    classifiers: Mapping[str, Classifier]
    segmenter: Segmenter
    conditions: Sequence[Condition]
    folder: Path
    logo: Logo
    each: int
    seed: int
    attacks: bool = False
    rows: list[Row] = field(default_factory=list)
    _ensembles: dict[tuple[str, ...], Ensemble] = field(default_factory=dict, repr=False)

    @property
    def nowhere(self) -> int:
        """Number of rows whose logo had no position."""
        return sum(not row["feasible"] for row in self.rows)

    def ensemble(self, names: tuple[str, ...]) -> Ensemble:
        """Give the models of these names, voting together; loaded once."""
        if names not in self._ensembles:
            self._ensembles[names] = Ensemble([self.classifiers[name] for name in names])
        return self._ensembles[names]

    def draw(self) -> Iterator[Case | None]:
        """Draw photographs that every model grades correctly, evenly over the grades.

        Yields a photograph, or None for one that was looked at in vain.

        Raises
        ------
        SourceError
            A photograph cannot be read.
        """
        order = np.random.default_rng(self.seed).permutation(len(self.cases))
        drawn_so_far: dict[int, int] = defaultdict(int)
        with Results(self.folder / "grades.jsonl") as results:
            for case in (self.cases[n] for n in order):
                if drawn_so_far[case.grade] >= self.each:
                    continue
                content, models = _content(case), self.classifiers.values()
                right = all(_asked(results, case, content, one) == case.grade for one in models)
                drawn_so_far[case.grade] += right
                yield case if right else None

    def run(self, drawn_cases: Sequence[Case]) -> Iterator[tuple[int, int]]:
        """Fill ``rows``: one for each photograph and condition; yields how many are done of all.

        Raises
        ------
        SourceError
            A photograph cannot be read.
        OutputError
            A row cannot be kept.
        """
        total = len(drawn_cases) * len(self.conditions)
        self.rows.clear()
        with Results(self.folder / "rows.jsonl") as results:
            for case in drawn_cases:
                for row in self._rows_of(case, results):
                    self.rows.append(row)
                    yield len(self.rows), total
            if self.attacks:
                for condition in self.conditions:
                    self._matted(condition, {case.name: case for case in drawn_cases}, results)

    def _matted(self, condition: Condition, cases: Mapping[str, Case], results: Results) -> None:
        """Attack all locks of a condition with logos of one size at once; adds to their rows."""
        by_size: dict[tuple[int, ...], list[Row]] = defaultdict(list)
        for row in self.rows:
            if row["condition"] == condition.name and row["feasible"]:
                by_size[tuple(row["logo_size"])].append(row)
        for rows in by_size.values():
            if len(rows) < FEWEST:
                continue
            rows.sort(key=itemgetter("key"))
            key = key_of("matting", *(row["key"] for row in rows))
            found = results.get(key)
            if found is None:
                together = [cases[row["image"]] for row in rows]
                found = results.put(key, {"rows": self._matted_alike(condition, together, rows)})
            for row, one in zip(rows, found["rows"], strict=True):
                row["attacks"] = row["attacks"] | {"A3 matting": one}

    def _matted_alike(
        self, condition: Condition, cases: Sequence[Case], rows: Sequence[Row]
    ) -> list[dict[str, Any]]:
        clean = [case.fundus().display(0) for case in cases]
        locked = [read_rgb(self.folder / row["locked_picture"]) for row in rows]
        logos = [
            logo_on(self.logo, condition.policy, one, tuple(row["logo_size"]))
            for one, row in zip(clean, rows, strict=True)
        ]
        places = [(row["placement"][0], row["placement"][1]) for row in rows]
        return matted(list(zip(clean, locked, strict=True)), logos, places, self.asked)

    def asked(self, squares: Sequence[NDArray[np.uint8]]) -> dict[str, list[float]]:
        """Ask every model about views of a retina, uint8 (S, S, 3) each; the mean over them."""
        return {
            name: one.probabilities(np.stack(squares)).mean(0).round(5).tolist()
            for name, one in self.classifiers.items()
        }

    def _rows_of(self, case: Case, results: Results) -> Iterator[Row]:
        content = _content(case)
        shown: _Shown | None = None
        for condition in self.conditions:
            key = self._key(condition, case, content)
            row = results.get(key)
            if row is None or not self._whole(row):
                shown = shown or _Shown(self, case)
                with naming(case.path):
                    row = results.put(key, shown.row(condition, key))
            yield row | {"condition": condition.name, "picture": f"pictures/{key}.jpg"}

    def _whole(self, row: Row) -> bool:
        """Whether what is to be attacked together with others is still there.

        Raises
        ------
        DestinationError
            The row is none of ours.
        """
        missing = _OF_A_ROW - row.keys() or (row["feasible"] and _OF_A_LOCK - row.keys())
        if missing:
            raise DestinationError(
                f"{self.folder}: holds rows that are not what an evaluation writes",
                "name another folder",
            )
        picture = row.get("locked_picture")
        return picture is None or (self.folder / picture).is_file()

    def _key(self, condition: Condition, case: Case, content: str) -> str:
        models = sorted(f"{n} {c.bundle.weights_sha256}" for n, c in self.classifiers.items())
        models += sorted({str(c.device) for c in self.classifiers.values()} - {str(CPU)})
        words = (condition.policy.digest, " ".join(condition.sources), self.logo.sha256.hex())
        attacks = str(self.attacks and ATTACKS_VERSION)
        rest = [self.segmenter.bundle.weights_sha256, attacks, content]
        if condition.segmented and case.masks is not None:
            rest.append("segmented")
        return key_of(str(VERSION), *words, *models, *rest)


class _Shown:
    """One photograph on its way through the conditions."""

    def __init__(self, study: Study, case: Case) -> None:
        self.study, self.case = study, case
        with naming(case.path):
            self.source = case.fundus()
            self.clean = self.source.display(0)
            self.truth = case.lesions(self.clean.shape)
            self.lesions = self.segmented if self.truth is None else self.truth
            self.retina = field_of_view(self.clean)
        self.before = self._probabilities(self.clean)

    @cached_property
    def segmented(self) -> NDArray[np.bool_]:
        """Lesions that the segmenter marks, bool (H, W)."""
        return self.study.segmenter.lesions(self.clean)

    def row(self, condition: Condition, key: str) -> Row:
        """Lock, ask, measure, attack."""
        head = {
            "image": self.case.name,
            "grade": self.case.grade,
            "true_lesions": self.truth is not None,
        }
        lesions = self.segmented if condition.segmented else self.lesions
        locker = Locker(
            condition.policy,
            self.study.ensemble(condition.sources),
            lambda _: lesions,
            self.study.logo,
            _NOBODY,
            (_NOBODY.public,),
        )
        started = time.monotonic()
        try:
            result = lock(self.source, locker, now=datetime.now(UTC), label=self.case.grade)
        except NoFeasiblePositionError:
            return head | {"feasible": False}
        seconds = time.monotonic() - started
        record = result.record.frames[0]
        locked = replace(self.source, pixels=result.pixels).display(0)
        after = self._probabilities(locked)
        _keep_picture(locked, self.study.folder / "pictures" / f"{key}.jpg")
        row: dict[str, Any] = head | {
            "feasible": True,
            "sources": list(condition.sources),
            "clean": self.before,
            "locked": after,
            "placement": record.placement,
            "logo_size": record.logo_size,
            "boxes": len(record.boxes),
            "forward_passes": record.forward_passes,
            "seconds": round(seconds, 3),
        }
        row |= self._seen(locked, record)
        if self.study.attacks:
            logo = logo_on(self.study.logo, condition.policy, locked, record.logo_size)
            place = record.placement[:2]
            row["locked_picture"] = f"pictures/{key}.png"  # to be attacked together with others
            write_file(self.study.folder / row["locked_picture"], _png(locked))
            row["attacks"] = attacked((self.clean, locked), logo, place, self.study.asked)
        return row

    def _seen(self, locked: NDArray[np.uint8], record: FrameRecord) -> Row:
        """Tell what the logo hides: shares of the retina and its lesions, and its similarity."""
        (x, y, _), (width, height) = record.placement, record.logo_size
        under = np.zeros(self.retina.shape, np.bool_)
        window = np.s_[y : y + height, x : x + width]
        under[window] = (locked[window] != self.clean[window]).any(-1)
        pair = [crop_to_retina(one, LOOK) for one in (self.clean, locked)]
        similarity = structural_similarity(*pair, channel_axis=-1)  # type: ignore[no-untyped-call]  # as skimage ships it
        boxes = [under[top : top + h, left : left + w] for left, top, w, h in record.boxes]
        return {
            "ssim": round(float(similarity), 4),
            "covered_retina": round(float(under[self.retina].mean()), 5),
            "lesion_px": int(self.lesions.sum()),
            "covered_lesion_px": int(self.lesions[under].sum()),
            "covered_box_px": sum(int(box.sum()) for box in boxes),
        }

    def _probabilities(self, photograph: NDArray[np.uint8]) -> dict[str, list[float]]:
        """Ask every model about a photograph uint8 (H, W, 3)."""
        return {
            name: one.photograph(photograph).round(5).tolist()
            for name, one in self.study.classifiers.items()
        }


def _asked(results: Results, case: Case, content: str, classifier: Classifier) -> int:
    """Grade a photograph, or remember its grade."""
    key = key_of(classifier.bundle.weights_sha256, content)
    row = results.get(key)
    if row is None:
        with naming(case.path):
            chances = classifier.photograph(case.fundus().display(0))
        name = classifier.bundle.name
        row = {"image": case.name, "model": name, "grade": int(chances.argmax())}
        results.put(key, row)
    grade = row.get("grade")
    if not isinstance(grade, int):
        raise DestinationError(
            f"{case.name}: its grade by {classifier.bundle.name} is kept as {grade!r}",
            "name another folder for the report",
        )
    return grade


def _content(case: Case) -> str:
    digests = [sha256_of(path) for path in (case.path, *(case.masks or ()))]
    if None in digests:
        raise UsageError(f"{case.path}: cannot be read", "look at its permissions")
    return " ".join([case.name, str(case.grade), *map(str, digests)])


def _png(rgb: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()


def _keep_picture(locked: NDArray[np.uint8], path: Path) -> None:
    small = crop_to_retina(locked, LOOK // 2)
    data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    write_file(path, data.tobytes())
