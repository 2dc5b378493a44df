"""Key files: signed as a whole, strict, bounded."""

import json
from dataclasses import replace

import pytest
from keyfile_factories import (
    BINDING,
    ISSUER,
    NOW,
    STRANGER,
    make_grant,
    make_identity,
    make_keyfile,
)

from medlocker_dicom.errors import KeyFileError, NoGrantError, SignatureError
from medlocker_dicom.keyfile import (
    Kem,
    KeyFile,
    Lineage,
    caps,
    dump_grant,
    dump_keyfile,
    load_grant,
    load_keyfile,
    sign_keyfile,
)
from medlocker_dicom.keyfile.canonical import dumps

GRANTS = [
    make_grant(binding=replace(BINDING, locked_uid=uid)) for uid in ("1.2.9", "1.2.10", "1.2.3")
]
KEYFILE = make_keyfile(*GRANTS)
DATA = dump_keyfile(KEYFILE)
GRANT = dump_grant(GRANTS[0])


def test_round_trip() -> None:
    """What is dumped loads as the same key file, with its grants in order."""
    assert load_keyfile(DATA) == KEYFILE
    assert [grant.locked_uid for grant in KEYFILE.grants] == ["1.2.10", "1.2.3", "1.2.9"]


def test_hybrid_and_empty_round_trip() -> None:
    """The default kind of identity, and a key file without grants, work too."""
    issuer = make_identity("issuer, {braces} [and] commas,,,", Kem.MLKEM768_X25519)
    recipient = make_identity("recipient", Kem.MLKEM768_X25519)
    for grants in ([], [make_grant(recipient, issuer=issuer)]):
        signed = sign_keyfile(issuer, recipient.public, grants, NOW)
        assert load_keyfile(dump_keyfile(signed)) == signed


def test_lookup() -> None:
    """Each grant is found by its UID; for another there is a clear error."""
    for grant in GRANTS:
        assert KEYFILE.grant_for(grant.locked_uid) is grant
    for uid in ("1.2", "1.2.11", "9.9"):
        with pytest.raises(NoGrantError, match=uid):
            KEYFILE.grant_for(uid)


def test_removed_grant_shows() -> None:
    """Taking a grant out breaks the signature over the file."""
    fewer = replace(KEYFILE, grants=KEYFILE.grants[1:])
    with pytest.raises(SignatureError, match="2 grants"):
        load_keyfile(dump_keyfile(fewer))


def test_swapped_grant_shows() -> None:
    """Putting another genuine grant of the issuer in breaks it too."""
    other = make_grant(binding=replace(BINDING, locked_uid="1.2.3"))
    mixed = tuple(other if g.locked_uid == "1.2.3" else g for g in KEYFILE.grants)
    with pytest.raises(SignatureError):
        load_keyfile(dump_keyfile(replace(KEYFILE, grants=mixed)))


def test_swapped_issuer_or_name_shows() -> None:
    """The issuer's line is signed, its name included."""
    for public in (STRANGER.public, replace(ISSUER.public, name="St. Elsewhere")):
        with pytest.raises(SignatureError):
            load_keyfile(dump_keyfile(replace(KEYFILE, lineage=Lineage(public))))


def test_swapped_recipient_shows() -> None:
    """A recipient other than that of the grants is refused, signed or not."""
    with pytest.raises(KeyFileError, match="another recipient"):
        replace(KEYFILE, recipient=STRANGER.public.id)
    empty = make_keyfile()
    with pytest.raises(SignatureError):
        load_keyfile(dump_keyfile(replace(empty, recipient=STRANGER.public.id)))


def test_signing_refuses_wrong_grants() -> None:
    """Another's grant, a foreign recipient's, or two for one object are not signed over."""
    with pytest.raises(SignatureError):
        make_keyfile(make_grant(issuer=STRANGER))
    with pytest.raises(KeyFileError, match="another recipient"):
        make_keyfile(make_grant(STRANGER))
    with pytest.raises(KeyFileError, match="twice"):
        make_keyfile(make_grant(), make_grant())


def test_too_many_grants_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap on grants holds for making and for reading."""
    monkeypatch.setattr(caps, "MAX_GRANTS", 2)
    with pytest.raises(KeyFileError, match="more than"):
        make_keyfile(*GRANTS)
    with pytest.raises(KeyFileError, match="more than"):
        load_keyfile(DATA)


def test_largest_key_file_fits_the_cap() -> None:
    """As many of the largest grants as are allowed fit the cap on bytes."""
    grant = make_grant(make_identity("r", Kem.MLKEM768_X25519))
    largest = len(dump_grant(replace(grant, locked_uid="1" * 64)))
    assert largest <= caps.MAX_GRANT_BYTES
    assert caps.MAX_GRANTS * largest + 2 * caps.MAX_PUBLIC_BYTES <= caps.MAX_KEYFILE_BYTES


def test_oversized_file_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file above the cap is refused by its size alone."""
    monkeypatch.setattr(caps, "MAX_KEYFILE_BYTES", len(DATA) - 1)
    with pytest.raises(KeyFileError, match="bytes, more than"):
        load_keyfile(DATA)


def test_many_small_values_are_refused_unparsed() -> None:
    """Text that would grow many times over when parsed is refused by counting."""
    with pytest.raises(KeyFileError, match="values, more than"):
        load_keyfile(b"[" + b"[]," * 600_000 + b"[]]")


def edited(**members: object) -> bytes:
    """The key file with other members, canonical."""
    return dumps({**json.loads(DATA), **members})


def with_grant(**members: object) -> bytes:
    """A stored grant with other members, canonical."""
    return dumps({**json.loads(GRANT), **members})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}\n",
        b"[]\n",
        b"\xef\xbb\xbf" + DATA,
        b"[" * 100_000,
        DATA[:-1],
        DATA[: len(DATA) // 2],
        DATA + b"\n",
        DATA + DATA,
        DATA.replace(b",", b", ", 1),
        DATA.replace(b'"format"', b'"\\u0066ormat"'),
        DATA.replace(b'"version":1', b'"version":1.0'),
        DATA.replace(b'"version":1', b'"version":1e0'),
        DATA.replace(b'"version":1', b'"version":NaN'),
        DATA.replace(b'"version":1', b'"version":1,"version":1'),
        DATA.replace(b'"version":1', b'"version":1,"zebra":0'),
        DATA.replace(b'"grant_id"', b'"grant_id":"","grant_id"', 1),
        edited(version=2),
        edited(version=True),
        edited(format="medlocker"),
        edited(issuer=5),
        edited(issuer="medlocker-public-1 x25519"),
        edited(issuer=ISSUER.public.line + "\ud800"),
        edited(issuer="x" * 5000),
        edited(recipient=""),
        edited(recipient="A" * 43),
        edited(grants={}),
        edited(grants=[None]),
        edited(grants=["grant"]),
        edited(grants=json.loads(DATA)["grants"][::-1]),
        edited(grants=json.loads(DATA)["grants"][:1] * 2),
        edited(signature="AAAA"),
        edited(issued=None),
        edited(issued="2026-03-01"),
        edited(issued="1969-12-31T23:59:59Z"),
        edited(successions=None),
        edited(successions=[{}]),
    ],
)
def test_malformed_is_refused(data: bytes) -> None:
    """Anything but a canonical key file raises KeyFileError."""
    with pytest.raises(KeyFileError):
        load_keyfile(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA.replace(b'"version":1', b'"version":1,"version":1'), "names a member twice"),
        (DATA.replace(b'"version":1', b'"version":1.0'), "number that is not an integer"),
        (DATA.replace(b'"version":1', b'"version":Infinity'), "number that is not an integer"),
        (DATA.replace(b'"version":1', b'"version":true'), "version of key file is not 1"),
        (DATA.replace(b",", b", ", 1), "not canonical JSON"),
        (DATA[:-9], "not JSON"),
        (edited(zebra=1), "unknown member"),
        (edited(recipient="A" * 43 + "B"), "recipient of key file is not 32 bytes"),
        (edited(recipient="A" * 42 + "B="), "recipient of key file is not 32 bytes"),
    ],
)
def test_refusal_names_the_fault(data: bytes, message: str) -> None:
    """The message says which member is at fault and how."""
    with pytest.raises(KeyFileError, match=message):
        load_keyfile(data)


@pytest.mark.parametrize("text", ["2027-1-1T0:0:0Z", "2027-01-01T00:00:00+", "", "tomorrow"])
def test_refusal_of_a_time_shows_one(text: str) -> None:
    """A time in another form is refused with an example of the right one."""
    with pytest.raises(KeyFileError, match="not like 2026-01-01T00:00:00Z"):
        load_grant(with_grant(expires=text))


@pytest.mark.parametrize(
    "data",
    [
        GRANT[:-1],
        GRANT * 2,
        GRANT + b" " * caps.MAX_GRANT_BYTES,
        with_grant(locked_uid="1.02"),
        with_grant(locked_uid=12),
        with_grant(locked_uid="1." + "2" * 70),
        with_grant(binding="AA=="),
        with_grant(grant_id="AAAAAAAAAAAAAAAAAAAAAB=="),
        with_grant(grant_id="AAAAAAAAAAAAAAAAAAAAAA"),
        with_grant(grant_id="-_AAAAAAAAAAAAAAAAAAAA=="),
        with_grant(expires=""),
        with_grant(expires=0),
        with_grant(expires="2027-13-01T00:00:00Z"),
        with_grant(expires="2027-01-01T00:00:60Z"),
        with_grant(expires="2027-01-01t00:00:00z"),
        with_grant(expires="2027-1-01T00:00:00Z "),
        with_grant(expires="1969-12-31T23:59:59Z"),
        with_grant(expires="0000-01-01T00:00:00Z"),
        with_grant(sealed="AAAA"),
        with_grant(sealed="A" * 5000),
        with_grant(more=None),
    ],
)
def test_malformed_grant_is_refused(data: bytes) -> None:
    """Anything but a canonical grant raises KeyFileError."""
    with pytest.raises(KeyFileError):
        load_grant(data)


def test_key_file_of_wrong_lengths_is_never_made() -> None:
    """Id and signature have fixed lengths."""
    with pytest.raises(KeyFileError):
        KeyFile(Lineage(ISSUER.public), bytes(31), NOW, (), bytes(64))
    with pytest.raises(KeyFileError):
        KeyFile(Lineage(ISSUER.public), bytes(32), NOW, (), bytes(63))
