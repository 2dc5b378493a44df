"""Options of all commands that open the vault, and the vault that they mean."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medlocker_dicom.cli.engine import check_vault
from medlocker_dicom.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medlocker_dicom.database import Place
    from medlocker_dicom.vault.instances import Selection
    from medlocker_dicom.vault.vault import Vault

VARIABLE = "MEDLOCKER_VAULT"

VaultOption = Annotated[
    str | None,
    typer.Option(
        "--vault",
        metavar="FILE|URL",
        help=f"The vault: a file, or a URL of PostgreSQL. Default: ${VARIABLE}, or your own.",
    ),
]
IssuerOption = Annotated[
    Path | None,
    typer.Option("--issuer", metavar="FILE", help="Identity that signs; by default your own."),
]
#: What several of them together select is the union.
Studies = Annotated[
    list[str] | None,
    typer.Option(
        "--study",
        metavar="UID",
        help="Only this study, and what else is named by --study, --series or --instance; repeat.",
    ),
]
Series = Annotated[
    list[str] | None,
    typer.Option("--series", metavar="UID", help="As --study: a series, source or locked."),
]
Instances = Annotated[
    list[str] | None,
    typer.Option("--instance", metavar="UID", help="As --study: an instance, source or locked."),
]


def selection_of(
    studies: list[str] | None, series: list[str] | None, instances: list[str] | None
) -> Selection:
    """Make a selection of what the options name."""
    from medlocker_dicom.vault.instances import Selection  # noqa: PLC0415  SQLAlchemy

    return Selection(studies or (), series or (), instances or ())


def place_chosen(option: str | None) -> Place:
    """Tell where the vault lies.

    Raises
    ------
    UsageError
        The option is unusable, or holds a password.
    """
    from medlocker_dicom.database import place_of  # noqa: PLC0415  SQLAlchemy

    if option:
        return place_named(option)
    return place_of(os.environ.get(VARIABLE) or str(_own_path()))


def place_named(option: str) -> Place:
    """Tell where a database lies that is named on the command line; raises as `place_chosen`."""
    from medlocker_dicom.database import place_of  # noqa: PLC0415  SQLAlchemy

    place = place_of(option)
    if place.url.password is not None:
        raise UsageError(
            "a password on the command line is seen by everyone on this machine",
            f"put it into ~/.pgpass, or the vault's whole URL into ${VARIABLE}",
        )
    return place


@contextmanager
def opened(option: str | None) -> Iterator[Vault]:
    """Open the vault that an option means.

    Raises
    ------
    UsageError
        The option is unusable, or libraries are missing.
    VaultError
        There is no vault, or it cannot be opened.
    """
    check_vault("the vault needs")
    from medlocker_dicom.vault.vault import open_vault  # noqa: PLC0415  the same

    vault = open_vault(place_chosen(option))
    try:
        yield vault
    finally:
        vault.close()


def has_vault(option: str | None) -> bool:
    """Tell whether a vault is meant: named, or there without being named."""
    return bool(option or os.environ.get(VARIABLE)) or _own_path().exists()


def _own_path() -> Path:
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "medlocker" / "vault.db"
