"""A PostgreSQL server for tests: a cluster of its own, on a socket, gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

_NUMBERS = count(1)


def server_programs() -> Path | None:
    """Find the folder of the newest server's programs; None where there is none."""
    packaged = Path("/usr/lib/postgresql").glob("*/bin")
    programs = sorted(packaged, key=lambda one: int(one.parent.name))
    found = programs[-1] if programs else Path(shutil.which("initdb") or "").parent
    return found if (found / "initdb").exists() else None


@contextmanager
def served(programs: Path, folder: Path, *, durable: bool = False) -> Iterator[str]:
    """Run a server; give the URL to which a database name is added.

    It waits for the disk only where it is to be `durable`.

    PostgreSQL refuses to run as root: there it runs as the user that its package made.
    """
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    account = pwd.getpwnam(user)
    # Its socket's path has at most 107 characters, and its user must reach it.
    home = Path(tempfile.mkdtemp(prefix="medlocker-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(home, account.pw_uid, account.pw_gid)

    def call(*words: str | Path) -> None:
        _call(words, account, folder / "log", home)

    data = home / "data"
    sync = "on" if durable else "off"
    options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync={sync}"
    try:
        call(programs / "initdb", "-D", data, "-A", "trust", "-U", "owner", "-E", "UTF8")
        call(programs / "pg_ctl", "-D", data, "-w", "-o", options, "-l", home / "log", "start")
        try:
            yield f"postgresql://owner@/{{}}?host={home}"
        finally:
            call(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home)


def crash(url: str, log: Path) -> None:
    """End a server as a power failure does, and start it again with its options."""
    programs, home = server_programs(), Path(url.partition("?host=")[2])
    assert programs is not None
    account = pwd.getpwuid((home / "data").stat().st_uid)
    _call(
        (programs / "pg_ctl", "-D", home / "data", "-m", "immediate", "-w", "restart"),
        account,
        log,
        home,
    )


def _call(words: Sequence[str | Path], account: pwd.struct_passwd, log: Path, home: Path) -> None:
    """Run one of the server's programs as its user."""
    root = os.geteuid() == 0
    with log.open("ab") as stream:
        subprocess.run(
            [str(word) for word in words],
            check=True,
            stdout=stream,
            stderr=stream,
            cwd=home,
            user=account.pw_uid if root else None,
            group=account.pw_gid if root else None,
            extra_groups=[] if root else None,
        )


@contextmanager
def database(url: str) -> Iterator[str]:
    """Make an empty database, and drop it afterwards."""
    name = f"vault_{next(_NUMBERS)}"
    _order(url, f"CREATE DATABASE {name}")
    try:
        yield url.format(name)
    finally:
        _order(url, f"DROP DATABASE {name} WITH (FORCE)")


def _order(url: str, words: str) -> None:
    """Have the server do something; by a connection of its own, for it may have been restarted."""
    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        connection.execute(words.encode())
