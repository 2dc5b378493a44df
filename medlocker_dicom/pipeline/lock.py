"""Source instance -> locked instance, in reading order."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

import medlocker_dicom
from medlocker_dicom.bundles.preprocess import retina_crop
from medlocker_dicom.dicom.attributes import pack_attributes
from medlocker_dicom.dicom.capture import attach_packet, build_capture
from medlocker_dicom.dicom.fundus import pixel_digest
from medlocker_dicom.dicom.uids import derive_uid
from medlocker_dicom.errors import NoFeasiblePositionError
from medlocker_dicom.keyfile import (
    FrameMark,
    Packet,
    PacketLogo,
    generate_dek,
    issue_grant,
    seal_packet,
)
from medlocker_dicom.lesions.boxes import Box, lesion_boxes
from medlocker_dicom.lesions.fov import field_of_view
from medlocker_dicom.lesions.positions import feasible_positions
from medlocker_dicom.pipeline.binding import binding_of
from medlocker_dicom.pipeline.canvas import Canvas
from medlocker_dicom.pipeline.record import FrameRecord, InstanceRecord, ModelRecord
from medlocker_dicom.search import (
    Evaluator,
    Feasible,
    SearchParameters,
    SearchResult,
    Stop,
    search,
)
from medlocker_dicom.watermark.alpha import RULE, alpha_map
from medlocker_dicom.watermark.blend import blend, logo_samples
from medlocker_dicom.watermark.codec import encode_residual
from medlocker_dicom.watermark.logo import Logo, pack_logo
from medlocker_dicom.watermark.recover import residual
from medlocker_dicom.watermark.scale import scale_logo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from numpy.typing import NDArray
    from pydicom.dataset import FileDataset

    from medlocker_dicom.bundles.models import Ensemble
    from medlocker_dicom.dicom.fundus import Fundus
    from medlocker_dicom.keyfile import Grant, Identity, PublicIdentity
    from medlocker_dicom.pipeline.policy import Policy
    from medlocker_dicom.watermark.placement import Placement

#: Candidates of a search that are composed and judged again at full size.
VERIFIED = 8


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
        Whom the key is issued to, the custodian among them.
    """

    policy: Policy
    ensemble: Ensemble
    lesions: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
    logo: Logo
    issuer: Identity
    recipients: Sequence[PublicIdentity]


@dataclass(frozen=True)
class LockedInstance:
    """What locking one instance gives.

    Attributes
    ----------
    ds
        The Secondary Capture object with its packet, ready to be written.
    grants
        One for each recipient, in the locker's order.
    record
        For the owner: placement, predictions, cost.
    pixels
        (F, H, W, C): the locked pixels.
    """

    ds: FileDataset
    grants: tuple[Grant, ...]
    record: InstanceRecord
    pixels: NDArray[np.uint8] | NDArray[np.uint16]


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
    frames = [_lock_frame(source, pixels, n, locker, label) for n in range(len(pixels))]
    secret = locker.issuer.derive("uid")
    ds = build_capture(
        source,
        pixels,
        series_uid=derive_uid(secret, "series", str(source.ds.SeriesInstanceUID)),
        instance_uid=derive_uid(secret, "instance", uid),
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
    attach_packet(ds, seal_packet(packet, dek, binding), locker.issuer.public.verify_key)
    grants = tuple(
        issue_grant(
            dek,
            binding,
            recipient,
            locker.issuer,
            expires=None,
            grant_id=locker.issuer.derive("grant", recipient.id, binding.digest)[:16],
        )
        for recipient in locker.recipients
    )
    record = InstanceRecord(
        source_sop_instance_uid=uid,
        locked_sop_instance_uid=str(ds.SOPInstanceUID),
        study_instance_uid=str(ds.StudyInstanceUID),
        seconds=round(time.monotonic() - started, 3),
        frames=tuple(record for _, _, record in frames),
    )
    return LockedInstance(ds, grants, record, pixels)


def _lock_frame(
    source: Fundus,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    number: int,
    locker: Locker,
    label: int | None,
) -> tuple[FrameMark, Logo, FrameRecord]:
    """Lock one frame of ``pixels`` in place."""
    display = source.display(number)
    lesions = locker.lesions(display)
    boxes = lesion_boxes(lesions)
    clean = locker.ensemble.photograph(display)
    decision = int((locker.ensemble.weights @ clean).argmax())
    target = decision if label is None else label
    uid, digest = str(source.ds.SOPInstanceUID), pixel_digest(source.pixels)
    seed = locker.issuer.derive("dither", uid, str(number), digest)
    canvas, logo, feasible = _feasible_canvas(display, boxes, locker, seed)
    found = _search(canvas, feasible, locker, target, (uid, number))
    placement, after = _verified(source, number, canvas, found, logo, seed, locker, target)
    mark = _blend_into(pixels[number], placement, logo, seed, source.bits)
    covered = lesions[placement.y :, placement.x :][: logo.height, : logo.width]
    record = FrameRecord(
        placement=(placement.x, placement.y, placement.alpha),
        logo_size=(logo.width, logo.height),
        boxes=tuple((b.x, b.y, b.width, b.height) for b in boxes),
        lesion_px=int(lesions.sum()),
        covered_lesion_px=int((covered & (logo.alpha > 0)).sum()),
        label=locker.ensemble.labels[target],
        label_given=label is not None,
        models=tuple(
            ModelRecord(c.bundle.name, tuple(before.tolist()), tuple(now.tolist()))
            for c, before, now in zip(locker.ensemble.classifiers, clean, after, strict=True)
        ),
        clean_grade=locker.ensemble.labels[decision],
        locked_grade=locker.ensemble.labels[int((locker.ensemble.weights @ after).argmax())],
        queries=found.queries,
        requests=found.requests,
        forward_passes=found.forward_passes,
        canvas_flipped=found.flipped,
        history=tuple((i.queries, round(i.outcome.probability, 5)) for i in found.history),
    )
    return mark, logo, record


def _feasible_canvas(
    display: NDArray[np.uint8], boxes: tuple[Box, ...], locker: Locker, seed: bytes
) -> tuple[Canvas, Logo, Feasible]:
    """Find the largest logo that has a feasible position (WSM step 5)."""
    height, width = display.shape[:2]
    retina, crop = field_of_view(display), retina_crop(display)
    for sl in locker.policy.sizes():
        logo = scale_logo(locker.logo, width, height, sl)
        mode = locker.policy.mode
        everywhere = feasible_positions(retina, (logo.width, logo.height), boxes, mode)
        if not everywhere.any():
            continue
        canvas = Canvas(display, crop, locker.ensemble.size, logo, seed)
        allowed = canvas.allowed(everywhere)
        if allowed.any():
            return canvas, logo, Feasible.from_map(allowed)
    raise NoFeasiblePositionError(
        f"no position in mode {locker.policy.mode} for a logo down to 1/{locker.policy.smallest_sl:g}"
        f" of the width, beside {len(boxes)} lesion boxes",
        "hold the instance, or choose --mode anywhere if lesions may be covered",
    )


def _search(
    canvas: Canvas, feasible: Feasible, locker: Locker, target: int, name: tuple[str, int]
) -> SearchResult:
    policy = locker.policy
    evaluator = Evaluator(
        lambda genes: locker.ensemble.probabilities(canvas.compose(genes)),
        target,
        batch_size=policy.batch_size,
        budget=policy.budget,
        stop=Stop.at_margin(policy.margin) if policy.margin > 0 else Stop.FIRST_FLIP,
    )
    # The instance's UID enters the seed: equal photographs need not get equal locks.
    rng = np.random.default_rng([policy.seed, name[1], *name[0].encode()])
    parameters = SearchParameters(canvas_width=canvas.size)
    return search(policy.strategy, evaluator, feasible, rng, parameters)


def _verified(  # noqa: PLR0913  the frame, the search's result, and what it is judged by
    source: Fundus,
    number: int,
    canvas: Canvas,
    found: SearchResult,
    logo: Logo,
    seed: bytes,
    locker: Locker,
    target: int,
) -> tuple[Placement, NDArray[np.float64]]:
    """Judge the best candidates on the full image, through the models' own preprocessing.

    Returns
    -------
    tuple
        The placement that leads furthest from the target, and every model's
        probabilities float64 (k, classes) for it.
    """
    judged = []
    for candidate in found.candidates[:VERIFIED]:
        placement = canvas.placement(*candidate.genes)
        frame = source.pixels[number].copy()
        _blend_into(frame, placement, logo, seed, source.bits)
        after = locker.ensemble.photograph(replace(source, pixels=frame[None]).display(0))
        mean = locker.ensemble.weights @ after
        judged.append((float(np.delete(mean, target).max() - mean[target]), placement, after))
    _, placement, after = max(judged, key=lambda one: one[0])
    return placement, after


def _blend_into(
    frame: NDArray[np.uint8] | NDArray[np.uint16],
    placement: Placement,
    logo: Logo,
    seed: bytes,
    bits: int,
) -> FrameMark:
    """Blend the logo into a frame (H, W, C) in place (eq. 1); what is lost goes into the mark."""
    rows = slice(placement.y, placement.y + logo.height)
    columns = slice(placement.x, placement.x + logo.width)
    a = alpha_map(logo.alpha, placement.alpha, seed)
    colours = logo_samples(logo.rgba, frame.shape[-1], bits)
    original = frame[rows, columns].copy()
    locked = blend(original, colours, a)
    frame[rows, columns] = locked
    lost = encode_residual(residual(original, locked, colours, a))
    return FrameMark(
        x=placement.x,
        y=placement.y,
        alpha=placement.alpha,
        rule=RULE,
        seed=seed,
        logo_sha256=logo.sha256,
        logo=0,
        residual=lost,
    )
