"""The vault: opened for reading, or for one writer at a time whose words enter the chain."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, insert, select, update

from medlocker_dicom import database
from medlocker_dicom.database import Place, Tables, named
from medlocker_dicom.errors import ClockError, UsageError, VaultDamagedError
from medlocker_dicom.keyfile.moments import moment_of, text_of
from medlocker_dicom.vault import chain, people
from medlocker_dicom.vault.schema import checkpoints, entries, head, metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine, Row

    from medlocker_dicom.keyfile import Identity

TABLES: Final = Tables(
    "vault",
    metadata,
    head.name,
    Path(__file__).with_name("revisions"),
    "alembic_version",
    "medlocker vault init",
)
#: A clock that is further behind the last entry than this, in seconds, is wrong.
_SLACK: Final = 3600


def _now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def _understood() -> Iterator[None]:
    """Take values that nobody could have put there by `medlocker` for what they are: damage."""
    try:
        yield
    except (AttributeError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise VaultDamagedError(
            "the vault holds values that make no sense", chain.RESTORE
        ) from error


@dataclass(frozen=True)
class Vault:
    """An open vault.

    Attributes
    ----------
    place
        Where it lies.
    clock
        Gives the time with a time zone.
    """

    place: Place
    engine: Engine = field(repr=False)
    clock: Callable[[], datetime] = _now

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open it for reading: what is read is of one moment.

        Raises
        ------
        VaultError
            The database fails.
        """
        # Of PostgreSQL; a transaction of SQLite reads one moment anyhow.
        level = {} if self.place.file else {"isolation_level": "REPEATABLE READ"}
        with (
            named(self.place),
            _understood(),
            self.engine.connect().execution_options(**level) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Writing]:
        """Open it for writing: all of it is kept, or nothing; other writers wait.

        Raises
        ------
        ClockError
            The clock is behind the chain's last entry.
        VaultBusyError
            Another writer does not end.
        DiskFullError, VaultError
            The database fails.
        """
        with self._locked() as (connection, row):
            now = int(self.clock().timestamp())
            if now < row.at - _SLACK:
                raise ClockError(
                    f"the clock says {text_of(moment_of(now))}, before the vault's last entry "
                    f"of {text_of(moment_of(row.at))}",
                    "set the clock; if it was wrong then: medlocker vault reset-clock",
                )
            writing = Writing(connection, max(now, row.at), row.length, row.hash)
            yield writing
            writing.flush()

    def reset_clock(self, issuer: Identity) -> tuple[datetime, datetime]:
        """Go on from the present time after entries that a wrong clock put into the future.

        What they issued keeps its dates; the chain tells that they were wrong.

        Returns
        -------
        tuple
            The last entry's time, and the present one.

        Raises
        ------
        UsageError
            The last entry is not in the future.
        VaultError
            The issuer is not the vault's, or the database fails.
        """
        with self._locked() as (connection, row):
            people.check_issuer(connection, issuer)
            now = int(self.clock().timestamp())
            if now >= row.at:
                raise UsageError("the vault's last entry is not in the future")
            writing = Writing(connection, now, row.length, row.hash)
            writing.note("clock-reset", before=text_of(moment_of(row.at)))
            writing.checkpoint(issuer)
        return moment_of(row.at), moment_of(now)

    @contextmanager
    def _locked(self) -> Iterator[tuple[Connection, Row[Any]]]:
        """Begin a transaction that writes: the connection, and the head of the chain."""
        with (
            named(self.place),
            _understood(),
            self.engine.connect().execution_options(writing=True) as connection,
            connection.begin(),
        ):
            yield connection, connection.execute(select(head).with_for_update()).one()

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


class Writing:
    """One transaction of a writer.

    Attributes
    ----------
    connection
        For statements.
    now
        Seconds since 1970, never before the last entry.
    """

    def __init__(self, connection: Connection, now: int, length: int, last: bytes) -> None:
        self.connection, self.now = connection, now
        self._length, self._last = length, last
        self._entries: list[dict[str, Any]] = []

    def note(self, event: str, **detail: str | int | None) -> None:
        """Add an entry to the audit chain; `detail` holds no secret."""
        entry = chain.linked(self._last, self._length + 1, self.now, event, detail)
        self._length, self._last = entry.number, entry.hash
        self._entries.append(asdict(entry))

    def checkpoint(self, issuer: Identity) -> None:
        """Let the issuer sign the chain as it is now."""
        self.flush()
        connection = self.connection
        connection.execute(delete(checkpoints).where(checkpoints.c.length == self._length))
        connection.execute(
            insert(checkpoints),
            {
                "length": self._length,
                "hash": self._last,
                "issuer": issuer.public.verify_key,
                "signature": chain.sign_checkpoint(issuer, self._length, self._last),
            },
        )

    def flush(self) -> None:
        """Send the entries to the database."""
        if self._entries:
            self.connection.execute(insert(entries), self._entries)
            self.connection.execute(
                update(head).values(length=self._length, hash=self._last, at=self.now)
            )
            self._entries = []


def open_vault(place: Place, clock: Callable[[], datetime] = _now) -> Vault:
    """Open a vault that is there.

    Raises
    ------
    VaultMissingError, VaultVersionError, VaultError
        As `database.connect`.
    """
    return Vault(place, database.connect(place, TABLES), clock)


def make_vault(place: Place, clock: Callable[[], datetime] = _now) -> Vault:
    """Make a vault, or bring an older one up to date; raises as `database.create`."""
    return Vault(place, database.create(place, TABLES), clock)
