"""Where tables lie: SQLite in a file of its owner's, or PostgreSQL by URL."""

from __future__ import annotations

import os
import sqlite3
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine, MetaData

#: How long a writer waits for another, in seconds.
PATIENCE: Final = 30
_MIGRATIONS = Path(__file__).with_name("migrations")
#: How constraints are called, so that a step can name them on every database.
NAMES: Final = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
RESTORE: Final = "restore it from a backup: for a vault, medlocker vault restore FILE"
_POSTGRESQL = "postgresql+psycopg"
_IS_OURS: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
_LOCK: Final = 0x4D4C  # of PostgreSQL, so that two who make a vault do it one after the other


@dataclass(frozen=True)
class Tables:
    """What a program of ours keeps in a database.

    Attributes
    ----------
    name
        What people call it, such as ``vault``.
    metadata
        The tables as they are now.
    known
        The table that tells that they are there.
    steps
        Folder of the steps (revisions of Alembic) that made them so.
    revision
        Table of the last step that was taken.
    make
        The command that makes them, or brings older ones up to date.
    """

    name: str
    metadata: MetaData
    known: str
    steps: Path
    revision: str
    make: str


@dataclass(frozen=True)
class Place:
    """Where a database lies.

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

    @classmethod
    def of_file(cls, path: Path) -> Place:
        """Give the place of a SQLite file."""
        return cls(URL.create("sqlite", database=str(path.absolute())))


def place_of(text: str) -> Place:
    """Read where a database lies from an option: a path, or a URL of PostgreSQL.

    Raises
    ------
    UsageError
        A URL of another kind, or none.
    """
    if "://" not in text:
        return Place.of_file(Path(text))
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UsageError("the database's URL cannot be read", _HINT) from error
    if url.drivername not in ("postgresql", "postgres", _POSTGRESQL):
        raise UsageError(f"{url.drivername}: no database of ours can be there", _HINT)
    if strange := sorted(set(url.query) - _OPTIONS):
        raise UsageError(
            f"{strange[0]} is no option of a database's URL",
            f"options are {', '.join(sorted(_OPTIONS))}; passwords belong into ~/.pgpass",
        )
    return Place(url.set(drivername=_POSTGRESQL))


#: What a URL of PostgreSQL may say behind its question mark; nothing secret is among it.
_OPTIONS: Final = frozenset({"host", "port", "sslcert", "sslkey", "sslmode", "sslrootcert"})
_HINT: Final = "name a file, or postgresql://user@host/database"


def create(place: Place, tables: Tables) -> Engine:
    """Make tables, or bring older ones up to date.

    Raises
    ------
    VaultError
        They cannot be made there, or are of a newer program.
    """
    if place.file is not None and not place.file.exists():
        try:
            place.file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(place.file, os.O_CREAT | os.O_WRONLY, PRIVATE))
        except OSError as error:
            raise VaultError(f"{place}: cannot be made: {error.strerror}") from error
    engine = _engine(place, tables)
    with (
        named(place),
        engine.connect().execution_options(writing=True) as connection,
        connection.begin(),
    ):
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        _check_known(connection, place, tables)
        config = _config(tables)
        config.attributes.update(connection=connection, tables=tables)
        command.upgrade(config, "head")
    engine.dispose()  # the next connection finds the tables, and prepares for them
    return engine


def connect(place: Place, tables: Tables) -> Engine:
    """Open tables that are there.

    Raises
    ------
    VaultMissingError
        There are none.
    VaultVersionError
        They are of another version of the program.
    VaultError
        Others can read them, or they cannot be opened.
    """
    missing = VaultMissingError(f"{place}: no {tables.name} is there", f"make one: {tables.make}")
    if place.file is not None and not place.file.is_file():
        raise missing
    engine = _engine(place, tables)
    with named(place), engine.connect() as connection:
        revision = _check_known(connection, place, tables)
        if revision is None:
            raise missing
        if revision != _scripts(tables).get_current_head():
            raise VaultVersionError(
                f"{place}: was made by an older medlocker",
                f"make a backup, then bring it up to date: {tables.make}",
            )
    return engine


def _check_known(connection: Connection, place: Place, tables: Tables) -> str | None:
    """Tell the revision of the tables; None where there are none.

    Raises
    ------
    VaultError
        What is there is another program's.
    VaultDamagedError
        They say no revision.
    VaultVersionError
        They are of a newer program.
    """
    there = sqlalchemy.inspect(connection).get_table_names()
    if tables.known not in there:
        # A schema of PostgreSQL may be shared, a file may not; the revisions of two programs never.
        if there and (place.file or tables.revision in there):
            raise VaultError(
                f"{place}: is another program's database", "choose another file or database"
            )
        return None
    revision = None
    if tables.revision in there:
        options = {"version_table": tables.revision}
        revision = MigrationContext.configure(connection, opts=options).get_current_revision()
    if revision is None:
        raise VaultDamagedError(f"{place}: says no revision of its tables", RESTORE)
    try:
        _scripts(tables).get_revision(revision)
    except CommandError as error:
        raise VaultVersionError(
            f"{place}: was made by a newer medlocker", "install that version or a later one"
        ) from error
    return revision


def _config(tables: Tables) -> Config:
    config = Config()
    for option, folder in (("script_location", _MIGRATIONS), ("version_locations", tables.steps)):
        config.set_main_option(option, str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return config


def _scripts(tables: Tables) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(tables))


def _engine(place: Place, tables: Tables) -> Engine:
    if place.file is None:
        options = {"connect_timeout": PATIENCE, "options": f"-c lock_timeout={PATIENCE}s"}
        return sqlalchemy.create_engine(
            place.url,
            hide_parameters=True,
            pool_pre_ping=True,
            connect_args=options,
            # Whatever the server's default is: writers wait at a row, none is turned away.
            isolation_level="READ COMMITTED",
        )
    if os.name == "posix" and place.file.stat().st_mode & 0o077:
        raise VaultError(
            f"{place}: other users can read or write this {tables.name}", f"chmod 600 {place}"
        )
    engine = sqlalchemy.create_engine(
        place.url, hide_parameters=True, connect_args={"timeout": PATIENCE}
    )
    event.listen(engine, "connect", lambda connection, _: _prepare(connection, tables.known))
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, known: str) -> None:
    """Set up a new SQLite connection: durable, checked, and transactions are begun by us.

    The journal's mode is a property of the file: another program's is left as it is.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    if cursor.execute(_IS_OURS, (known,)).fetchone():
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
    except (DBAPIError, sqlite3.Error) as error:
        said = error.orig if isinstance(error, DBAPIError) else error
        raise _translated(place, said) from None
    except SQLAlchemyError as error:
        raise VaultError(f"{place}: {type(error).__name__}") from None
    except UnicodeError as error:  # of a name on the command line, or of a host
        name = error.object if isinstance(error, UnicodeEncodeError) else place
        raise UsageError(f"{name}: is no text that a database takes") from None


#: Primary result codes of SQLite, and the one code whose only cause is that a file cannot grow.
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE, "53100"})
_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, "55P03", "40001", "40P01"})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, "XX001", "XX002"})


def _translated(place: Place, error: BaseException | None) -> DiskFullError | VaultError:
    """Choose by code, SQLSTATE or SQLite's: words depend on the server's language."""
    code: int = getattr(error, "sqlite_errorcode", None) or 0
    codes = {code, code & 0xFF, getattr(error, "sqlstate", None)}
    if codes & _FULL:
        return DiskFullError(
            f"{place}: no space left", "free some and start again: what is done stays done"
        )
    if codes & _BUSY:
        return VaultBusyError(
            f"{place}: another process has held it for {PATIENCE} seconds", "try again later"
        )
    if codes & _DAMAGED:
        return VaultDamagedError(f"{place}: is damaged, or is no vault", RESTORE)
    return VaultError(f"{place}: {' '.join(str(error).split())}")
