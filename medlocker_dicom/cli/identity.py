"""medlocker identity: make private and public keys."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from medlocker_dicom.errors import DestinationError, IdentityError, OutputError, UsageError
from medlocker_dicom.files import write_file
from medlocker_dicom.keyfile import (
    Identity,
    Kem,
    PublicIdentity,
    dump_identity,
    dump_public,
    load_identity,
    load_public,
)
from medlocker_dicom.keyfile.identity_file import create_identity, read_identity

app = typer.Typer(help="Make an identity: a private key file and a public one to hand out.")

PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Read the passphrase from this file's first line."),
]


@app.callback()
def group() -> None:
    """Make an identity: a private key file and a public one to hand out."""


@app.command()
def new(
    file: Annotated[
        Path, typer.Argument(help="Private key file to write; FILE.pub goes beside it.")
    ],
    *,
    no_passphrase: Annotated[
        bool, typer.Option("--no-passphrase", help="Store the private key unprotected.")
    ] = False,
    passphrase_file: PassphraseFile = None,
    compact: Annotated[
        bool,
        typer.Option("--compact", help="X25519 alone: shorter keys, no post-quantum protection."),
    ] = False,
    name: Annotated[str, typer.Option(help="A name that others see in the public key.")] = "",
) -> None:
    """Write a new identity to FILE (mode 0600) and its public half to FILE.pub."""
    public_path = file.with_name(file.name + ".pub")
    if public_path.exists():
        raise DestinationError(f"{public_path} exists", "choose another name")
    kem = Kem.X25519 if compact else Kem.MLKEM768_X25519
    identity = Identity.generate(kem, name or file.stem)
    passphrase = None if no_passphrase else _new_passphrase(passphrase_file)
    create_identity(file, dump_identity(identity, passphrase))
    try:
        write_file(public_path, dump_public(identity.public))
    except OutputError:
        file.unlink()  # nothing was sealed to it yet, and the name is free for another try
        raise
    if no_passphrase:
        sys.stderr.write(f"{file} has no passphrase: whoever can read it can use it\n")
    sys.stdout.write(f"{file}\n{public_path}\nfingerprint {identity.public.fingerprint}\n")


def read_private(path: Path, passphrase_file: Path | None) -> Identity:
    """Read an identity, asking for its passphrase where it has one.

    Raises
    ------
    IdentityError
        It cannot be read, others can read it, or the passphrase is wrong.
    """
    data = read_identity(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise IdentityError(
            f"{path}: other users can read or write this private key",
            f"chmod 600 {path}",
        )
    try:
        return load_identity(data, lambda: _passphrase(path, passphrase_file))
    except IdentityError as error:
        raise IdentityError(f"{path}: {error}", error.hint) from error


def read_public(path: Path) -> PublicIdentity:
    """Read a public key file.

    Raises
    ------
    IdentityError
        It cannot be read, or holds something else.
    """
    data = read_identity(path)
    try:
        return load_public(data)
    except IdentityError as error:
        hint = error.hint or "give the .pub file that `medlocker identity new` wrote"
        raise IdentityError(f"{path}: {error}", hint) from error


def _passphrase(path: Path, file: Path | None) -> bytes:
    if file is not None:
        return _first_line(file)
    if not sys.stdin.isatty():
        raise IdentityError(
            f"{path}: has a passphrase, and there is no terminal to ask for it",
            "use --passphrase-file",
        )
    entered: str = typer.prompt(f"passphrase of {path}", hide_input=True, err=True)
    return entered.encode()


def _new_passphrase(file: Path | None) -> bytes:
    if file is not None:
        return _first_line(file)
    if not sys.stdin.isatty():
        raise UsageError(
            "no terminal to ask for a passphrase", "use --passphrase-file or --no-passphrase"
        )
    entered: str = typer.prompt(
        "new passphrase", hide_input=True, confirmation_prompt=True, err=True
    )
    return entered.encode()


def _first_line(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.readline(4096).rstrip(b"\r\n")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
