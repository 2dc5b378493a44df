"""Makes the test vectors in keys/vectors: fixed keys, one fault a file.

Run it as a program to write them; the tests compare what it makes with what
lies there, byte by byte. The keys are derived from public words: they protect
nothing and must not be used for anything else.
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
    NOW,
    OTHER_VALUES,
    RECIPIENT,
    STRANGER,
    bytes_for,
    swap,
)

from medlocker_dicom.keyfile import (
    Binding,
    Grant,
    Identity,
    KeyFile,
    dump_identity,
    dump_keyfile,
    dump_public,
    sign_keyfile,
)
from medlocker_dicom.keyfile.canonical import dumps, text_of

FOLDER = Path(__file__).parents[2] / "keys" / "vectors"
OTHER_UID = "1.2.826.0.1.3680043.10.1.2.9"


@dataclass(frozen=True)
class Vector:
    """A file, and what a reader must say to it.

    `stage` is where it fails: ``load`` (reading and the file's signature),
    ``open`` (grant and DEK), or empty where the DEK comes out.
    """

    data: bytes
    stage: str = ""
    error: str = ""


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
    return sign_keyfile(ISSUER, RECIPIENT.public, grants)


def over(grant: Grant) -> bytes:
    """A key file with a genuine signature over a grant that may have none."""
    draft = KeyFile(ISSUER.public, RECIPIENT.public.id, (grant,), bytes(64))
    return dump_keyfile(replace(draft, signature=ISSUER.sign(draft.message)))


VALID = signed_file(fixed_grant())
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
        "issuer-oversized": edited(issuer="x" * 5000),
        "recipient-short": edited(recipient=text_of(bytes(31))),
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
        "file-issuer-swapped": replace(VALID, issuer=STRANGER.public),
        "file-issuer-renamed": replace(VALID, issuer=replace(ISSUER.public, name="issuer 2")),
        "file-recipient-swapped": KeyFile(
            ISSUER.public, STRANGER.public.id, (), signed_file().signature
        ),
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
    stranger = sign_keyfile(ISSUER, STRANGER.public, [fixed_grant(to=STRANGER)])
    yield "grant-for-stranger", Vector(dump_keyfile(stranger), "open", "NoGrantError")
    yield "grant-none", Vector(dump_keyfile(signed_file()), "open", "NoGrantError")


def vectors() -> dict[str, Vector]:
    """All vectors by name."""
    made: dict[str, Vector] = {}
    for group in (valid, header, grants, signatures, openings):
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
            name: {"stage": vector.stage, "error": vector.error} for name, vector in made.items()
        },
    }
    return {
        "index.json": json.dumps(index, indent=1).encode() + b"\n",
        "recipient.key": dump_identity(RECIPIENT, None),
        "issuer.pub": dump_public(ISSUER.public),
        **{f"{name}.mlkey": vector.data for name, vector in made.items()},
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for name, data in files().items():
        (FOLDER / name).write_bytes(data)
