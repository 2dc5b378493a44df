"""The test vectors in keys/vectors: all there, up to date, and each refused as it says."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from make_vectors import FOLDER, files

from medlocker_dicom.errors import MedLockerError, NoGrantError
from medlocker_dicom.keyfile import (
    Binding,
    Identity,
    PublicIdentity,
    load_detached,
    load_identity,
    load_keyfile,
    load_public,
    load_status,
    open_grant,
    open_packet,
)

COUNT = 130
LOAD: dict[str, Callable[[bytes], object]] = {
    ".mlkey": load_keyfile,
    ".mlstatus": load_status,
    ".mlpacket": load_detached,
}
INDEX: dict[str, Any] = json.loads((FOLDER / "index.json").read_text())
FIELDS: dict[str, Any] = {
    name: bytes.fromhex(value) if name in {"pixel_sha256", "issuer"} else value
    for name, value in INDEX["binding"].items()
}
BINDING = Binding(**FIELDS)
NOW = datetime.fromisoformat(INDEX["now"])


GRANT_ID = bytes(range(16))
"""Of the grant at hand, whose status the status lists tell."""


def at_stage(stage: str, suffix: str) -> list[str]:
    """Names of the vectors that fail at a stage; of the valid ones for none."""
    named = INDEX["vectors"].items()
    return [name for name, one in named if one["stage"] == stage and name.endswith(suffix)]


def read(name: str) -> bytes:
    """The bytes of a vector."""
    return (FOLDER / name).read_bytes()


@pytest.fixture(scope="module")
def recipient() -> Identity:
    """The identity that the vectors are for."""
    return load_identity((FOLDER / "recipient.key").read_bytes(), lambda: b"")


@pytest.fixture(scope="module")
def issuer() -> PublicIdentity:
    """The issuer that is trusted: the one that locked the object at hand."""
    return load_public((FOLDER / "issuer.pub").read_bytes())


def open_key(name: str, recipient: Identity, issuer: PublicIdentity) -> str:
    """Open the grant for the object at hand; the DEK, hexadecimal."""
    keyfile = load_keyfile(read(name))
    keyfile.lineage.check_includes(issuer.verify_key)
    grant = keyfile.grant_for(BINDING.locked_uid)
    return open_grant(grant, BINDING, recipient, keyfile.issuer.verify_key, NOW).hex()


def open_status(name: str, issuer: PublicIdentity) -> None:
    """Look the grant at hand up in a status list."""
    status = load_status(read(name))
    status.lineage.check_includes(issuer.verify_key)
    status.check(GRANT_ID)


def open_detached(name: str) -> None:
    """Open a detached packet for the object at hand."""
    detached = load_detached(read(name))
    binding = replace(BINDING, source_uid=detached.source_uid, issuer=detached.issuer)
    if binding != BINDING:
        raise NoGrantError("the grant at hand is for another binding")
    open_packet(detached.packet, bytes.fromhex(INDEX["dek"]), binding)


def test_every_vector_is_there() -> None:
    """The folder, the index and the number in this file agree."""
    on_disk = {path.name for path in FOLDER.iterdir() if path.suffix in LOAD}
    assert on_disk == set(INDEX["vectors"])
    assert len(on_disk) == INDEX["count"] == COUNT


def test_vectors_are_those_the_script_makes() -> None:
    """Nobody edited a vector by hand, and none is left from before."""
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == files()


def test_no_two_vectors_are_alike() -> None:
    """Each vector is another file of its kind."""
    assert len({(Path(name).suffix, read(name)) for name in INDEX["vectors"]}) == COUNT


@pytest.mark.parametrize("name", at_stage("", ".mlkey"))
def test_valid_vector_opens(name: str, recipient: Identity, issuer: PublicIdentity) -> None:
    """A valid vector gives the DEK."""
    assert open_key(name, recipient, issuer) == INDEX["dek"]


@pytest.mark.parametrize("name", [*at_stage("", ".mlstatus"), *at_stage("", ".mlpacket")])
def test_valid_side_file_opens(name: str, issuer: PublicIdentity) -> None:
    """A valid status list leaves the grant alone; a valid packet opens."""
    if name.endswith(".mlstatus"):
        open_status(name, issuer)
    else:
        open_detached(name)


@pytest.mark.parametrize("name", at_stage("load", ""))
def test_vector_is_refused_on_loading(name: str) -> None:
    """A malformed or wrongly signed file is refused with its error, exactly."""
    with pytest.raises(MedLockerError) as caught:
        LOAD[Path(name).suffix](read(name))
    assert type(caught.value).__name__ == INDEX["vectors"][name]["error"]


@pytest.mark.parametrize("name", at_stage("open", ""))
def test_vector_is_refused_on_opening(
    name: str, recipient: Identity, issuer: PublicIdentity
) -> None:
    """A file that loads and does not open here, now, for this recipient says why."""
    LOAD[Path(name).suffix](read(name))
    opened: dict[str, Callable[[], object]] = {
        ".mlkey": lambda: open_key(name, recipient, issuer),
        ".mlstatus": lambda: open_status(name, issuer),
        ".mlpacket": lambda: open_detached(name),
    }
    with pytest.raises(MedLockerError) as caught:
        opened[Path(name).suffix]()
    assert type(caught.value).__name__ == INDEX["vectors"][name]["error"]
