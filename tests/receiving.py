"""A receiver for tests, on a free port of loopback, and what it needs around it."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from sqlalchemy import Connection, select

from factories import make_fundus, make_pixels, save
from medlocker_dicom.database import place_of
from medlocker_dicom.node.config import NodeConfig
from medlocker_dicom.node.ledger import Ledger, make_ledger
from medlocker_dicom.node.log_fields import Forms
from medlocker_dicom.node.receiver import Receiver
from medlocker_dicom.node.schema import objects
from medlocker_dicom.node.spool import Spool

ROUTE = {"name": "all", "lock": {"recipients": ["alice"]}, "destinations": ["archive"]}
ARCHIVE = {"kind": "dicom", "ae_title": "ARC", "host": "::1", "port": 4242}
DCMTK = Path("/usr/bin")


@dataclass
class Spoken:
    """A log that remembers."""

    lines: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def info(self, event: str, **fields: Any) -> None:
        self._say("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._say("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._say("error", event, fields)

    def _say(self, level: str, event: str, fields: dict[str, Any]) -> None:
        Forms(b"tests", frozenset(), strict=True).said(fields)  # as the node's own log does
        self.lines.append((level, event, fields))

    def said(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, one, fields in self.lines if one == event]


@dataclass
class Recorded:
    """An `Enqueue` that remembers what was entered."""

    entered: list[tuple[str, str]] = field(default_factory=list)

    def __call__(
        self, connection: Connection, workflow: str, key: str, *arguments: str, delay_s: float = 0
    ) -> None:
        assert connection.in_transaction()
        assert arguments
        assert delay_s == 0
        self.entered.append((workflow, key))


def node_config(folder: Path, listen: dict[str, Any] | None = None, **more: Any) -> NodeConfig:
    """Build a configuration without a file."""
    values = {
        "listen": {"ae_title": "NODE", **(listen or {})},
        "spool": folder / "spool",
        "floor": 0,
        "vault": str(folder / "vault.db"),
        "issuer": folder / "issuer.key",
        "destinations": {"archive": ARCHIVE},
        "routes": [ROUTE],
        **more,
    }
    return NodeConfig.model_validate(values)


def free_socket() -> socket.socket:
    """Listen on a free port of loopback, as `listener.bind` does."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    listening.settimeout(0)
    return listening


@dataclass
class Station:
    """A receiver that runs, and where it puts what it receives."""

    receiver: Receiver
    log: Spoken
    queue: Recorded

    @property
    def port(self) -> int:
        return self.receiver.port

    @property
    def spool(self) -> Spool:
        return self.receiver.spool

    @property
    def ledger(self) -> Ledger:
        return self.receiver.ledger

    def rows(self) -> list[Any]:
        return rows(self.ledger)

    def kept(self) -> list[str]:
        return sorted(self.spool.objects())

    def settled(self) -> bool:
        """Tell whether nothing is arriving."""
        return not list(self.spool.incoming.iterdir())


def rows(ledger: Ledger) -> list[Any]:
    """Read all objects of a queue."""
    with ledger.reading() as connection:
        return list(connection.execute(select(objects).order_by(objects.c.received)))


@contextmanager
def station(
    folder: Path, listen: dict[str, Any] | None = None, place: str = "", **more: Any
) -> Iterator[Station]:
    """Run a receiver in this process."""
    config = node_config(folder, listen, **more)
    queue, log = Recorded(), Spoken()
    spool = Spool(config.spool, config.floor)
    spool.prepare()
    ledger = make_ledger(place_of(place or str(folder / "queue.db")), queue)
    with free_socket() as listening:
        receiver = Receiver(config, spool, ledger, log, listening)
        receiver.start()
        try:
            yield Station(receiver, log, queue)
        finally:
            receiver.stop(0.5)
            ledger.close()


def dcmtk(program: str, *words: str | Path | int, limit_s: float = 60) -> tuple[int, str]:
    """Run a program of DCMTK; give its exit status and what it said."""
    done = subprocess.run(
        [DCMTK / program, *map(str, words)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=limit_s,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def store(port: int, *files: Path, options: tuple[str, ...] = ()) -> tuple[int, str]:
    """Send files by DCMTK's storescu, each as it is."""
    words: tuple[str | int, ...] = (
        "-v",
        "-aec",
        "NODE",
        "-aet",
        "CAMERA",
        *options,
        "127.0.0.1",
        port,
    )
    return dcmtk("storescu", *words, *files)


def instance(number: int = 1, **more: Any) -> Dataset:
    """Build a small photograph with UIDs of its own."""
    shot = {"instance_uid": f"1.2.826.0.1.3680043.10.1.3.{number}"} | more
    return make_fundus(make_pixels(seed=number), **shot)


def written(folder: Path, *numbers: int) -> list[Path]:
    """Write small photographs."""
    return [save(instance(one), folder, f"{one}.dcm") for one in numbers or (1,)]


def large(folder: Path, size: int) -> Path:
    """Write a photograph whose file has about `size` bytes."""
    side = int((size / 3) ** 0.5)
    return save(make_fundus(make_pixels((1, side, side, 3))), folder, "large.dcm")


def until(what: Callable[[], object], limit_s: float = 10) -> bool:
    """Wait until something is so; tell whether it came to be."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return bool(what())


def threads(name: str) -> int:
    """Count threads by a part of their name."""
    return sum(name in one.name for one in threading.enumerate())
