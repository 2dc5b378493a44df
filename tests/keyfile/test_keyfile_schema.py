"""keys/keyfile.schema.json against the code and the vectors."""

import json
from typing import Any

import jsonschema
import pytest
from keyfile_factories import NOW, make_grant, make_identity
from make_vectors import FOLDER, vectors

from medlocker_dicom.keyfile import Kem, caps, dump_keyfile, keyfile, sign_keyfile

SCHEMA: dict[str, Any] = json.loads((FOLDER.parent / "keyfile.schema.json").read_bytes())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
KEYFILES = {name: one for name, one in vectors().items() if one.suffix == ".mlkey"}

# Canonical text, order, dates and what is signed are for a reader alone.
UNSEEN = {
    "header-no-newline",
    "header-extended",
    "header-space",
    "header-member-order",
    "header-escape",
    "header-duplicate-member",
    "header-float-version",
    "header-issuer-damaged",
    "header-issuer-small-order",
    "grant-duplicate",
    "grant-order",
    "grant-duplicate-member",
    "grant-other-recipient",
    "grant-expires-no-date",
    "succession-twice",
    "succession-backwards",
    "succession-itself",
    "succession-elsewhere",
    "succession-since-no-date",
}


def test_the_schema_is_one() -> None:
    """It is a valid JSON Schema of draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_object_is_closed_and_has_the_readers_members() -> None:
    """Members are those that the reader demands, all required, no others allowed."""
    assert set(SCHEMA["properties"]) == keyfile.KEYFILE_MEMBERS
    objects = [SCHEMA, SCHEMA["$defs"]["grant"], SCHEMA["$defs"]["succession"]]
    for one in objects:
        assert one["additionalProperties"] is False
        assert set(one["required"]) == set(one["properties"])
    assert SCHEMA["properties"]["grants"]["maxItems"] == caps.MAX_GRANTS
    assert SCHEMA["properties"]["successions"]["maxItems"] == caps.MAX_SUCCESSIONS


@pytest.mark.parametrize("name", KEYFILES)
def test_schema_and_reader_agree(name: str) -> None:
    """What a reader parses fits the schema; what it refuses does not, but for what is listed."""
    vector = KEYFILES[name]
    try:
        record = json.loads(vector.data.decode("ascii"))
    except (ValueError, RecursionError):
        assert vector.error == "KeyFileError"
        return
    fits = VALIDATOR.is_valid(record)
    assert fits == (vector.error != "KeyFileError" or name in UNSEEN)


def test_grants_of_the_default_kind_fit() -> None:
    """The sealed DEK of the hybrid kind has its own length."""
    issuer, alice = make_identity("issuer"), make_identity("alice", Kem.MLKEM768_X25519)
    signed = sign_keyfile(issuer, alice.public, [make_grant(alice, issuer=issuer)], NOW)
    VALIDATOR.validate(json.loads(dump_keyfile(signed)))
