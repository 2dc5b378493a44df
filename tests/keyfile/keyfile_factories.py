"""Builds identities, bindings, packets and grants for the tests, all fixed."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

from medlocker_dicom.keyfile import (
    Binding,
    FrameMark,
    Grant,
    Identity,
    Kem,
    KeyFile,
    Lineage,
    Packet,
    PacketLogo,
    issue_grant,
    sign_keyfile,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = datetime(2027, 1, 1, tzinfo=UTC)
DEK = hashlib.sha256(b"test dek").digest()
GRANT_ID = bytes(range(16))


def bytes_for(label: str, size: int = 32) -> bytes:
    """Fixed bytes, other ones for each label."""
    return hashlib.shake_256(label.encode()).digest(size)


def make_identity(name: str, kem: Kem = Kem.X25519) -> Identity:
    """A fixed identity for each name and kind."""
    secrets = (bytes_for(f"{name} {kem} {part}") for part in ("hpke", "signing", "site"))
    hpke_seed, signing_seed, site_secret = secrets
    return Identity(kem, hpke_seed, signing_seed, site_secret, name)


ISSUER = make_identity("issuer")
RECIPIENT = make_identity("recipient")
STRANGER = make_identity("stranger")
NEXT = make_identity("next issuer")
LINEAGE = Lineage(ISSUER.public).followed_by(NEXT, ISSUER, NOW)
"""Of `NEXT`, who succeeds `ISSUER`."""

BINDING = Binding(
    version=1,
    study_uid="1.2.826.0.1.3680043.10.1",
    series_uid="1.2.826.0.1.3680043.10.1.2",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.7",
    locked_uid="1.2.826.0.1.3680043.10.1.2.3",
    source_uid="1.2.826.0.1.3680043.10.9.9.9",
    rows=2848,
    columns=4288,
    frames=1,
    photometric="RGB",
    pixel_sha256=bytes_for("locked pixels"),
    issuer=ISSUER.public.verify_key,
)

# One other, valid value for each field of the binding that can have one.
OTHER_VALUES: dict[str, object] = {
    "study_uid": "1.2.826.0.1.3680043.10.2",
    "series_uid": "1.2.826.0.1.3680043.10.1.3",
    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.7.4",
    "locked_uid": "1.2.826.0.1.3680043.10.1.2.4",
    "source_uid": "1.2.826.0.1.3680043.10.9.9.8",
    "rows": 2849,
    "columns": 4289,
    "frames": 2,
    "photometric": "MONOCHROME2",
    "pixel_sha256": bytes_for("other pixels"),
    "issuer": STRANGER.public.verify_key,
}


def swap(field: str) -> Binding:
    """The binding with another value in one field."""
    return replace(BINDING, **{field: OTHER_VALUES[field]})  # type: ignore[arg-type]  # one of many


def make_grant(
    recipient: Identity = RECIPIENT,
    binding: Binding = BINDING,
    issuer: Identity = ISSUER,
    expires: datetime | None = LATER,
) -> Grant:
    """A grant of the fixed DEK."""
    return issue_grant(DEK, binding, recipient.public, issuer, expires=expires, grant_id=GRANT_ID)


def make_keyfile(*grants: Grant, issuer: Identity = ISSUER) -> KeyFile:
    """A key file of today for the recipient."""
    return sign_keyfile(issuer, RECIPIENT.public, grants, NOW)


def make_packet(frames: int = 2) -> Packet:
    """A small packet with two logos, or one where there is one frame."""
    logos = tuple(PacketLogo(56 + at, 40, bytes_for(f"logo {at}", 99)) for at in range(2))
    marks = tuple(
        FrameMark(
            x=10 * at,
            y=7,
            alpha=200,
            rule="dither-1",
            seed=bytes_for(f"seed {at}"),
            logo_sha256=bytes_for(f"logo digest {at % 2}"),
            logo=at % 2,
            residual=bytes_for(f"residual {at}", 300),
            grid=bytes_for("grid", 28 * 28) if at else b"",
        )
        for at in range(frames)
    )
    return Packet(
        marks, logos[: min(frames, 2)], bytes_for("original pixels"), bytes_for("header", 500)
    )
