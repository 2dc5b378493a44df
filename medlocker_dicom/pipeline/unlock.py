"""Locked instance -> source instance, or nothing at all."""

from __future__ import annotations

import hmac
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from medlocker_dicom.dicom.attributes import unpack_attributes
from medlocker_dicom.dicom.elements import text
from medlocker_dicom.dicom.fundus import IDENTITY, pixel_digest
from medlocker_dicom.dicom.private import STRIPPED_HINT
from medlocker_dicom.dicom.restore import restore_source
from medlocker_dicom.dicom.taken import changed_since
from medlocker_dicom.dicom.uids import check_uid
from medlocker_dicom.errors import (
    AttributesChangedError,
    PacketError,
    PacketMissingError,
    PixelsChangedError,
    UIDError,
)
from medlocker_dicom.keyfile import open_grant, open_packet
from medlocker_dicom.pipeline.binding import binding_of
from medlocker_dicom.watermark.alpha import alpha_map
from medlocker_dicom.watermark.blend import logo_samples
from medlocker_dicom.watermark.codec import decode_residual
from medlocker_dicom.watermark.logo import Logo, unpack_logo
from medlocker_dicom.watermark.recover import restore

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray
    from pydicom.dataset import Dataset, FileDataset

    from medlocker_dicom.dicom.locked import Locked
    from medlocker_dicom.keyfile import FrameMark, Grant, Identity, Packet, PacketLogo


def verify(
    locked: Locked, grant: Grant, identity: Identity, now: datetime, signer: bytes | None = None
) -> None:
    """Check that an object is the one its key was issued for, untouched, and can be unlocked.

    Parameters
    ----------
    locked
        The object as read.
    grant
        For its SOP Instance UID.
    identity
        The recipient.
    now
        The time, with a time zone.
    signer
        Ed25519 public key of who signed the grant, 32 bytes; None for the issuer that the
        object names. That a successor may stand in for that one is checked by the caller.

    Raises
    ------
    PacketMissingError
        The packet was stripped.
    SignatureError, GrantExpiredError, NoGrantError
        The grant is refused.
    PixelsChangedError
        Pixels or identity differ from those that were locked.
    AttributesChangedError
        Attributes of patient, study or image differ from the sealed ones.
    PacketError
        The packet is damaged, tells of another source, or does not lead to the original.
    """
    packet, sealed = _open(locked, grant, identity, now, signer)
    if changed := changed_since(sealed, locked.ds, locked.photometric):
        raise AttributesChangedError(
            f"{locked.ds.SOPInstanceUID}: changed after locking: {', '.join(changed)}",
            "an archive may have corrected them; unlocking gives the original ones",
        )
    _restored(locked, packet, sealed)


def unlock(
    locked: Locked, grant: Grant, identity: Identity, now: datetime, signer: bytes | None = None
) -> FileDataset:
    """Restore the source instance with its exact pixels and its own attributes.

    What an archive wrote into the locked object's attributes does not matter.

    Raises
    ------
    PacketError
        The packet does not lead to the original.
    KeyRefusedError, LockedObjectError
        As for `verify`, but never `AttributesChangedError`.
    """
    packet, sealed = _open(locked, grant, identity, now, signer)
    return _restored(locked, packet, sealed)


def _restored(locked: Locked, packet: Packet, sealed: Dataset) -> FileDataset:
    """Restore the source from an open packet."""
    pixels = locked.pixels.copy()
    if len(packet.frames) != len(pixels):
        raise PacketError(f"the packet marks {len(packet.frames)} frames of {len(pixels)}")
    # by their logos, which are large: one is unpacked at a time
    pairs = sorted(zip(pixels, packet.frames, strict=True), key=lambda pair: pair[1].logo)
    for number, group in groupby(pairs, key=lambda pair: pair[1].logo):
        _restore_frames(list(group), packet.logos[number], locked.bits)
    if not hmac.compare_digest(pixel_digest(pixels), packet.original_sha256):
        raise PacketError(f"{locked.ds.SOPInstanceUID}: the restored pixels are not the original's")
    return restore_source(sealed, pixels, locked.bits)


def _open(
    locked: Locked, grant: Grant, identity: Identity, now: datetime, signer: bytes | None
) -> tuple[Packet, Dataset]:
    """Open the packet and the attributes in it, which are those of the object's source."""
    if locked.packet is None:
        raise PacketMissingError(
            f"{locked.ds.SOPInstanceUID}: the recovery packet is not in this object",
            STRIPPED_HINT,
        )
    signer = signer or locked.issuer
    binding = binding_of(locked.ds, locked.pixels, locked.source_uid, locked.issuer)
    if grant.locked_uid == binding.locked_uid and grant.binding != binding.digest:
        # The signature is checked first: an unsigned grant must not accuse the pixels.
        grant.verify(signer)
        raise PixelsChangedError(
            f"{binding.locked_uid}: pixels or identity changed after locking",
            "ask the owner for the object as it was sent",
        )
    dek = open_grant(grant, binding, identity, signer, now)
    packet = open_packet(locked.packet, dek, binding)
    sealed = unpack_attributes(packet.attributes)
    _check_identity(sealed, locked)
    return packet, sealed


def _check_identity(sealed: Dataset, locked: Locked) -> None:
    """Refuse attributes of another instance than the object names as its source."""
    own = {
        "SOPClassUID": locked.source_class_uid,
        "SOPInstanceUID": locked.source_uid,
        "StudyInstanceUID": text(locked.ds, "StudyInstanceUID"),
    }
    try:
        for keyword in ("SOPClassUID", *IDENTITY):
            uid = check_uid(text(sealed, keyword), keyword)
            if uid != own.get(keyword, uid):
                raise PacketError(f"{keyword} in the packet is not the source's")
    except UIDError as exc:
        raise PacketError(f"the packet's attributes cannot be the source's: {exc}") from exc


def _restore_frames(
    pairs: list[tuple[NDArray[Any], FrameMark]], packed: PacketLogo, bits: int
) -> None:
    """Take one logo off the frames (H, W, C) that bear it, in place."""
    for frame, mark in pairs:
        rows, columns = frame.shape[:2]
        if mark.x + packed.width > columns or mark.y + packed.height > rows:
            raise PacketError("the packet places the logo outside the image")
    logo = unpack_logo(packed.planes, packed.width, packed.height)
    for frame, mark in pairs:
        _restore_frame(frame, mark, logo, bits)


def _restore_frame(frame: NDArray[Any], mark: FrameMark, logo: Logo, bits: int) -> None:
    """Take the logo off a frame (H, W, C) in place (eq. 9)."""
    if not hmac.compare_digest(logo.sha256, mark.logo_sha256):
        raise PacketError("the packet's logo is not the one that it names")
    window = np.s_[mark.y : mark.y + logo.height, mark.x : mark.x + logo.width]
    channels = frame.shape[-1]
    a = alpha_map(
        logo.alpha, mark.alpha, mark.seed, rule=mark.rule, grid=mark.grid, channels=channels
    )
    # 8 bits may be stored in 16.
    colours = logo_samples(logo.rgba, channels, bits).astype(frame.dtype)
    rest = decode_residual(mark.residual, frame[window].shape, bits).astype(frame.dtype)
    frame[window] = restore(frame[window], rest, colours, a)
