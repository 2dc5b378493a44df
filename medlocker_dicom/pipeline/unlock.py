"""Locked instance -> source instance, or nothing at all."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import numpy as np

from medlocker_dicom.dicom.attributes import unpack_attributes
from medlocker_dicom.dicom.fundus import pixel_digest
from medlocker_dicom.dicom.restore import restore_source
from medlocker_dicom.errors import (
    PacketError,
    PacketMissingError,
    PixelsChangedError,
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
    from pydicom.dataset import FileDataset

    from medlocker_dicom.dicom.locked import Locked
    from medlocker_dicom.keyfile import FrameMark, Grant, Identity, Packet


def verify(locked: Locked, grant: Grant, identity: Identity, now: datetime) -> Packet:
    """Check that an object is the one its key was issued for, untouched, and open its packet.

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

    Raises
    ------
    PacketMissingError
        The packet was stripped.
    SignatureError, GrantExpiredError, NoGrantError
        The grant is refused.
    PixelsChangedError
        Pixels or identity differ from those that were locked.
    PacketError
        The packet is damaged.
    """
    if locked.packet is None:
        raise PacketMissingError(
            f"{locked.ds.SOPInstanceUID}: the recovery packet was stripped from this object",
            "ask the owner for the object as it was sent, with private elements kept",
        )
    binding = binding_of(locked.ds, locked.pixels, locked.source_uid, locked.issuer)
    if grant.locked_uid == binding.locked_uid and grant.binding != binding.digest:
        # The signature is checked first: an unsigned grant must not accuse the pixels.
        grant.verify(locked.issuer)
        raise PixelsChangedError(
            f"{binding.locked_uid}: pixels or identity changed after locking",
            "ask the owner for the object as it was sent",
        )
    dek = open_grant(grant, binding, identity, locked.issuer, now)
    return open_packet(locked.packet, dek, binding)


def unlock(locked: Locked, grant: Grant, identity: Identity, now: datetime) -> FileDataset:
    """Restore the source instance with its exact pixels.

    Raises
    ------
    PacketError
        The packet does not lead to the original.
    KeyRefusedError, LockedObjectError
        As for `verify`.
    """
    packet = verify(locked, grant, identity, now)
    pixels = locked.pixels.copy()
    if len(packet.frames) != len(pixels):
        raise PacketError(f"the packet marks {len(packet.frames)} frames of {len(pixels)}")
    logos = [unpack_logo(logo.planes) for logo in packet.logos]
    for frame, mark in zip(pixels, packet.frames, strict=True):
        _restore_frame(frame, mark, logos[mark.logo], locked.bits)
    if not hmac.compare_digest(pixel_digest(pixels), packet.original_sha256):
        raise PacketError(f"{locked.ds.SOPInstanceUID}: the restored pixels are not the original's")
    return restore_source(unpack_attributes(packet.attributes), pixels, locked.bits)


def _restore_frame(frame: NDArray[Any], mark: FrameMark, logo: Logo, bits: int) -> None:
    """Take the logo off a frame (H, W, C) in place (eq. 9)."""
    rows, columns = frame.shape[:2]
    if mark.x + logo.width > columns or mark.y + logo.height > rows:
        raise PacketError("the packet places the logo outside the image")
    if not hmac.compare_digest(logo.sha256, mark.logo_sha256):
        raise PacketError("the packet's logo is not the one that it names")
    window = np.s_[mark.y : mark.y + logo.height, mark.x : mark.x + logo.width]
    a = alpha_map(logo.alpha, mark.alpha, mark.seed, mark.rule)
    if mark.grid:
        raise PacketError("the packet has an alpha grid, which this version cannot read")
    # 8 bits may be stored in 16.
    colours = logo_samples(logo.rgba, frame.shape[-1], bits).astype(frame.dtype)
    rest = decode_residual(mark.residual, frame[window].shape, bits).astype(frame.dtype)
    frame[window] = restore(frame[window], rest, colours, a)
