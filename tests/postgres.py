"""A PostgreSQL server for tests: a cluster of its own, on a socket, gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

_NUMBERS = count(1)


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
        with (folder / "log").open("ab") as log:
            subprocess.run(
                [str(word) for word in words],
                check=True,
                stdout=log,
                stderr=log,
                cwd=home,
                user=account.pw_uid if os.geteuid() == 0 else None,
                group=account.pw_gid if os.geteuid() == 0 else None,
                extra_groups=[] if os.geteuid() == 0 else None,
            )

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


@contextmanager
def database(url: str) -> Iterator[str]:
    """Make an empty database, and drop it afterwards."""
    name = f"vault_{next(_NUMBERS)}"
    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            yield url.format(name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
