"""A vault again from a backup: what stale files beside it, other processes and damage do."""

import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine, text

from medlocker_dicom.database import Place, named, place_of
from medlocker_dicom.errors import (
    DestinationError,
    DiskFullError,
    MedLockerError,
    UsageError,
    VaultBusyError,
    VaultDamagedError,
    VaultMissingError,
    VaultVersionError,
)
from medlocker_dicom.vault import backup as backups
from medlocker_dicom.vault.backup import backup, restore
from medlocker_dicom.vault.check import audit
from medlocker_dicom.vault.vault import Vault, open_vault
from postgres import database
from vault_factories import ALICE, House, house

NOW = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)


@pytest.fixture
def copy(quick: House, tmp_path: Path) -> Path:
    """A backup, after which one more instance was locked."""
    quick.lock(0, ALICE)
    backup(quick.vault, tmp_path / "backup.db")
    quick.lock(1, ALICE)
    return tmp_path / "backup.db"


def file_of(home: House) -> Path:
    assert home.vault.place.file is not None
    return home.vault.place.file


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def lengths(place: Place) -> int:
    """How many entries a vault has; it is closed again."""
    vault = open_vault(place)
    try:
        return audit(vault).length
    finally:
        vault.close()


def crashed(home: House) -> None:
    """Leave a vault as a killed process does: its last changes beside the file."""
    path = file_of(home)
    for end in ("", "-wal", "-shm"):
        shutil.copy(f"{path}{end}", f"{path}{end}.kept")
    home.vault.close()
    for end in ("", "-wal", "-shm"):
        shutil.move(f"{path}{end}.kept", f"{path}{end}")
    assert Path(f"{path}-wal").stat().st_size > 0


def test_stale_changes_beside_the_vault_undo_nothing(quick: House, copy: Path) -> None:
    """A restored vault is the backup, whatever a killed process left; the old one is whole too."""
    before, length = copy.read_bytes(), audit(quick.vault).length
    crashed(quick)
    done = restore(quick.vault.place, copy, NOW, replace=True)
    assert copy.read_bytes() == before
    kept = "vault-until-2026-11-24T083000Z.db"
    assert names(copy.parent) == {"backup.db", "vault.db", kept, f"{kept}-wal"}
    for path in copy.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert lengths(quick.vault.place) == done.found.length < length
    assert done.kept == copy.with_name(kept)
    assert lengths(Place.of_file(done.kept)) == length


def test_changes_without_a_vault_are_removed(quick: House, copy: Path) -> None:
    """Whoever removed the vault's file and forgot those beside it gets the backup."""
    crashed(quick)
    file_of(quick).unlink()
    done = restore(quick.vault.place, copy, NOW)
    assert names(copy.parent) == {"backup.db", "vault.db"}
    assert done.kept is None
    assert lengths(quick.vault.place) == done.found.length


def test_a_damaged_vault_is_kept_as_it_is(quick: House, copy: Path) -> None:
    """With its changes, for whoever can save something; the hint of damage names the command."""
    crashed(quick)
    path = file_of(quick)
    path.write_bytes(b"x" * 9000)
    changes = Path(f"{path}-wal").read_bytes()
    kept = restore(quick.vault.place, copy, NOW, replace=True).kept
    assert kept is not None
    assert kept.read_bytes() == b"x" * 9000
    assert Path(f"{kept}-wal").read_bytes() == changes
    assert lengths(quick.vault.place)
    quick.vault.place.file.write_bytes(b"x" * 9000)  # type: ignore[union-attr]  # SQLite
    with pytest.raises(VaultDamagedError) as caught:
        open_vault(quick.vault.place)
    assert "medlocker vault restore" in caught.value.hint


def test_a_vault_in_use_is_not_replaced(quick: House, copy: Path) -> None:
    """Its process would go on writing to what is no vault any more."""
    path = file_of(quick)
    quick.vault.close()
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1])"
    program += "; c.execute('SELECT * FROM audit_head').fetchall(); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        before = path.read_bytes()
        with pytest.raises(VaultBusyError, match="another process"):
            restore(quick.vault.place, copy, NOW, replace=True)
        assert path.read_bytes() == before
        other.communicate(b"\n")
    restore(quick.vault.place, copy, NOW, replace=True)
    assert {name for name in names(copy.parent) if "until" in name}


def test_a_vault_is_not_replaced_by_mistake(quick: House, copy: Path) -> None:
    """Without --replace, by itself, or by what is no backup: it stays as it is, nothing is left."""
    quick.vault.close()
    path = file_of(quick)
    before, there = path.read_bytes(), names(copy.parent)
    empty, other = copy.with_name("empty.db"), copy.with_name("other.db")
    empty.touch()
    other.write_bytes(b"no database" * 500)
    cases: list[tuple[type[MedLockerError], Path, dict[str, Any]]] = [
        (DestinationError, copy, {}),
        (UsageError, path, {"replace": True}),
        (UsageError, copy.with_name("none.db"), {"replace": True}),
        (VaultMissingError, empty, {"replace": True}),
        (VaultDamagedError, other, {"replace": True}),
    ]
    for kind, file, more in cases:
        with pytest.raises(kind) as caught:
            restore(quick.vault.place, file, NOW, **more)
        assert str(file if more else path) in str(caught.value)
        assert ".part" not in str(caught.value)
        assert path.read_bytes() == before
    assert names(copy.parent) == there | {"empty.db", "other.db"}


def test_a_backup_that_was_altered_is_refused(quick: House, copy: Path) -> None:
    """Its audit chain is followed before anything is replaced."""
    with closing(sqlite3.connect(copy)) as altered:
        altered.execute("UPDATE audit_entry SET event = 'x' WHERE number = 2")
        altered.commit()
    before = audit(quick.vault)
    quick.vault.close()
    with pytest.raises(VaultDamagedError, match=r"backup\.db: entry 2"):
        restore(quick.vault.place, copy, NOW, replace=True)
    assert lengths(quick.vault.place) == before.length


def test_a_server_has_its_own_tools(copy: Path) -> None:
    """We do not pretend to restore there."""
    place = place_of("postgresql://u@127.0.0.1:1/none")
    with pytest.raises(UsageError) as caught:
        restore(place, copy, NOW)
    assert "pg_restore" in caught.value.hint


def test_an_older_programs_backup_is_brought_up_to_date(
    quick: House, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backup stays as it is, what is restored has the present tables."""
    quick.vault.close()
    upgraded = []

    def older(place: Place) -> Vault:
        raise VaultVersionError(f"{place}: was made by an older medlocker")

    def make(place: Place) -> Vault:
        upgraded.append(place)
        return open_vault(place)

    monkeypatch.setattr(backups, "open_vault", older)
    monkeypatch.setattr(backups, "make_vault", make)
    before = copy.read_bytes()
    restore(quick.vault.place, copy, NOW, replace=True)
    assert len(upgraded) == 1
    assert copy.read_bytes() == before


def test_a_backup_needs_no_folder_to_write_in(quick: House, tmp_path: Path) -> None:
    """It is no file of SQLite's that changes beside itself: reading it makes no others."""
    quick.lock(0)
    folder = tmp_path / "out"
    folder.mkdir()
    backup(quick.vault, folder / "backup.db")
    with closing(sqlite3.connect(folder / "backup.db")) as copy:
        assert copy.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        copy.execute("SELECT * FROM audit_head").fetchall()
        assert names(folder) == {"backup.db"}


def test_no_space_for_a_backup(
    quick: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the disk that is full, not the vault that cannot be used; nothing is left."""

    class Small(sqlite3.Connection):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.execute("PRAGMA max_page_count=3")

    true = sqlite3.connect

    def connect(path: Any, **more: Any) -> sqlite3.Connection:
        return true(path, **more) if more else true(path, factory=Small)

    monkeypatch.setattr(sqlite3, "connect", connect)
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(DiskFullError, match=r"backup\.db: no space left"):
        backup(quick.vault, folder / "backup.db")
    assert names(folder) == set()


def test_words_of_the_database_are_not_read(quick: House) -> None:
    """What went wrong is told by its code: a name that says "is full" is no full disk."""
    with pytest.raises(MedLockerError) as caught, quick.vault.reading() as connection:
        connection.execute(text('SELECT * FROM "database is locked, malformed, is full"'))
    assert not isinstance(caught.value, DiskFullError | VaultBusyError | VaultDamagedError)


def test_a_servers_default_isolation_turns_no_writer_away(postgresql: str) -> None:
    """Writers wait for each other, whatever level the server's administrator has chosen."""
    with database(postgresql) as url:
        name = url.partition("@/")[2].partition("?")[0]
        with psycopg.connect(url, autocommit=True) as connection:
            level = "SET default_transaction_isolation = 'serializable'"
            connection.execute(f"ALTER DATABASE {name} {level}".encode())
        home = house(url)
        started = threading.Barrier(2)
        errors: list[BaseException] = []

        def write() -> None:
            vault = open_vault(home.vault.place, home.clock)
            try:
                started.wait()
                for _ in range(20):
                    with vault.writing() as writing:
                        writing.note("begun")
            except BaseException as error:  # noqa: BLE001  told below
                errors.append(error)
            finally:
                vault.close()

        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        home.vault.close()
        assert errors == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [("53100", DiskFullError), ("55P03", VaultBusyError), ("XX001", VaultDamagedError)],
)
def test_a_servers_errors_are_told_by_their_code(
    postgresql: str, code: str, kind: type[MedLockerError]
) -> None:
    """In whatever language its words are."""
    place = place_of(postgresql.format("postgres"))
    engine = create_engine(place.url)
    raised = f"DO $$ BEGIN RAISE 'Speicherplatz' USING ERRCODE = '{code}'; END $$"
    with pytest.raises(kind), named(place), engine.connect() as connection:
        connection.exec_driver_sql(raised)
    engine.dispose()
