"""The test vectors in keys/vectors: all there, up to date, and each refused as it says."""

import json
from datetime import datetime
from typing import Any

import pytest
from make_vectors import FOLDER, files

from medlocker_dicom.errors import MedLockerError
from medlocker_dicom.keyfile import (
    Binding,
    Identity,
    PublicIdentity,
    load_identity,
    load_keyfile,
    load_public,
    open_grant,
)

COUNT = 72
INDEX: dict[str, Any] = json.loads((FOLDER / "index.json").read_text())
FIELDS: dict[str, Any] = {
    name: bytes.fromhex(value) if name in {"pixel_sha256", "issuer"} else value
    for name, value in INDEX["binding"].items()
}
BINDING = Binding(**FIELDS)
NOW = datetime.fromisoformat(INDEX["now"])


def at_stage(stage: str) -> list[str]:
    """Names of the vectors that fail at a stage; of the valid ones for none."""
    return [name for name, vector in INDEX["vectors"].items() if vector["stage"] == stage]


def read(name: str) -> bytes:
    """The bytes of a vector."""
    return (FOLDER / f"{name}.mlkey").read_bytes()


@pytest.fixture(scope="module")
def recipient() -> Identity:
    """The identity that the vectors are for."""
    return load_identity((FOLDER / "recipient.key").read_bytes(), lambda: b"")


@pytest.fixture(scope="module")
def issuer() -> PublicIdentity:
    """The issuer that is trusted."""
    return load_public((FOLDER / "issuer.pub").read_bytes())


def test_every_vector_is_there() -> None:
    """The folder, the index and the number in this file agree."""
    on_disk = {path.stem for path in FOLDER.glob("*.mlkey")}
    assert on_disk == set(INDEX["vectors"])
    assert len(on_disk) == INDEX["count"] == COUNT


def test_vectors_are_those_the_script_makes() -> None:
    """Nobody edited a vector by hand, and none is left from before."""
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == files()


def test_no_two_vectors_are_alike() -> None:
    """Each vector is a file of its own."""
    assert len({path.read_bytes() for path in FOLDER.glob("*.mlkey")}) == COUNT


@pytest.mark.parametrize("name", at_stage(""))
def test_valid_vector_opens(name: str, recipient: Identity, issuer: PublicIdentity) -> None:
    """A valid vector gives the DEK."""
    grant = load_keyfile(read(name)).grant_for(BINDING.locked_uid)
    dek = open_grant(grant, BINDING, recipient, issuer.verify_key, NOW)
    assert dek.hex() == INDEX["dek"]


@pytest.mark.parametrize("name", at_stage("load"))
def test_vector_is_refused_on_loading(name: str) -> None:
    """A malformed or wrongly signed file is refused with its error, exactly."""
    with pytest.raises(MedLockerError) as caught:
        load_keyfile(read(name))
    assert type(caught.value).__name__ == INDEX["vectors"][name]["error"]


@pytest.mark.parametrize("name", at_stage("open"))
def test_vector_is_refused_on_opening(
    name: str, recipient: Identity, issuer: PublicIdentity
) -> None:
    """A file that loads and does not open here, now, for this recipient says why."""
    keyfile = load_keyfile(read(name))
    with pytest.raises(MedLockerError) as caught:
        open_grant(
            keyfile.grant_for(BINDING.locked_uid), BINDING, recipient, issuer.verify_key, NOW
        )
    assert type(caught.value).__name__ == INDEX["vectors"][name]["error"]
