"""Source instance -> locked instance, in reading order."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from secrets import token_bytes
from typing import TYPE_CHECKING

import medlocker_dicom
from medlocker_dicom.dicom.attributes import pack_attributes
from medlocker_dicom.dicom.capture import attach_packet, build_capture
from medlocker_dicom.dicom.fundus import pixel_digest
from medlocker_dicom.dicom.uids import derive_uid
from medlocker_dicom.keyfile import (
    DetachedPacket,
    Packet,
    PacketLogo,
    generate_dek,
    issue_grant,
    seal_packet,
)
from medlocker_dicom.keyfile.grant import GRANT_ID_BYTES
from medlocker_dicom.pipeline.binding import binding_of
from medlocker_dicom.pipeline.frame import Frame
from medlocker_dicom.pipeline.record import InstanceRecord
from medlocker_dicom.watermark.logo import Logo, pack_logo

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import FileDataset

    from medlocker_dicom.bundles.models import Ensemble
    from medlocker_dicom.dicom.decoding import Pixels
    from medlocker_dicom.dicom.fundus import Fundus
    from medlocker_dicom.keyfile import Grant, Identity, PublicIdentity
    from medlocker_dicom.pipeline.policy import Policy


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
    frames = [Frame(source, n, digest, locker, label).lock(pixels[n]) for n in range(len(pixels))]
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
