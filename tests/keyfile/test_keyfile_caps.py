"""keys/keyfile.md against the code: caps, members, domains."""

import re
from pathlib import Path

from medlocker_dicom.keyfile import (
    caps,
    detached,
    grant_text,
    identity_text,
    keyfile,
    receipt,
    status,
    succession,
)
from medlocker_dicom.keyfile.kem import Kem

SPECIFICATION = (Path(__file__).parents[2] / "keys" / "keyfile.md").read_text()
SOURCES = Path(caps.__file__).parents[1]
UNITS = {"": 1, "KiB": caps.KIB, "MiB": caps.MIB}


def test_table_of_caps_is_that_of_the_code() -> None:
    """Each cap of the code is in the table with its value, and nothing else is."""
    rows = re.findall(r"^\| `(MAX_\w+)` \| ([\d ]+?) ?(KiB|MiB|) \|", SPECIFICATION, re.MULTILINE)
    table = {name: int(number.replace(" ", "")) * UNITS[unit] for name, number, unit in rows}
    code = {name: value for name, value in vars(caps).items() if name.startswith("MAX_")}
    assert table == code
    assert len(rows) == len(code)


def test_every_member_is_described() -> None:
    """Each JSON member that a reader demands has its row."""
    members = (
        keyfile.KEYFILE_MEMBERS
        | succession.SUCCESSION_MEMBERS
        | status.STATUS_MEMBERS
        | receipt.RECEIPT_MEMBERS
        | receipt.ENTRY_MEMBERS
        | detached.DETACHED_MEMBERS
        | grant_text.GRANT_MEMBERS
        | identity_text._MEMBERS
        | identity_text._KDF_MEMBERS
    )
    for member in members:
        assert re.search(rf"^\| ([^|]*, )?`{member}`(, [^|]*)? \|", SPECIFICATION, re.MULTILINE)


def test_every_domain_is_listed() -> None:
    """The domains in the code and those in the text are the same."""
    domain = re.compile(r"medlocker/[a-z-]+/v\d+")
    used = {found for path in SOURCES.rglob("*.py") for found in domain.findall(path.read_text())}
    assert used == set(domain.findall(SPECIFICATION))


def test_sizes_of_kinds_are_stated() -> None:
    """Kinds of keys with their sizes are those of the code."""
    for kind in Kem:
        assert f"| `{kind}` | {kind.public_bytes} | {kind.sealed_bytes} |" in SPECIFICATION
