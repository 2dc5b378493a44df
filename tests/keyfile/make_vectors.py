"""Makes the test vectors in keys/vectors: fixed keys, one fault a file.

Run it as a program to write them; the tests compare what it makes with what
lies there, byte by byte. Sealing a packet takes fresh randomness, so the one
sealed packet that the others derive from is kept where it is there. The keys are
derived from public words: they protect nothing and must not be used for anything
else.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hpke_reference import seal_x25519
from keyfile_factories import (
    BINDING,
    DEK,
    GRANT_ID,
    ISSUER,
    LATER,
    LINEAGE,
    NEXT,
    NOW,
    OTHER_VALUES,
    RECIPIENT,
    STRANGER,
    bytes_for,
    make_packet,
    swap,
)

from medlocker_dicom.keyfile import (
    Binding,
    DetachedPacket,
    Grant,
    Identity,
    KeyFile,
    Lineage,
    StatusList,
    dump_detached,
    dump_identity,
    dump_keyfile,
    dump_public,
    dump_status,
    load_detached,
    seal_packet,
    sign_keyfile,
    sign_status,
)
from medlocker_dicom.keyfile.canonical import dumps, text_of

FOLDER = Path(__file__).parents[2] / "keys" / "vectors"
MALFORMED = ("load", "KeyFileError")
OTHER_UID = "1.2.826.0.1.3680043.10.1.2.9"


@dataclass(frozen=True)
class Vector:
    """A file, and what a reader must say to it.

    `stage` is where it fails: ``load`` (reading and the file's signature),
    ``open`` (grant and DEK, packet, or the status of the grant at hand), or
    empty where nothing is wrong.
    """

    data: bytes
    stage: str = ""
    error: str = ""
    suffix: str = ".mlkey"


def fixed_grant(
    binding: Binding = BINDING,
    issuer: Identity = ISSUER,
    to: Identity = RECIPIENT,
    *,
    sealed_to: Identity | None = None,
    expires: datetime | None = LATER,
) -> Grant:
    """A grant that is the same each time: its ephemeral key is fixed too."""
    head = (binding.locked_uid, binding.digest, to.public.id, GRANT_ID, expires)
    draft = Grant(*head, bytes(80), bytes(64))
    public = (sealed_to or to).public.hpke_key
    sealed = seal_x25519(bytes_for("ephemeral"), public, DEK, draft.info)
    return resigned(Grant(*head, sealed, bytes(64)), issuer)


def resigned(grant: Grant, issuer: Identity = ISSUER) -> Grant:
    """The grant with a genuine signature."""
    return replace(grant, signature=issuer.sign(grant.message(issuer.public.verify_key)))


def signed_file(*grants: Grant) -> KeyFile:
    """A key file with a genuine signature."""
    return sign_keyfile(ISSUER, RECIPIENT.public, grants, NOW)


def over(grant: Grant) -> bytes:
    """A key file with a genuine signature over a grant that may have none."""
    draft = KeyFile(Lineage(ISSUER.public), RECIPIENT.public.id, NOW, (grant,), bytes(64))
    return dump_keyfile(replace(draft, signature=ISSUER.sign(draft.message)))


VALID = signed_file(fixed_grant())
SUCCEEDED = sign_keyfile(NEXT, RECIPIENT.public, [fixed_grant(issuer=NEXT)], NOW, LINEAGE)
PAIR = signed_file(fixed_grant(), fixed_grant(replace(BINDING, locked_uid=OTHER_UID)))
TEXT = dump_keyfile(VALID)
MEMBERS: dict[str, Any] = json.loads(TEXT)
GRANT: dict[str, Any] = MEMBERS["grants"][0]


def edited(**members: object) -> bytes:
    """The valid file with other members."""
    return dumps({**MEMBERS, **members})


def with_grant(**members: object) -> bytes:
    """The valid file with other members in its grant."""
    return edited(grants=[{**GRANT, **members}])


def without(record: dict[str, Any], name: str) -> dict[str, Any]:
    """The record without one member."""
    return {key: value for key, value in record.items() if key != name}


def valid() -> Iterator[tuple[str, Vector]]:
    """Files that open."""
    yield "valid", Vector(TEXT)
    yield "valid-two-grants", Vector(dump_keyfile(PAIR))
    yield "valid-successor", Vector(dump_keyfile(SUCCEEDED))
    yield "valid-no-expiry", Vector(dump_keyfile(signed_file(fixed_grant(expires=None))))


def header() -> Iterator[tuple[str, Vector]]:
    """Faults around the grants."""
    faults = {
        "empty": b"",
        "not-json": b"medlocker\n",
        "array": b"[]\n",
        "truncated": TEXT[:-20],
        "no-newline": TEXT[:-1],
        "extended": TEXT + b"\n",
        "twice": TEXT + TEXT,
        "byte-order-mark": b"\xef\xbb\xbf" + TEXT,
        "space": TEXT.replace(b",", b", ", 1),
        "member-order": json.dumps(MEMBERS, separators=(",", ":")).encode()[:-1]
        + b',"format":"medlocker key file"}\n',
        "escape": TEXT.replace(b'"format"', b'"\\u0066ormat"'),
        "duplicate-member": TEXT.replace(b'"version":1', b'"version":1,"version":1'),
        "unknown-member": edited(zebra=0),
        "missing-member": dumps(without(MEMBERS, "recipient")),
        "float-version": TEXT.replace(b'"version":1', b'"version":1.0'),
        "nan-version": TEXT.replace(b'"version":1', b'"version":NaN'),
        "boolean-version": edited(version=True),
        "next-version": edited(version=2),
        "other-format": edited(format="medlocker identity"),
        "issuer-damaged": edited(issuer=MEMBERS["issuer"][:-20]),
        "issuer-small-order": edited(
            issuer=f"medlocker-public-1 x25519 {text_of(bytes(32) + ISSUER.public.verify_key)}"
        ),
        "issuer-oversized": edited(issuer="x" * 5000),
        "recipient-short": edited(recipient=text_of(bytes(31))),
        "issued-fraction": edited(issued="2026-03-01T12:00:00.5Z"),
        "issued-missing": dumps(without(MEMBERS, "issued")),
        "nested": b"[" * 3000 + b"]" * 3000 + b"\n",
    }
    for name, data in faults.items():
        yield f"header-{name}", Vector(data, "load", "KeyFileError")


def grants() -> Iterator[tuple[str, Vector]]:
    """Faults in the list of grants."""
    both: list[dict[str, Any]] = json.loads(dump_keyfile(PAIR))["grants"]
    faults = {
        "duplicate": edited(grants=[GRANT, GRANT]),
        "order": edited(grants=both[::-1]),
        "unknown-member": with_grant(zebra=None),
        "missing-member": edited(grants=[without(GRANT, "expires")]),
        "duplicate-member": TEXT.replace(b'"grant_id"', b'"grant_id":"","grant_id"', 1),
        "no-object": edited(grants=[None]),
        "other-recipient": with_grant(recipient=text_of(STRANGER.public.id)),
        "uid-leading-zero": with_grant(locked_uid="1.02.3"),
        "uid-oversized": with_grant(locked_uid="1." + "2" * 63),
        "uid-number": with_grant(locked_uid=12),
        "expires-no-date": with_grant(expires="2027-02-30T00:00:00Z"),
        "expires-fraction": with_grant(expires="2027-01-01T00:00:00.0Z"),
        "expires-offset": with_grant(expires="2027-01-01T00:00:00+00"),
        "sealed-truncated": with_grant(sealed=GRANT["sealed"][:-4]),
        "sealed-oversized": with_grant(sealed="A" * 8000),
        "id-padding-bits": with_grant(grant_id="AAAAAAAAAAAAAAAAAAAAAB=="),
        "id-no-padding": with_grant(grant_id="AAAAAAAAAAAAAAAAAAAAAA"),
        "id-url-alphabet": with_grant(grant_id="-_AAAAAAAAAAAAAAAAAAAA=="),
    }
    for name, data in faults.items():
        yield f"grant-{name}", Vector(data, "load", "KeyFileError")


def signatures() -> Iterator[tuple[str, Vector]]:
    """Signatures over the file or over its grant that do not verify."""
    file_faults = {
        "file-zero": replace(VALID, signature=bytes(64)),
        "file-grant-removed": replace(PAIR, grants=PAIR.grants[:1]),
        "file-grant-added": replace(VALID, grants=PAIR.grants),
        "file-issuer-swapped": replace(VALID, lineage=Lineage(STRANGER.public)),
        "file-issuer-renamed": replace(
            VALID, lineage=Lineage(replace(ISSUER.public, name="issuer 2"))
        ),
        "file-recipient-swapped": replace(signed_file(), recipient=STRANGER.public.id),
        "file-issued-moved": replace(VALID, issued=LATER),
        "file-succession-removed": replace(SUCCEEDED, lineage=Lineage(NEXT.public)),
    }
    for name, keyfile in file_faults.items():
        yield f"signature-{name}", Vector(dump_keyfile(keyfile), "load", "SignatureError")
    good = fixed_grant()
    grant_faults = {
        "grant-zero": replace(good, signature=bytes(64)),
        "grant-of-stranger": fixed_grant(issuer=STRANGER),
        "grant-expiry-moved": replace(good, expires=LATER.replace(year=2099)),
        "grant-id-changed": replace(good, grant_id=bytes(16)),
        "grant-sealed-changed": replace(good, sealed=good.sealed[:-1] + b"\0"),
        "grant-binding-changed": replace(good, binding=swap("rows").digest),
    }
    for name, grant in grant_faults.items():
        yield f"signature-{name}", Vector(over(grant), "open", "SignatureError")


def openings() -> Iterator[tuple[str, Vector]]:
    """Genuine files that do not open the object at hand for this recipient now."""
    for field in OTHER_VALUES:
        keyfile = signed_file(fixed_grant(swap(field)))
        name = f"binding-{field.replace('_', '-')}"
        yield name, Vector(dump_keyfile(keyfile), "open", "NoGrantError")
    expired = signed_file(fixed_grant(expires=NOW))
    yield "grant-expired", Vector(dump_keyfile(expired), "open", "GrantExpiredError")
    foreign = signed_file(fixed_grant(sealed_to=STRANGER))
    yield "grant-sealed-to-stranger", Vector(dump_keyfile(foreign), "open", "NoGrantError")
    good = fixed_grant()
    moved = signed_file(resigned(replace(good, grant_id=bytes(16))))
    yield "grant-info-differs", Vector(dump_keyfile(moved), "open", "NoGrantError")
    stranger = sign_keyfile(ISSUER, STRANGER.public, [fixed_grant(to=STRANGER)], NOW)
    yield "grant-for-stranger", Vector(dump_keyfile(stranger), "open", "NoGrantError")
    yield "grant-none", Vector(dump_keyfile(signed_file()), "open", "NoGrantError")


def successions() -> Iterator[tuple[str, Vector]]:
    """Faults in how one issuer follows another."""
    one = LINEAGE.successions[0]
    members: dict[str, Any] = json.loads(dump_keyfile(SUCCEEDED))
    record = members["successions"][0]
    malformed = {
        "twice": [record, record],
        "backwards": [{**record, "old": record["new"], "new": record["old"]}],
        "unknown-member": [{**record, "zebra": 0}],
        "missing-member": [without(record, "since")],
        "itself": [{**record, "old": record["new"]}],
        "elsewhere": [{**record, "new": STRANGER.public.line}],
        "signature-short": [{**record, "new_signature": text_of(bytes(63))}],
        "since-no-date": [{**record, "since": "2026-02-30T00:00:00Z"}],
    }
    for name, value in malformed.items():
        yield f"succession-{name}", Vector(dumps({**members, "successions": value}), *MALFORMED)
    unsigned = {
        "old-unsigned": replace(one, old_signature=bytes(64)),
        "new-unsigned": replace(one, new_signature=bytes(64)),
        "since-moved": replace(one, since=LATER),
        "of-a-stranger": replace(one, old=STRANGER.public),
    }
    for name, changed in unsigned.items():
        draft = replace(SUCCEEDED, lineage=Lineage(NEXT.public, (changed,)))
        keyfile = replace(draft, signature=NEXT.sign(draft.message))
        yield f"succession-{name}", Vector(dump_keyfile(keyfile), "load", "SignatureError")
    alone = sign_keyfile(NEXT, RECIPIENT.public, [fixed_grant(issuer=NEXT)], NOW)
    yield "succession-none", Vector(dump_keyfile(alone), "open", "SignatureError")


def statuses() -> Iterator[tuple[str, Vector]]:
    """Status lists: of other grants, of the grant at hand, and damaged ones."""
    others = sorted((bytes(16), bytes([255]) * 16))
    good = sign_status(ISSUER, Lineage(ISSUER.public), 3, others, NOW)
    text = dump_status(good)
    members: dict[str, Any] = json.loads(text)

    def status(data: bytes, stage: str = "", error: str = "") -> Vector:
        return Vector(data, stage, error, ".mlstatus")

    yield "status-valid", status(text)
    empty = sign_status(ISSUER, Lineage(ISSUER.public), 0, [], NOW)
    yield "status-valid-empty", status(dump_status(empty))
    yield "status-valid-successor", status(dump_status(sign_status(NEXT, LINEAGE, 4, others, NOW)))
    revoked = sign_status(ISSUER, Lineage(ISSUER.public), 5, [*others, GRANT_ID], NOW)
    yield "status-revoked", status(dump_status(revoked), "open", "GrantRevokedError")
    later = sign_status(NEXT, LINEAGE, 6, [GRANT_ID], NOW)
    yield "status-revoked-by-successor", status(dump_status(later), "open", "GrantRevokedError")
    foreign = sign_status(STRANGER, Lineage(STRANGER.public), 9, [GRANT_ID], NOW)
    yield "status-of-stranger", status(dump_status(foreign), "open", "SignatureError")
    malformed = {
        "truncated": text[:-20],
        "extended": text + b" ",
        "order": dumps({**members, "revoked": members["revoked"][::-1]}),
        "duplicate": dumps({**members, "revoked": members["revoked"][:1] * 2}),
        "id-short": dumps({**members, "revoked": [text_of(bytes(15))]}),
        "id-number": dumps({**members, "revoked": [7]}),
        "unknown-member": dumps({**members, "zebra": 0}),
        "missing-member": dumps(without(members, "number")),
        "number-negative": dumps({**members, "number": -1}),
        "number-oversized": dumps({**members, "number": 2**53}),
        "number-boolean": dumps({**members, "number": True}),
        "next-version": dumps({**members, "version": 2}),
        "key-file": TEXT,
    }
    for name, data in malformed.items():
        yield f"status-{name}", status(data, *MALFORMED)
    unsigned: dict[str, StatusList] = {
        "signature-zero": replace(good, signature=bytes(64)),
        "id-removed": replace(good, revoked=good.revoked[:1]),
        "number-raised": replace(good, number=4),
        "issued-moved": replace(good, issued=LATER),
        "issuer-swapped": replace(good, lineage=Lineage(STRANGER.public)),
    }
    for name, changed in unsigned.items():
        yield f"status-{name}", status(dump_status(changed), "load", "SignatureError")


def packets() -> Iterator[tuple[str, Vector]]:
    """Detached packets, and what is wrong with them."""
    valid = packet_at_hand()
    detached = load_detached(valid)
    sealed = detached.packet
    header = valid[12 : -len(sealed)]

    def packet(data: bytes, stage: str = "", error: str = "") -> Vector:
        return Vector(data, stage, error, ".mlpacket")

    yield "packet-valid", packet(valid)
    malformed = {
        "empty": b"",
        "other-magic": b"MLSIDE\x00\x02" + valid[8:],
        "header-truncated": valid[:40],
        "header-oversized": valid[:8] + b"\xff\xff\xff\xff" + valid[12:],
        "header-space": valid[:8]
        + (len(header) + 1).to_bytes(4, "big")
        + header.replace(b",", b", ", 1)
        + sealed,
        "header-unknown-member": valid[:8]
        + (len(header) + 10).to_bytes(4, "big")
        + header.replace(b"}", b',"zebra":0}')
        + sealed,
        "no-packet": valid[: len(valid) - len(sealed)],
    }
    for name, data in malformed.items():
        yield f"packet-{name}", packet(data, "load", "PacketError")
    changed = {
        "truncated": sealed[:-1],
        "extended": sealed + b"\0",
        "flipped": sealed[:-9] + bytes([sealed[-9] ^ 1]) + sealed[-8:],
        "other-version": b"MLPACK\x00\x02" + sealed[8:],
        "no-seal": sealed[:8],
    }
    for name, data in changed.items():
        moved = dump_detached(replace(detached, packet=data))
        yield f"packet-{name}", packet(moved, "open", "PacketError")
    for name, swapped in {
        "source-swapped": replace(detached, source_uid=OTHER_UID),
        "issuer-swapped": replace(detached, issuer=STRANGER.public.verify_key),
    }.items():
        yield f"packet-{name}", packet(dump_detached(swapped), "open", "NoGrantError")


def packet_at_hand() -> bytes:
    """The detached packet in the folder, or a new one where there is none."""
    path = FOLDER / "packet-valid.mlpacket"
    if path.exists():
        return path.read_bytes()
    return dump_detached(
        DetachedPacket(
            BINDING.locked_uid,
            BINDING.source_uid,
            "1.2.840.10008.5.1.4.1.1.77.1.5.1",
            8,
            BINDING.issuer,
            seal_packet(make_packet(), DEK, BINDING),
        )
    )


def vectors() -> dict[str, Vector]:
    """All vectors by name."""
    made: dict[str, Vector] = {}
    for group in (valid, header, grants, signatures, openings, successions, statuses, packets):
        for name, vector in group():
            assert name not in made, name
            made[name] = vector
    return made


def files() -> dict[str, bytes]:
    """All files of the folder by name."""
    made = vectors()
    binding = {
        key: value.hex() if isinstance(value, bytes) else value
        for key, value in asdict(BINDING).items()
    }
    index = {
        "binding": binding,
        "dek": DEK.hex(),
        "now": f"{NOW:%Y-%m-%dT%H:%M:%SZ}",
        "count": len(made),
        "vectors": {
            f"{name}{vector.suffix}": {"stage": vector.stage, "error": vector.error}
            for name, vector in made.items()
        },
    }
    return {
        "index.json": json.dumps(index, indent=1).encode() + b"\n",
        "recipient.key": dump_identity(RECIPIENT, None),
        "issuer.pub": dump_public(ISSUER.public),
        **{f"{name}{vector.suffix}": vector.data for name, vector in made.items()},
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = files()
    for old in FOLDER.iterdir():
        old.unlink()
    for name, data in made.items():
        (FOLDER / name).write_bytes(data)
