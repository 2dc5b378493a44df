"""One frame on its way through WSM, search and blend, in reading order."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from medlocker_dicom.bundles.gradients import View, draw_view
from medlocker_dicom.bundles.preprocess import retina_crop
from medlocker_dicom.errors import NoFeasiblePositionError, NoGradientError
from medlocker_dicom.lesions.boxes import Box, lesion_boxes
from medlocker_dicom.lesions.fov import field_of_view
from medlocker_dicom.lesions.positions import feasible_positions
from medlocker_dicom.pipeline.canvas import Canvas
from medlocker_dicom.pipeline.compose import blend_into, compose
from medlocker_dicom.pipeline.population import asked
from medlocker_dicom.pipeline.record import FrameRecord, ModelRecord
from medlocker_dicom.search import (
    ALPHA_LIST,
    Evaluator,
    Feasible,
    Genes,
    ListParameters,
    Objective,
    SearchResult,
    Stop,
    evolve_list,
    optimise,
    search,
)
from medlocker_dicom.search.evaluator import MAXIMUM_BATCH
from medlocker_dicom.search.objective import checked, margin_of
from medlocker_dicom.watermark.alpha import CELLS, pack_grid
from medlocker_dicom.watermark.legibility import legibility
from medlocker_dicom.watermark.scale import scale_logo
from medlocker_dicom.watermark.style import drawn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medlocker_dicom.dicom.decoding import Pixels
    from medlocker_dicom.dicom.fundus import Fundus
    from medlocker_dicom.keyfile import FrameMark
    from medlocker_dicom.pipeline.compose import Covered
    from medlocker_dicom.pipeline.lock import Locker
    from medlocker_dicom.search import Outcome
    from medlocker_dicom.watermark.logo import Logo
    from medlocker_dicom.watermark.placement import Placement

#: Candidates of a search that are composed and judged again at full size.
VERIFIED = 8
#: Flips of the canvas that are asked about at full size, before one ends a search all the same.
ASKED = 32
#: Of an alpha list's passes, the share that goes to its place; and what is enough for one list,
#: place included. Twice its share and more go to lists at other places, as long as none leads by
#: the policy's margin.
PLACES, ENOUGH = 0.4, 120
#: How far such places are apart, in logos.
APART = 0.5
#: What the models see of the canvas where no pipeline stands in between.
CLEAN = View()
#: What a gradient counts in forward passes.
GRADIENT = 3
#: How much of a list's relief is kept, until the logo can be read.
FLATTER = (1.0, 0.75, 0.5, 0.25)


class Frame:
    """One frame on its way through WSM, search and blend.

    Parameters
    ----------
    source, number
        The instance, and which of its frames.
    digest
        SHA-256 of the instance's pixels.
    locker
        How.
    label
        The true grade where it is known.
    """

    def __init__(
        self, source: Fundus, number: int, digest: bytes, locker: Locker, label: int | None
    ) -> None:
        self.source, self.number, self.locker, self.label = source, number, locker, label
        self.display = source.display(number)
        self.clean = locker.ensemble.photograph(self.display)
        self.decision = int((locker.ensemble.weights @ self.clean).argmax())
        self.target = self.decision if label is None else label
        self.seed = locker.issuer.derive(
            "dither", str(source.ds.SOPInstanceUID), str(number), digest
        )
        # The instance's UID enters the seed: equal photographs need not get equal locks.
        uid = str(source.ds.SOPInstanceUID).encode()
        self.draws = np.random.default_rng([locker.policy.seed, number, *uid])
        self.passes = 0
        self._judged: dict[Placement, tuple[float, NDArray[np.float64]]] = {}

    def lock(self, pixels: Pixels) -> tuple[FrameMark, Logo, FrameRecord]:
        """Lock the frame's pixels (H, W, C) in place."""
        lesions = self.locker.lesions(self.display)
        boxes = lesion_boxes(lesions)
        canvas, logo, feasible = self.feasible_canvas(boxes)
        found = self.search(canvas, logo, feasible)
        history = [(i.queries, round(i.outcome.probability, 5)) for i in found.history]
        placements = self.placements(canvas, logo, found)
        placement, after = self.verified(placements, logo)
        mark = blend_into(pixels, placement, logo, self.seed, self.source.bits)
        under = np.s_[
            placement.y : placement.y + logo.height, placement.x : placement.x + logo.width
        ]
        ensemble = self.locker.ensemble
        mean, passes = ensemble.weights @ after, found.forward_passes + self.passes
        if placement.grid:
            history.append((passes, round(float(mean[self.target]), 5)))
        record = FrameRecord(
            placement=(placement.x, placement.y, placement.alpha),
            logo_size=(logo.width, logo.height),
            boxes=tuple((b.x, b.y, b.width, b.height) for b in boxes),
            lesion_px=int(lesions.sum()),
            covered_lesion_px=int((lesions[under] & (logo.alpha > 0)).sum()),
            label=ensemble.labels[self.target],
            label_given=self.label is not None,
            models=tuple(
                ModelRecord(c.bundle.name, tuple(before.tolist()), tuple(now.tolist()))
                for c, before, now in zip(ensemble.classifiers, self.clean, after, strict=True)
            ),
            clean_grade=ensemble.labels[self.decision],
            locked_grade=ensemble.labels[int(mean.argmax())],
            queries=found.queries,
            requests=found.requests,
            forward_passes=passes,
            verified=len(self._judged),
            canvas_flipped=found.flipped,
            legibility=round(self.legibility(placement, logo), 4),
            history=tuple(history),
        )
        return mark, logo, record

    def feasible_canvas(self, boxes: tuple[Box, ...]) -> tuple[Canvas, Logo, Feasible]:
        """Find the largest logo that has a feasible position (WSM step 5)."""
        policy = self.locker.policy
        height, width = self.display.shape[:2]
        retina, crop = field_of_view(self.display), retina_crop(self.display)
        for sl in policy.sizes():
            logo = scale_logo(self.locker.logo, width, height, sl)
            everywhere = feasible_positions(retina, (logo.width, logo.height), boxes, policy.mode)
            if not everywhere.any():
                continue
            logo = drawn(logo, policy.look, width)
            size, channels = self.locker.ensemble.size, self.source.pixels.shape[-1]
            canvas = Canvas(self.display, crop, size, logo, self.seed, channels=channels)
            allowed = canvas.allowed(everywhere)
            if allowed.any():
                return canvas, logo, Feasible.from_map(allowed)
        raise NoFeasiblePositionError(
            f"no position in mode {policy.mode} for a logo down to 1/{policy.smallest_sl:g} of the"
            f" width, with {len(boxes)} lesion boxes",
            "hold the instance, or choose --mode anywhere if lesions may be covered",
        )

    def search(self, canvas: Canvas, logo: Logo, feasible: Feasible) -> SearchResult:
        """Search on the canvas (eq. 3-6, 8), up to what turns the grade at full size too."""
        policy = self.locker.policy
        listing = policy.strategy == ALPHA_LIST
        stop = Stop.at_margin(policy.margin) if policy.margin > 0 else Stop.FIRST_FLIP
        places = math.ceil(PLACES * min(policy.budget, ENOUGH))
        keep = max(policy.parameters.keep, places)
        parameters = replace(policy.parameters, canvas_width=canvas.size, keep=keep)
        batch = policy.batch_size
        if self.locker.ensemble.on_device is not None:
            batch = min(max(batch, parameters.population), MAXIMUM_BATCH)

        def holds(genes: Genes) -> bool:
            enough = len(self._judged) >= ASKED
            return enough or self.judged(canvas.placement(*genes), logo)[0] > 0

        evaluator = Evaluator(
            asked(self.locker.ensemble, canvas),
            self.target,
            batch_size=batch,
            budget=places if listing else policy.budget,
            stop=Stop.NEVER if listing else stop,
            objective=Objective.MARGIN if policy.strategy == "guided" else Objective.PROBABILITY,
            holds=holds,
        )
        strategy = "guided" if listing else policy.strategy
        return search(strategy, evaluator, feasible, self.draws, parameters)

    def loss(self, image: NDArray[np.float32]) -> float:
        """Ask by how much the target leads on a canvas."""
        mean = self.locker.ensemble.probabilities(np.rint(image).astype(np.uint8)[None])[0]
        self.passes += 1
        return -margin_of(mean, self.target)

    def placements(self, canvas: Canvas, logo: Logo, found: SearchResult) -> list[Placement]:
        """Bring the best candidates to the photograph; with a list of its own, where wanted."""
        best = found.candidates[:VERIFIED]
        plain = [canvas.placement(*candidate.genes) for candidate in best]
        policy = self.locker.policy
        left = policy.budget - found.forward_passes
        if policy.strategy != ALPHA_LIST or left < GRADIENT:
            return plain
        lists = max(1, int(left / (ENOUGH * (1 - PLACES))))
        starts = far_apart(found.candidates, APART * max(canvas.logo_size))[:lists]
        listed: list[Placement] = []
        for start in starts:
            made = self.listed(canvas, logo, start, left // len(starts))
            if made is not None:
                listed.append(made)
                if self.judged(made, logo)[0] > policy.margin:
                    break
        return [*listed, *plain[:2]] if listed else plain

    def listed(self, canvas: Canvas, logo: Logo, start: Genes, passes: int) -> Placement | None:
        """Give the placement with the list that is found at one place, as legible as it must be."""
        cells, nodes = self.alpha_list(canvas, start, passes)
        for share in FLATTER:
            flat = flattened(nodes, share)
            grid = pack_grid(cells, flat)
            placement = canvas.placement(round(flat.mean()), start.x, start.y, grid)
            if self.legibility(placement, logo) >= self.locker.policy.legibility:
                return placement
        return None

    def alpha_list(
        self, canvas: Canvas, start: Genes, passes: int
    ) -> tuple[int, NDArray[np.uint8]]:
        """Search the list at one place: a grid's cells, and its nodes."""
        ensemble = self.locker.ensemble
        models = len(ensemble.classifiers)
        away = ensemble.gradients.away_from(self.target)

        def gradient(image: NDArray[np.float32]) -> NDArray[np.float32]:
            """Ask one model; once turned, every second round through a stranger's pipeline."""
            through = away.turns // models % 2 and away.turned
            return away(image, draw_view(self.draws) if through else CLEAN)

        parameters = ListParameters(steps=passes * models // GRADIENT)
        finest = max(*canvas.logo_size, min(CELLS))  # finer cells would not be seen
        parameters = replace(parameters, cells=min(parameters.cells, finest))
        try:
            nodes = optimise(canvas, gradient, start, parameters)
        except NoGradientError:
            spent = GRADIENT * (away.turns - 1) // models  # the last one told nothing
            self.passes += spent
            parameters = ListParameters(steps=passes - spent)
            nodes = evolve_list(canvas, self.loss, start, parameters, self.draws)
            return parameters.blind_cells, nodes
        self.passes += math.ceil(GRADIENT * away.turns / models)
        return parameters.cells, nodes

    def composed(self, placement: Placement, logo: Logo) -> tuple[Pixels, Covered]:
        """Blend at full size: a copy of the frame (H, W, C), and what is under the logo."""
        pixels = self.source.pixels[self.number].copy()
        return pixels, compose(pixels, placement, logo, self.seed, self.source.bits)

    def legibility(self, placement: Placement, logo: Logo) -> float:
        """Tell how much of the logo can be read on the photograph."""
        _, covered = self.composed(placement, logo)
        return legibility(covered.original, covered.locked, covered.colours, logo.alpha)

    def verified(
        self, placements: Sequence[Placement], logo: Logo
    ) -> tuple[Placement, NDArray[np.float64]]:
        """Judge placements on the full image, through the models' own preprocessing.

        Returns
        -------
        tuple
            The placement that leads furthest from the target, or the list of opacities, which
            no one can guess, if it leads by the policy's margin; and every model's probabilities
            float64 (k, classes) for it.
        """
        enough = self.locker.policy.margin if placements[0].grid else 1.0
        best = max(placements, key=lambda one: min(self.judged(one, logo)[0], enough))
        return best, self.judged(best, logo)[1]

    def judged(self, placement: Placement, logo: Logo) -> tuple[float, NDArray[np.float64]]:
        """Ask about a placement on the full image: its lead over the target, and what models say.

        Returns
        -------
        tuple
            Above 0 where the grade is turned; and float64 (k, classes).

        Raises
        ------
        BundleError
            The ensemble's answer is unusable.
        """
        if placement not in self._judged:
            pixels, _ = self.composed(placement, logo)
            shown = replace(self.source, pixels=pixels[np.newaxis]).display(0)
            after = self.locker.ensemble.photograph(shown)
            mean = checked((self.locker.ensemble.weights @ after)[None], 1, self.target)[0]
            self._judged[placement] = margin_of(mean, self.target), after
        return self._judged[placement]


def far_apart(candidates: Sequence[Outcome], distance: float) -> list[Genes]:
    """Pick candidates, the best first, that lie so many px of the canvas from all picked before."""
    picked: list[Genes] = []
    for one in candidates:
        x, y = one.genes[1:]
        if all(max(abs(x - other.x), abs(y - other.y)) >= distance for other in picked):
            picked.append(one.genes)
    return picked


def flattened(nodes: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Keep a share, 0 to 1, of how far the nodes of a grid are from their mean."""
    mean = nodes.mean()
    flatter: NDArray[np.uint8] = np.rint(mean + share * (nodes - mean)).astype(np.uint8)
    return flatter
