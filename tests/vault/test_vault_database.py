"""Where a vault lies, and what can be wrong there."""

import sqlite3
import stat
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, event, text

from medlocker_dicom import database
from medlocker_dicom.database import place_of
from medlocker_dicom.errors import (
    DestinationError,
    DiskFullError,
    UsageError,
    VaultBusyError,
    VaultDamagedError,
    VaultError,
    VaultMissingError,
    VaultVersionError,
)
from medlocker_dicom.vault import people
from medlocker_dicom.vault.backup import backup
from medlocker_dicom.vault.check import audit, check
from medlocker_dicom.vault.export import export
from medlocker_dicom.vault.schema import metadata
from medlocker_dicom.vault.vault import TABLES, Vault, make_vault, open_vault
from postgres import database as new_database
from vault_factories import ALICE, ALL, ISSUER, House, made


def file_of(home: House) -> Path:
    """The file of a SQLite vault."""
    assert home.vault.place.file is not None
    return home.vault.place.file


def consume(steps: Iterable[object]) -> None:
    """Take all steps."""
    deque(steps, maxlen=0)


def test_the_migrations_make_the_tables_of_the_schema(home: House) -> None:
    """Nothing in the schema is missing in what the migrations made, and nothing is more."""
    with home.vault.reading() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert found == []


def test_making_it_twice_changes_nothing(home: House) -> None:
    """The second time it is only opened."""
    home.lock(0)
    before = audit(home.vault)
    again = make_vault(home.vault.place)
    assert audit(again) == before
    again.close()


def test_two_who_make_it_at_once_make_one(vault_place: str) -> None:
    """One makes the tables, the other finds them."""
    made: list[Vault] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            made.append(make_vault(place_of(vault_place)))
        except BaseException as error:  # noqa: BLE001  told below
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for one in made:
        with one.reading() as connection:
            assert not people.has_begun(connection)
        one.close()
    assert len(made) == 2


def test_the_file_is_its_owners_alone(quick: House) -> None:
    """Mode 0600 for the file and what SQLite lays beside it; any wider is refused with a hint."""
    quick.lock(0)
    path = file_of(quick)
    for file in path.parent.glob("vault.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(VaultError, match="other users") as caught:
            open_vault(quick.vault.place)
        assert caught.value.hint == f"chmod 600 {path}"


def test_no_vault_is_there(tmp_path: Path) -> None:
    """A missing file and an empty one are told apart from a broken one; no file is made."""
    place = place_of(str(tmp_path / "none.db"))
    with pytest.raises(VaultMissingError) as caught:
        open_vault(place)
    assert "medlocker vault init" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    empty = tmp_path / "empty.db"
    empty.touch(mode=0o600)
    with pytest.raises(VaultMissingError):
        open_vault(place_of(str(empty)))


def test_no_vault_on_the_server(postgresql: str) -> None:
    """A database without our tables, and one that is not there."""
    with pytest.raises(VaultMissingError):
        open_vault(place_of(postgresql.format("postgres")))
    with pytest.raises(VaultError, match="nowhere"):
        open_vault(place_of(postgresql.format("nowhere")))


def test_a_newer_vault_is_left_alone(home: House) -> None:
    """Neither opened nor brought back."""
    with home.vault.engine.connect() as connection, connection.begin():
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for attempt in (open_vault, make_vault):
        with pytest.raises(VaultVersionError, match="newer"):
            attempt(home.vault.place)


def test_an_older_vault_asks_for_init(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with a further step says what to do."""

    class Further:
        def get_current_head(self) -> str:
            return "0002"

        def get_revision(self, _: str) -> object:
            return object()

    monkeypatch.setattr(database, "_scripts", lambda _: Further())
    with pytest.raises(VaultVersionError, match="older") as caught:
        open_vault(home.vault.place)
    assert "medlocker vault init" in caught.value.hint


@pytest.mark.parametrize("content", [b"not a database, but long enough to be read as one" * 50])
def test_another_file_is_no_vault(tmp_path: Path, content: bytes) -> None:
    """It is named, and stays as it is."""
    path = tmp_path / "photo.db"
    path.write_bytes(content)
    path.chmod(0o600)
    for attempt in (open_vault, make_vault):
        with pytest.raises(VaultDamagedError, match=r"photo\.db"):
            attempt(place_of(str(path)))
    assert path.read_bytes() == content


@pytest.mark.parametrize("tables", ["photo", "alembic_version"])
def test_another_programs_database_is_left_alone(tmp_path: Path, tables: str) -> None:
    """A file of SQLite that is no vault: not a byte of it changes, not even its journal's mode."""
    path = tmp_path / "photos.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"CREATE TABLE {tables} (version_num TEXT)")
        other.commit()
    path.chmod(0o600)
    before = path.read_bytes()
    for attempt in (open_vault, make_vault):
        with pytest.raises(VaultError, match="another program's"):
            attempt(place_of(str(path)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_of_the_server_may_be_shared(postgresql: str) -> None:
    """Other tables do no harm; the revisions of another program's tables would."""
    for table, sound in (("photo", True), ("alembic_version", False)):
        with new_database(postgresql) as url:
            place = place_of(url)
            engine = create_engine(place.url)
            with engine.begin() as connection:
                connection.execute(text(f"CREATE TABLE {table} (version_num TEXT)"))
            engine.dispose()
            if sound:
                make_vault(place).close()
                open_vault(place).close()
            else:
                with pytest.raises(VaultError, match="another program's"):
                    make_vault(place)


def test_tables_without_a_revision_are_damage(home: House) -> None:
    """A vault that lost the number of its revision is neither opened nor made anew."""
    with home.vault.engine.connect() as connection, connection.begin():
        connection.execute(text("DELETE FROM alembic_version"))
    for attempt in (open_vault, make_vault):
        with pytest.raises(VaultDamagedError, match="revision"):
            attempt(home.vault.place)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_damaged_file_is_found(quick: House, share: float) -> None:
    """Bytes overwritten in the middle: the check, or whatever reads there, says so."""
    for number in range(40):
        quick.lock(number, ALICE)
    quick.vault.close()
    path = file_of(quick)
    data = bytearray(path.read_bytes())
    at = int(len(data) * share) // 4096 * 4096
    data[at : at + 4096] = bytes(4096)
    path.write_bytes(data)
    with pytest.raises(VaultError):
        list(check(open_vault(quick.vault.place)))


def test_a_locked_vault_says_so(quick: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process that holds it too long is named as the reason, and nothing is written."""
    monkeypatch.setattr(database, "PATIENCE", 0.2)
    mine = Vault(quick.vault.place, database.connect(quick.vault.place, TABLES), quick.clock)
    with closing(sqlite3.connect(file_of(quick))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(VaultBusyError, match="another process"), mine.writing():
            pytest.fail("two write at once")
        other.rollback()
    with mine.writing() as writing:
        writing.note("begun")
    mine.close()


def test_a_full_disk_keeps_what_was_whole(quick: House) -> None:
    """Where SQLite finds no space: what was not whole is gone, all that was is there."""
    quick.lock(0)
    before = audit(quick.vault)
    engine = database.connect(quick.vault.place, TABLES)

    @event.listens_for(engine, "connect")
    def limit(connection: Any, _: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 3}")

    full = House(Vault(quick.vault.place, engine, quick.clock), quick.clock)
    engine.dispose()
    with pytest.raises(DiskFullError, match="no space left"):
        consume(full.lock(number, ALICE, packet=bytes(5000)) for number in range(1, 200))
    full.vault.close()
    counts = list(check(quick.vault))[-1]
    assert counts.grants == 2 * counts.instances - 1  # type: ignore[union-attr]  # its last
    assert audit(quick.vault, (before.length, before.head)).length >= before.length


def test_passwords_stay_out_of_words() -> None:
    """Neither a place's text nor an error of the server shows the password."""
    place = place_of("postgresql://owner:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(place) + repr(place)
    with pytest.raises(VaultError) as caught:
        open_vault(place)
    assert "hunter2" not in str(caught.value) + caught.value.hint
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["mysql://host/x", "sqlite:///x.db", "://"])
def test_other_urls_are_refused(url: str) -> None:
    """Only files by their path, and PostgreSQL."""
    with pytest.raises(UsageError) as caught:
        place_of(url)
    assert "postgresql://user@host/database" in caught.value.hint


def test_backup_while_in_use(quick: House, tmp_path: Path) -> None:
    """The copy is whole, checked, its owner's alone, and opens by itself; the name is new."""
    quick.lock(0, ALICE)
    copy = tmp_path / "copy" / "backup.db"
    copy.parent.mkdir()
    with quick.vault.reading():
        found = backup(quick.vault, copy)
    assert found == audit(quick.vault)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in copy.parent.iterdir()] == ["backup.db"]
    quick.lock(1)
    restored = open_vault(place_of(str(copy)))
    assert audit(restored) == found
    assert len(export(restored, ISSUER, "alice", ALL).keyfiles) == 1
    restored.close()
    with pytest.raises(DestinationError, match="exists"):
        backup(quick.vault, copy)


def test_a_backup_that_cannot_be_written_leaves_nothing(quick: House, tmp_path: Path) -> None:
    """No folder: one error; a damaged vault is not copied as if it were whole."""
    with pytest.raises(DestinationError):
        backup(quick.vault, tmp_path / "none" / "backup.db")
    with quick.vault.engine.connect() as connection, connection.begin():
        connection.execute(text("UPDATE audit_entry SET event = 'x' WHERE number = 2"))
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(VaultDamagedError, match="entry 2"):
        backup(quick.vault, folder / "backup.db")
    assert list(folder.iterdir()) == []


def test_a_server_is_backed_up_by_its_own_tools(postgresql: str, tmp_path: Path) -> None:
    """We do not pretend to."""
    place = place_of(postgresql.format("postgres"))
    with pytest.raises(UsageError) as caught:
        backup(Vault(place, database._engine(place, TABLES)), tmp_path / "x.db")
    assert "pg_dump" in caught.value.hint


def test_writers_take_turns(home: House) -> None:
    """Four writers at once: nothing is lost, nothing is there twice, the chain is whole."""
    for number in range(60):
        home.lock(number)
    errors: list[BaseException] = []

    def issue() -> None:
        vault = open_vault(home.vault.place, home.clock)
        try:
            House(vault, home.clock).reissue()
        except BaseException as error:  # noqa: BLE001  told below
            errors.append(error)
        finally:
            vault.close()

    threads = [threading.Thread(target=issue) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    counts = list(check(home.vault))[-1]
    assert (counts.instances, counts.live) == (60, 120)  # type: ignore[union-attr]  # its last
    assert counts.grants == 120  # type: ignore[union-attr]  # the same


def test_an_unwritable_folder(tmp_path: Path) -> None:
    """A vault that cannot be made is one error that names it."""
    (tmp_path / "file").touch()
    with pytest.raises(VaultError, match="cannot be made"):
        make_vault(place_of(str(tmp_path / "file" / "vault.db")))


def test_nothing_is_half_written(home: House) -> None:
    """An error inside a transaction takes all of it back, entries and checkpoints too."""
    before = audit(home.vault)

    def half() -> None:
        with home.vault.writing() as writing:
            people.add(writing, ISSUER, "carol", made("carol").public)
            writing.checkpoint(ISSUER)
            people.retire(writing, ISSUER, "nobody")

    with pytest.raises(UsageError, match="nobody"):
        half()
    assert audit(home.vault) == before
    with home.vault.reading() as connection:
        assert "carol" not in {one.name for one in people.everyone(connection)}
