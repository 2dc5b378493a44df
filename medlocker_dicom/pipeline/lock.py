"""Source instance -> locked instance, in reading order."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import count
from secrets import token_bytes
from typing import TYPE_CHECKING, Any

import numpy as np

import medlocker_dicom
from medlocker_dicom.bundles.gradients import View, draw_view
from medlocker_dicom.bundles.preprocess import retina_crop
from medlocker_dicom.dicom.attributes import pack_attributes
from medlocker_dicom.dicom.capture import attach_packet, build_capture
from medlocker_dicom.dicom.fundus import pixel_digest
from medlocker_dicom.dicom.uids import derive_uid
from medlocker_dicom.errors import NoFeasiblePositionError
from medlocker_dicom.keyfile import (
    DetachedPacket,
    FrameMark,
    Packet,
    PacketLogo,
    generate_dek,
    issue_grant,
    seal_packet,
)
from medlocker_dicom.keyfile.grant import GRANT_ID_BYTES
from medlocker_dicom.lesions.boxes import Box, lesion_boxes
from medlocker_dicom.lesions.fov import field_of_view
from medlocker_dicom.lesions.positions import feasible_positions
from medlocker_dicom.pipeline.binding import binding_of
from medlocker_dicom.pipeline.canvas import KNOTS, Canvas
from medlocker_dicom.pipeline.record import FrameRecord, InstanceRecord, ModelRecord
from medlocker_dicom.search import (
    ALPHA_LIST,
    Evaluator,
    Feasible,
    Guide,
    ListParameters,
    SearchResult,
    Stop,
    optimise,
    search,
)
from medlocker_dicom.watermark.alpha import GRID_RULE, RULE, alpha_map, pack_grid
from medlocker_dicom.watermark.blend import blend, logo_samples
from medlocker_dicom.watermark.codec import encode_residual
from medlocker_dicom.watermark.logo import Logo, pack_logo
from medlocker_dicom.watermark.recover import residual
from medlocker_dicom.watermark.scale import scale_logo
from medlocker_dicom.watermark.style import drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray
    from pydicom.dataset import FileDataset

    from medlocker_dicom.bundles.models import Ensemble
    from medlocker_dicom.dicom.decoding import Pixels
    from medlocker_dicom.dicom.fundus import Fundus
    from medlocker_dicom.keyfile import Grant, Identity, PublicIdentity
    from medlocker_dicom.pipeline.policy import Policy
    from medlocker_dicom.watermark.placement import Placement

#: Candidates of a search that are composed and judged again at full size.
VERIFIED = 8
#: Candidates that a search looks at for the place of an alpha list.
PLACES = 32
#: What the models see of the canvas where no pipeline stands in between.
CLEAN = View()


@dataclass(frozen=True)
class Locker:
    """Everything that locking needs beside the instance.

    Attributes
    ----------
    policy
        What the owner chose.
    ensemble
        The classifiers to turn.
    lesions
        uint8 (H, W, 3) RGB -> bool (H, W) lesion mask (WSM step 1).
    logo
        At its own size.
    issuer
        Signs grants; its site secret gives UIDs and dither seeds.
    recipients
        Whom the key is issued to.
    custodians
        Whom it is issued to for good, to be issued again from.
    expires
        First moment at which the recipients' grants no longer open; None for no end.
    detached
        Whether the recovery packet is kept out of the locked object.
    """

    policy: Policy
    ensemble: Ensemble
    lesions: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
    logo: Logo
    issuer: Identity
    recipients: Sequence[PublicIdentity]
    custodians: Sequence[PublicIdentity] = ()
    expires: datetime | None = None
    detached: bool = False

    @property
    def everyone(self) -> tuple[tuple[PublicIdentity, datetime | None], ...]:
        """Recipients, then custodians, each with the expiry of their grants."""
        return (
            *((recipient, self.expires) for recipient in self.recipients),
            *((custodian, None) for custodian in self.custodians),
        )


@dataclass(frozen=True)
class LockedInstance:
    """What locking one instance gives.

    Attributes
    ----------
    ds
        The Secondary Capture object with its packet, ready to be written.
    grants
        One for each of the locker's `everyone`, in that order.
    record
        For the owner: placement, predictions, cost.
    pixels
        (F, H, W, C): the locked pixels.
    detached
        The recovery packet, where the object does not carry it.
    """

    ds: FileDataset
    grants: tuple[Grant, ...]
    record: InstanceRecord
    pixels: Pixels
    detached: DetachedPacket | None = None


def lock(
    source: Fundus, locker: Locker, *, now: datetime, label: int | None = None
) -> LockedInstance:
    """Lock one instance for all recipients.

    Parameters
    ----------
    source
        The instance.
    locker
        Policy, models, logo, issuer, recipients.
    now
        Time of locking, with a time zone.
    label
        The true grade where it is known; else the ensemble's own decision is led away from.

    Raises
    ------
    NoFeasiblePositionError
        Even the smallest logo has no position that the mode allows.
    LogoError
        The logo does not fit the image.
    BundleError
        A model failed.
    """
    started = time.monotonic()
    uid = str(source.ds.SOPInstanceUID)
    digest = pixel_digest(source.pixels)
    pixels = source.pixels.copy()
    frames = [_Frame(source, n, digest, locker, label).lock(pixels[n]) for n in range(len(pixels))]
    secret = locker.issuer.derive("uid")
    # Of the locked pixels too: other options give another instance, never a second one by its UID.
    rendition = f"instance {pixel_digest(pixels).hex()}"
    ds = build_capture(
        source,
        pixels,
        series_uid=derive_uid(secret, "series", str(source.ds.SeriesInstanceUID)),
        instance_uid=derive_uid(secret, rendition, uid),
        now=now,
        version=medlocker_dicom.__version__,
        codec=locker.policy.codec,
    )
    binding = binding_of(ds, pixels, uid, locker.issuer.public.verify_key)
    logos = list({logo.sha256: logo for _, logo, _ in frames}.values())
    packet = Packet(
        frames=tuple(
            replace(mark, logo=[one.sha256 for one in logos].index(logo.sha256))
            for mark, logo, _ in frames
        ),
        logos=tuple(PacketLogo(one.width, one.height, pack_logo(one)) for one in logos),
        original_sha256=digest,
        attributes=pack_attributes(source.ds),
    )
    dek = generate_dek()
    sealed, detached = seal_packet(packet, dek, binding), None
    if locker.detached:
        detached = DetachedPacket(
            locked_uid=binding.locked_uid,
            source_uid=uid,
            source_class_uid=str(source.ds.SOPClassUID),
            bits=source.bits,
            issuer=binding.issuer,
            packet=sealed,
        )
    attach_packet(ds, None if detached else sealed, binding.issuer)
    grants = tuple(
        issue_grant(
            dek,
            binding,
            recipient,
            locker.issuer,
            expires=expires,
            grant_id=token_bytes(GRANT_ID_BYTES),
        )
        for recipient, expires in locker.everyone
    )
    record = InstanceRecord(
        source_sop_instance_uid=uid,
        locked_sop_instance_uid=str(ds.SOPInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        source_series_instance_uid=str(source.ds.SeriesInstanceUID),
        locked_series_instance_uid=str(ds.SeriesInstanceUID),
        seconds=round(time.monotonic() - started, 3),
        frames=tuple(record for _, _, record in frames),
    )
    return LockedInstance(ds, grants, record, pixels, detached)


class _Frame:
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
        self.gradients = 0

    def lock(self, pixels: Pixels) -> tuple[FrameMark, Logo, FrameRecord]:
        """Lock the frame's pixels (H, W, C) in place."""
        lesions = self.locker.lesions(self.display)
        boxes = lesion_boxes(lesions)
        canvas, logo, feasible = self.feasible_canvas(boxes)
        found = self.search(canvas, feasible)
        placements = self.placements(canvas, found)
        placement, after = self.verified(placements, logo)
        mark = blend_into(pixels, placement, logo, self.seed, self.source.bits)
        under = np.s_[
            placement.y : placement.y + logo.height, placement.x : placement.x + logo.width
        ]
        ensemble = self.locker.ensemble
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
            locked_grade=ensemble.labels[int((ensemble.weights @ after).argmax())],
            queries=found.queries,
            requests=found.requests,
            forward_passes=found.forward_passes + self.gradients,
            verified=len(placements),
            canvas_flipped=found.flipped,
            history=tuple((i.queries, round(i.outcome.probability, 5)) for i in found.history),
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
            canvas = Canvas(self.display, crop, self.locker.ensemble.size, logo, self.seed)
            allowed = canvas.allowed(everywhere)
            if allowed.any():
                return canvas, logo, Feasible.from_map(allowed)
        raise NoFeasiblePositionError(
            f"no position in mode {policy.mode} for a logo down to 1/{policy.smallest_sl:g} of the"
            f" width, with {len(boxes)} lesion boxes",
            "hold the instance, or choose --mode anywhere if lesions may be covered",
        )

    def search(self, canvas: Canvas, feasible: Feasible) -> SearchResult:
        """Search on the canvas (eq. 3-6, 8)."""
        policy = self.locker.policy
        listing = policy.strategy == ALPHA_LIST
        stop = Stop.at_margin(policy.margin) if policy.margin > 0 else Stop.FIRST_FLIP
        evaluator = Evaluator(
            lambda genes: self.locker.ensemble.probabilities(canvas.compose(genes)),
            self.target,
            batch_size=policy.batch_size,
            budget=min(policy.budget, PLACES) if listing else policy.budget,
            stop=Stop.NEVER if listing else stop,
        )
        parameters = replace(policy.parameters, canvas_width=canvas.size)
        guide = Guide(KNOTS, lambda: canvas.scored(self.gradient(canvas.clean, CLEAN)))
        strategy = "guided" if listing else policy.strategy
        return search(strategy, evaluator, feasible, self.draws, parameters, guide)

    def gradient(self, image: NDArray[np.float32], view: View) -> NDArray[np.float32]:
        """Ask what each px of a canvas does for the target."""
        self.gradients += 3
        return self.locker.ensemble.gradients(image, self.target, view)

    def placements(self, canvas: Canvas, found: SearchResult) -> list[Placement]:
        """Bring the best candidates to the photograph; with lists of their own, where wanted."""
        best = found.candidates[:VERIFIED]
        plain = [canvas.placement(*candidate.genes) for candidate in best]
        policy = self.locker.policy
        steps = (policy.budget - found.forward_passes - self.gradients) // 3
        if policy.strategy != ALPHA_LIST or steps < 1:
            return plain
        parameters = ListParameters(steps=steps)
        genes, looks = best[0].genes, count()

        def gradient(image: NDArray[np.float32]) -> NDArray[np.float32]:
            return self.gradient(image, draw_view(self.draws) if next(looks) % 2 else CLEAN)

        nodes = optimise(canvas, gradient, genes, parameters)
        grid = pack_grid(parameters.cells, nodes)
        return [canvas.placement(round(nodes.mean()), genes.x, genes.y, grid), *plain[:2]]

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
        judged, enough = [], self.locker.policy.margin if placements[0].grid else 1.0
        for placement in placements:
            frame = self.source.pixels[self.number].copy()
            compose(frame, placement, logo, self.seed, self.source.bits)
            composed = replace(self.source, pixels=frame[np.newaxis])
            after = self.locker.ensemble.photograph(composed.display(0))
            mean = self.locker.ensemble.weights @ after
            lead = float(np.delete(mean, self.target).max() - mean[self.target])
            judged.append((lead, placement, after))
        _, placement, after = max(judged, key=lambda one: min(one[0], enough))
        return placement, after


def blend_into(
    frame: NDArray[Any], placement: Placement, logo: Logo, seed: bytes, bits: int
) -> FrameMark:
    """Blend the logo into a frame (H, W, C) in place (eq. 1); what is lost goes into the mark."""
    covered = compose(frame, placement, logo, seed, bits)
    lost = encode_residual(
        residual(covered.original, covered.locked, covered.colours, covered.opacity)
    )
    return FrameMark(
        x=placement.x,
        y=placement.y,
        alpha=placement.alpha,
        rule=rule_of(placement),
        grid=placement.grid,
        seed=seed,
        logo_sha256=logo.sha256,
        logo=0,
        residual=lost,
    )


def rule_of(placement: Placement) -> str:
    """Name the rule that expands a placement to the list L."""
    return GRID_RULE if placement.grid else RULE


@dataclass(frozen=True)
class Covered:
    """The part of a frame under the logo.

    Attributes
    ----------
    original, locked
        (h, w, C), before and after.
    colours
        (h, w, C): the logo in the frame's samples.
    opacity
        uint8 (h, w): the list L.
    """

    original: NDArray[Any]
    locked: NDArray[Any]
    colours: NDArray[Any]
    opacity: NDArray[np.uint8]


def compose(
    frame: NDArray[Any], placement: Placement, logo: Logo, seed: bytes, bits: int
) -> Covered:
    """Blend the logo into a frame (H, W, C) in place (eq. 1)."""
    window = np.s_[placement.y : placement.y + logo.height, placement.x : placement.x + logo.width]
    opacity = alpha_map(logo.alpha, placement.alpha, seed, rule_of(placement), placement.grid)
    # 8 bits may be stored in 16.
    colours = logo_samples(logo.rgba, frame.shape[-1], bits).astype(frame.dtype)
    original = frame[window].copy()
    locked = blend(original, colours, opacity)
    frame[window] = locked
    return Covered(original, locked, colours, opacity)
