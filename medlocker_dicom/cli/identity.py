"""medlocker identity: make private and public keys."""

from __future__ import annotations

import os
import resource
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from medlocker_dicom.cli.guard import plain
from medlocker_dicom.errors import DestinationError, IdentityError, OutputError, UsageError
from medlocker_dicom.files import check_called, write_file
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
    if not file.name:
        raise DestinationError(f"{file}: is a folder", "name a file")
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
        sys.stderr.write(plain(f"{file} has no passphrase: whoever can read it can use it") + "\n")
    sys.stdout.write(
        f"{plain(str(file))}\n{plain(str(public_path))}\n"
        f"fingerprint {identity.public.fingerprint}\nin words    {identity.public.words}\n"
    )


def read_private(path: Path, passphrase_file: Path | None) -> Identity:
    """Read an identity, asking for its passphrase where it has one.

    Raises
    ------
    IdentityError
        It cannot be read, others can read it, or the passphrase is wrong.
    """
    _never_dumped()
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


def _never_dumped() -> None:
    """Let no crash write this process's memory, which holds private keys, to a file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


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


def read_public_keys(paths: Sequence[Path]) -> dict[str, PublicIdentity]:
    """Read public key files, and all ``.pub`` files of folders; by what people are called.

    Raises
    ------
    IdentityError
        One cannot be read, or holds something else.
    UsageError
        A folder holds none, or two have one name or one key.
    """
    named: dict[str, PublicIdentity] = {}
    for path in paths:
        files = sorted(path.glob("*.pub")) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{path}: holds no .pub file")
        for file in files:
            if file != path and not file.is_file():  # a pipe would keep its reader waiting
                raise IdentityError(f"{file}: is no plain file")
            public = read_public(file)
            name = file.name.removesuffix(".pub").removesuffix(".key")
            check_called(name)
            if name in named:
                raise UsageError(f"{file}: a recipient called {name} is there already")
            if any(public.id == other.id for other in named.values()):
                raise UsageError(f"{file}: this public key is given twice")
            named[name] = public
    return named


def read_issuer(path: Path | None, passphrase_file: Path | None, *, make: bool = False) -> Identity:
    """Read the identity that signs: a file, or this user's own.

    Parameters
    ----------
    path
        None for this user's own.
    passphrase_file
        Where to read its passphrase.
    make
        Whether this user's own is made, without a passphrase, where there is none.

    Raises
    ------
    IdentityError
        It cannot be read, is not there, or the passphrase is wrong.
    UsageError
        It cannot be made.
    """
    if path is not None:
        return read_private(path, passphrase_file)
    base = os.environ.get("XDG_CONFIG_HOME")
    own = (Path(base) if base else Path.home() / ".config") / "medlocker" / "issuer.key"
    if make and not own.exists():
        try:
            own.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{own.parent}: cannot be made: {error.strerror}", "name an identity by --issuer"
            ) from error
        try:
            create_identity(own, dump_identity(Identity.generate(name="issuer"), None))
        except DestinationError:
            if not own.exists():
                raise
            return read_private(own, passphrase_file)  # another process made it meanwhile
        made = f"made {own}, without a passphrase: keep it safe, it signs your grants"
        sys.stderr.write(plain(made) + "\n")
    return read_private(own, passphrase_file)


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
            mode = os.fstat(stream.fileno()).st_mode
            if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
                raise IdentityError(
                    f"{file}: other users can read or write this passphrase", f"chmod 600 {file}"
                )
            return stream.readline(4096).rstrip(b"\r\n")
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
