"""A vault with people and instances, as quickly as it goes: compact keys, made-up instances."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from medlocker_dicom.database import place_of
from medlocker_dicom.keyfile import Grant, Identity, Kem, issue_grant
from medlocker_dicom.vault import people
from medlocker_dicom.vault.instances import Instance, Selection, keep
from medlocker_dicom.vault.reissue import Progress, Reissue
from medlocker_dicom.vault.vault import Vault, make_vault

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
ALL = Selection()


def made(name: str) -> Identity:
    """A fixed identity for each name, of the quick kind."""
    one, two, three = (hashlib.sha256(f"{name} {n}".encode()).digest() for n in range(3))
    return Identity(Kem.X25519, one, two, three, name)


ISSUER, CUSTODIAN, ALICE, BOB = (made(name) for name in ("issuer", "custodian", "alice", "bob"))


@dataclass
class Clock:
    """Stands still unless it is moved."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        """The time."""
        return self.now


@dataclass(frozen=True)
class Bound:
    """What a grant is for."""

    locked_uid: str
    digest: bytes


@dataclass(frozen=True)
class House:
    """An owner with a vault."""

    vault: Vault
    clock: Clock = field(default_factory=Clock)

    def lock(self, number: int, *to: Identity, packet: bytes | None = None) -> Instance:
        """Store a made-up instance for some people and the custodian."""
        one = instance(number, packet)
        with self.vault.writing() as writing:
            keep(writing, one, granted(one, (*to, CUSTODIAN)))
            writing.checkpoint(ISSUER)
        return one

    def reissue(self, to: str = "bob", selection: Selection = ALL, **more: object) -> Progress:
        """Issue again from the custodian's grants."""
        run = Reissue(self.vault, ISSUER, CUSTODIAN, to, selection, **more)  # type: ignore[arg-type]
        return list(run.run())[-1]


def house(place: str) -> House:
    """Make a vault with an issuer, a custodian, alice and bob."""
    clock = Clock()
    vault = make_vault(place_of(place), clock)
    with vault.writing() as writing:
        people.begin(writing, ISSUER.public)
        people.add(writing, ISSUER, "custodian", CUSTODIAN.public, custodian=True)
        people.add(writing, ISSUER, "alice", ALICE.public)
        people.add(writing, ISSUER, "bob", BOB.public)
        writing.checkpoint(ISSUER)
    return House(vault, clock)


def instance(
    number: int, packet: bytes | None = None, issuer: Identity = ISSUER, root: str = "1.2"
) -> Instance:
    """Make up an instance; two make a study, each a series of its own."""
    record = {
        "locked_sop_instance_uid": f"{root}.1.{number}",
        "source_sop_instance_uid": f"{root}.2.{number}",
        "study_instance_uid": f"{root}.3.{number // 2}",
        "source_series_instance_uid": f"{root}.4.{number}",
        "locked_series_instance_uid": f"{root}.5.{number}",
    }
    return Instance(
        locked_uid=record["locked_sop_instance_uid"],
        source_uid=record["source_sop_instance_uid"],
        study_uid=record["study_instance_uid"],
        source_series_uid=record["source_series_instance_uid"],
        locked_series_uid=record["locked_series_instance_uid"],
        binding=hashlib.sha256(f"binding {number}".encode()).digest(),
        issuer=issuer.public.verify_key,
        record=json.dumps(record),
        packet=packet,
    )


def dek(number: int) -> bytes:
    """The key of a made-up instance."""
    return hashlib.sha256(f"dek {number}".encode()).digest()


def granted(one: Instance, to: Sequence[Identity], days: int | None = None) -> list[Grant]:
    """Issue an instance's grants."""
    key = dek(int(one.locked_uid.rpartition(".")[2]))
    end = None if days is None else NOW + timedelta(days=days)
    bound = Bound(one.locked_uid, one.binding)
    return [
        issue_grant(key, bound, person.public, ISSUER, expires=end, grant_id=os.urandom(16))
        for person in to
    ]
