"""Where a vault lies: SQLite in a file of its owner's, or PostgreSQL by URL."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from medlocker_dicom.errors import (
    DiskFullError,
    UsageError,
    VaultBusyError,
    VaultDamagedError,
    VaultError,
    VaultMissingError,
    VaultVersionError,
)
from medlocker_dicom.files import PRIVATE
from medlocker_dicom.vault.chain import RESTORE
from medlocker_dicom.vault.schema import head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

#: How long a writer waits for another, in seconds.
PATIENCE: Final = 30
_MIGRATIONS = Path(__file__).with_name("migrations")
_POSTGRESQL = "postgresql+psycopg"
_REVISIONS: Final = "alembic_version"
_IS_VAULT: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
_LOCK: Final = 0x4D4C  # of PostgreSQL, so that two who make a vault do it one after the other


@dataclass(frozen=True)
class Place:
    """Where a vault lies.

    Attributes
    ----------
    url
        Of SQLAlchemy.
    """

    url: URL = field(repr=False)  # may hold a password

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for a server."""
        return Path(self.url.database or "") if self.url.drivername == "sqlite" else None

    def __str__(self) -> str:
        """How it is named to people: without a password."""
        return str(self.file or self.url.render_as_string(hide_password=True))


def place_of(text: str) -> Place:
    """Read where a vault lies from an option: a path, or a URL of PostgreSQL.

    Raises
    ------
    UsageError
        A URL of another kind, or none.
    """
    if "://" not in text:
        return Place(URL.create("sqlite", database=str(Path(text).absolute())))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UsageError("the vault's URL cannot be read", _HINT) from error
    if url.drivername not in ("postgresql", "postgres", _POSTGRESQL):
        raise UsageError(f"{url.drivername}: no vault can be there", _HINT)
    if strange := sorted(set(url.query) - _OPTIONS):
        raise UsageError(
            f"{strange[0]} is no option of a vault's URL",
            f"options are {', '.join(sorted(_OPTIONS))}; passwords belong into ~/.pgpass",
        )
    return Place(url.set(drivername=_POSTGRESQL))


#: What a URL of PostgreSQL may say behind its question mark; nothing secret is among it.
_OPTIONS: Final = frozenset({"host", "port", "sslcert", "sslkey", "sslmode", "sslrootcert"})
_HINT: Final = "name a file, or postgresql://user@host/database"


def create(place: Place) -> Engine:
    """Make a vault, or bring an older one up to date.

    Raises
    ------
    VaultError
        It cannot be made there, or is of a newer program.
    """
    if place.file is not None and not place.file.exists():
        try:
            place.file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(place.file, os.O_CREAT | os.O_WRONLY, PRIVATE))
        except OSError as error:
            raise VaultError(f"{place}: cannot be made: {error.strerror}") from error
    engine = _engine(place)
    with (
        named(place),
        engine.connect().execution_options(writing=True) as connection,
        connection.begin(),
    ):
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        _check_known(connection, place)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()  # the next connection finds a vault, and prepares for it
    return engine


def connect(place: Place) -> Engine:
    """Open a vault that is there.

    Raises
    ------
    VaultMissingError
        There is none.
    VaultVersionError
        It is of another version of the program.
    VaultError
        Others can read it, or it cannot be opened.
    """
    if place.file is not None and not place.file.is_file():
        raise VaultMissingError(f"{place}: no vault is there", "make one: medlocker vault init")
    engine = _engine(place)
    with named(place), engine.connect() as connection:
        revision = _check_known(connection, place)
        if revision is None:
            raise VaultMissingError(f"{place}: no vault is there", "make one: medlocker vault init")
        if revision != _scripts().get_current_head():
            raise VaultVersionError(
                f"{place}: was made by an older medlocker",
                "make a backup, then bring it up to date: medlocker vault init",
            )
    return engine


def _check_known(connection: Connection, place: Place) -> str | None:
    """Tell the revision of the tables; None where there are none.

    Raises
    ------
    VaultError
        The tables are another program's.
    VaultDamagedError
        They are a vault's, and say no revision.
    VaultVersionError
        They are of a newer program.
    """
    tables = sqlalchemy.inspect(connection).get_table_names()
    revisions = _REVISIONS in tables
    if head.name not in tables:
        # A schema of PostgreSQL may be shared, a file may not; the revisions of two programs never.
        if tables and (place.file or revisions):
            raise VaultError(
                f"{place}: is another program's database", "choose another file or database"
            )
        return None
    revision = MigrationContext.configure(connection).get_current_revision() if revisions else None
    if revision is None:
        raise VaultDamagedError(f"{place}: says no revision of its tables", RESTORE)
    try:
        _scripts().get_revision(revision)
    except CommandError as error:
        raise VaultVersionError(
            f"{place}: was made by a newer medlocker", "install that version or a later one"
        ) from error
    return revision


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _engine(place: Place) -> Engine:
    if place.file is None:
        options = {"connect_timeout": PATIENCE, "options": f"-c lock_timeout={PATIENCE}s"}
        return sqlalchemy.create_engine(
            place.url, hide_parameters=True, pool_pre_ping=True, connect_args=options
        )
    if os.name == "posix" and place.file.stat().st_mode & 0o077:
        raise VaultError(f"{place}: other users can read or write this vault", f"chmod 600 {place}")
    engine = sqlalchemy.create_engine(
        place.url, hide_parameters=True, connect_args={"timeout": PATIENCE}
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _: Any) -> None:
    """Set up a new SQLite connection: durable, checked, and transactions are begun by us.

    The journal's mode is a property of the file: another program's is left as it is.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    if cursor.execute(_IS_VAULT, (head.name,)).fetchone():
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Begin a SQLite transaction: who will write waits here, not in the middle."""
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


@contextmanager
def named(place: Place) -> Iterator[None]:
    """Turn a database's errors into ours; what was to be written never gets into a message.

    Raises
    ------
    DiskFullError, VaultBusyError, VaultDamagedError, VaultError
        By what the database said.
    UsageError
        A text has no encoding: bytes of a file name, for one.
    """
    try:
        yield
    except DBAPIError as error:
        raise _translated(place, str(error.orig)) from None
    except SQLAlchemyError as error:
        raise VaultError(f"{place}: {type(error).__name__}") from None
    except UnicodeError as error:  # of a name on the command line, or of a host
        name = error.object if isinstance(error, UnicodeEncodeError) else place
        raise UsageError(f"{name}: is no text that a database takes") from None


def _translated(place: Place, said: str) -> DiskFullError | VaultError:
    words = " ".join(said.split())
    low = words.lower()
    if "is full" in low or "no space left" in low:
        return DiskFullError(
            f"{place}: no space left", "free some and start again: what is done stays done"
        )
    if "database is locked" in low or "lock timeout" in low:
        return VaultBusyError(
            f"{place}: another process has held it for {PATIENCE} seconds", "try again later"
        )
    if "malformed" in low or "not a database" in low:
        return VaultDamagedError(f"{place}: is damaged, or is no vault", RESTORE)
    return VaultError(f"{place}: {words}")
