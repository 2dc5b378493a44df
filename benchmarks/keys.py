"""Seconds to issue, export, check and open keys; sizes; and what guessing a passphrase costs.

    python benchmarks/keys.py [--instances 10000] [--recipients 5]

Each kind of database once, PostgreSQL on a socket of this machine with its default durability.
Ratios to the first row stand beside the seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from medlocker_dicom.database import place_of
from medlocker_dicom.errors import IdentityError
from medlocker_dicom.keyfile import (
    Identity,
    Kem,
    dump_identity,
    issue_grant,
    load_identity,
    load_keyfile,
    open_grant,
)
from medlocker_dicom.vault import people
from medlocker_dicom.vault.check import check
from medlocker_dicom.vault.export import export
from medlocker_dicom.vault.instances import Selection, keep
from medlocker_dicom.vault.reissue import Held, Reissue
from medlocker_dicom.vault.vault import make_vault
from postgres import database, served, server_programs
from vault_factories import Bound, instance

EVERYTHING = Selection()
ROOT = "1.2.826.0.1.3680043.10"  # as long as UIDs are


def measured(place: str, instances: int, recipients: int, kem: Kem) -> dict[str, float]:
    """Run the whole way once.

    Returns
    -------
    dict
        Seconds, and bytes of a key file.
    """
    issuer, custodian = Identity.generate(name="issuer"), Identity.generate(kem, "custodian")
    others = [Identity.generate(kem, f"recipient-{n}") for n in range(recipients)]
    vault = make_vault(place_of(place))
    with vault.writing() as writing:
        people.begin(writing, issuer.public)
        people.add(writing, issuer, "custodian", custodian.public, custodian=True)
        for one in others:
            people.add(writing, issuer, one.name, one.public)
    for first in range(0, instances, 500):
        with vault.writing() as writing:
            for number in range(first, min(first + 500, instances)):
                item = instance(number, issuer=issuer, root=ROOT)
                dek, grant_id = os.urandom(32), os.urandom(16)
                to = custodian.public
                grant = issue_grant(
                    dek,
                    Bound(item.locked_uid, item.binding),
                    to,
                    issuer,
                    expires=None,
                    grant_id=grant_id,
                )
                keep(writing, item, [grant])
            writing.checkpoint(issuer)
    figures: dict[str, float] = {}
    started = time.perf_counter()
    for one in others:
        for _ in Reissue(vault, issuer, custodian, one.name, EVERYTHING).run():
            pass
    figures["issue all, s"] = time.perf_counter() - started
    started = time.perf_counter()
    exported = [export(vault, issuer, one.name, EVERYTHING) for one in others]
    figures["export all, s"] = time.perf_counter() - started
    started = time.perf_counter()
    keyfile = load_keyfile(exported[0].keyfiles[0])
    figures["read a key file, s"] = time.perf_counter() - started
    started = time.perf_counter()
    grant = keyfile.grant_for(f"1.2.826.0.1.3680043.10.1.{instances // 2}")
    open_grant(grant, Held(grant), others[0], keyfile.issuer.verify_key, vault.clock())
    figures["open one, s"] = time.perf_counter() - started
    started = time.perf_counter()
    for _ in check(vault):
        pass
    figures["check, s"] = time.perf_counter() - started
    figures["a key file, MB"] = len(exported[0].keyfiles[0]) / 1e6
    figures["a grant in it, bytes"] = len(exported[0].keyfiles[0]) / instances
    vault.close()
    return figures


def guessing() -> None:
    """Print what a guess at an identity's passphrase costs."""
    data = dump_identity(Identity.generate(), b"the passphrase")

    guess(data)
    started = time.perf_counter()
    for _ in range(5):
        guess(data)
    one = (time.perf_counter() - started) / 5
    cores = os.cpu_count() or 1
    started = time.perf_counter()
    with ProcessPoolExecutor(cores) as pool:
        list(pool.map(guess, [data] * 10 * cores))
    rate = 10 * cores / (time.perf_counter() - started)
    print(f"Argon2id, 64 MiB, 3 passes: {1000 * one:.0f} ms a guess, {rate:.1f} guesses/s on")
    print(f"{cores} cores; 40 random bits: {2**39 / rate / 3.15e7:.0f} years on average,")
    print(f"on a thousand such machines {2**39 / rate / 3.15e10:.1f}")


def guess(data: bytes) -> None:
    """Try a wrong passphrase."""
    with suppress(IdentityError):
        load_identity(data, lambda: b"another one")
        sys.exit("a wrong passphrase opened an identity")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--recipients", type=int, default=5)
    arguments = parser.parse_args()
    guessing()
    size = (arguments.instances, arguments.recipients)
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kem in (Kem.MLKEM768_X25519, Kem.X25519):
            place = str(Path(folder) / f"{kem.value}.db")
            rows[f"SQLite, {kem.value}"] = measured(place, *size, kem)
        programs = server_programs() or sys.exit("postgresql is not installed")
        with (
            served(programs, Path(folder), durable=True) as url,
            database(url) as place,
        ):
            kem = Kem.MLKEM768_X25519
            rows[f"PostgreSQL, {kem.value}"] = measured(place, *size, kem)
    print(f"\n{size[0]} instances x {size[1]} recipients\n")
    names = list(next(iter(rows.values())))
    print("| | " + " | ".join(rows) + " |\n|---|" + "---|" * len(rows))
    for name in names:
        first = next(iter(rows.values()))[name]
        cells = [f"{row[name]:.4g} ({row[name] / first:.2f} x)" for row in rows.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
