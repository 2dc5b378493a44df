"""For whom a lock is: public key files, and names in the vault."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medlocker_dicom.cli.identity import read_public_keys
from medlocker_dicom.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medlocker_dicom.keyfile import Identity, PublicIdentity
    from medlocker_dicom.vault.vault import Vault


class Audience(NamedTuple):
    """Recipients and custodians by name."""

    recipients: dict[str, PublicIdentity]
    custodians: dict[str, PublicIdentity]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the recipients, then of the custodians."""
        return (*self.recipients, *self.custodians)


def audience_of(to: Sequence[str], custodian: Path | None, vault: Vault | None) -> Audience:
    """Read whom a lock is for.

    Parameters
    ----------
    to
        Public key files, folders of them, and names in the vault.
    custodian
        Public key file; a vault has its own custodian.
    vault
        None for none.

    Raises
    ------
    IdentityError
        A public key cannot be read.
    UsageError
        A name is unknown or retired, or somebody is named twice.
    """
    known: dict[str, PublicIdentity] = {}
    files = []
    keepers = read_public_keys([custodian]) if custodian else {}
    if vault is None:
        files = [Path(one) for one in to]
    else:
        from medlocker_dicom.vault import people  # noqa: PLC0415  SQLAlchemy

        with vault.reading() as connection:
            own = {one.name: one.public for one in people.custodians(connection)}
            names = {one.name for one in people.everyone(connection)}
            for one in to:
                if one not in names and Path(one).exists():
                    files.append(Path(one))
                    continue
                known[one] = people.find_active(connection, one, "locked for").public
        if strange := [name for name, key in keepers.items() if key not in own.values()]:
            raise UsageError(
                f"{strange[0]} is not the vault's custodian",
                "add them first: medlocker recipient add --custodian",
            )
        keepers = own
    recipients = read_public_keys(files) | known
    everyone = [*recipients.values(), *keepers.values()]
    if len(everyone) > len({one.id for one in everyone}):
        raise UsageError("one public key is given twice")
    if len(recipients) + len(keepers) > len({*recipients, *keepers}):
        raise UsageError("two of those whom this is for have one name")
    return Audience(recipients, keepers)


def enter(audience: Audience, issuer: Identity, vault: Vault) -> None:
    """Add those to the vault who are not in it yet.

    Raises
    ------
    VaultError
        The issuer is not the vault's.
    UsageError
        A name or a key is taken.
    """
    from medlocker_dicom.vault import people  # noqa: PLC0415  SQLAlchemy

    with vault.writing() as writing:
        people.check_issuer(writing.connection, issuer)
        for name, public in audience.recipients.items():
            people.add(writing, issuer, name, public)
