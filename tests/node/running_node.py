"""The real node, as its processes, with an owner's vault: for tests that talk to it by DICOM."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import create_engine, text

import archives
from archives import free_port
from desk import Desk, owned
from medlocker_dicom.database import place_of
from tiny_bundles import write_classifier, write_segmenter

PATIENCE = 60  # s


@dataclass
class Node:
    """A node on a desk: its folder, its ports, its processes while they run.

    Attributes
    ----------
    desk
        With a vault, its custodian, and alice in it.
    destinations
        As in node.yaml.
    changes
        Further keys of node.yaml.
    """

    desk: Desk
    destinations: dict[str, dict[str, Any]]
    changes: dict[str, Any] = field(default_factory=dict)
    route: dict[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    page: int = field(default_factory=free_port)
    workers: int = 1
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def spool(self) -> Path:
        """Its spool."""
        return Path(self.changes.get("spool", self.desk.root / "spool"))

    def write(self) -> Path:
        """Write node.yaml."""
        tiny = {"recipients": ["alice"], "models": ["dr_classifier_tiny"], "budget": 12}
        content = {
            "listen": {"port": self.port, "processes": 1},
            "page": {"port": self.page},
            "spool": "spool",
            "floor": "1 MB",
            "vault": str(self.desk.root / "data" / "medlocker" / "vault.db"),
            "issuer": str(self.desk.root / "config" / "medlocker" / "issuer.key"),
            "destinations": self.destinations,
            "routes": [
                {"name": "all", "lock": tiny, "destinations": list(self.destinations)} | self.route
            ],
        } | self.changes
        return self.desk.put("node.yaml", yaml.safe_dump(content).encode())

    def start(self) -> None:
        """Start it, and wait until it answers C-ECHO."""
        command = [sys.executable, "-m", "medlocker_dicom.cli.main", "node", "run", "--config"]
        log = (self.desk.root / "node.log").open("ab")
        self.process = subprocess.Popen(
            [*command, str(self.write()), "--workers", str(self.workers)],
            stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while not self.echoes():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < until, self.log
            time.sleep(0.2)

    def processes(self) -> list[int]:
        """Tell the numbers of its processes."""
        assert self.process is not None
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, found.split())]

    def echoes(self) -> bool:
        """Tell whether it answers."""
        command = ["/usr/bin/echoscu", "-aec", "MEDLOCKER", "127.0.0.1", str(self.port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def ask(self, path: str) -> str:
        """Ask its page."""
        with archives.DIRECT.open(f"http://127.0.0.1:{self.page}{path}", timeout=PATIENCE) as said:
            text: str = said.read().decode()
        return text

    def send(self, *paths: Path) -> "subprocess.CompletedProcess[str]":
        """Send files by DCMTK."""
        command = ["/usr/bin/storescu", "-v", "-aet", "MODALITY", "-aec", "MEDLOCKER"]
        where = ["127.0.0.1", str(self.port)]
        return subprocess.run(
            [*command, *where, *map(str, paths)], capture_output=True, text=True, check=False
        )

    def reload(self, content: bytes | None = None, *, usable: bool = True) -> None:
        """Let it read node.yaml again, with other content or as it is now; wait until it did."""
        self.write() if content is None else self.desk.put("node.yaml", content)
        assert self.process is not None
        sign = '"page started"' if usable else "it stays as it was"
        before = self.log.count(sign)
        os.kill(self.process.pid, signal.SIGHUP)
        until = time.monotonic() + PATIENCE
        while self.log.count(sign) == before:
            assert time.monotonic() < until, self.log[-3000:]
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill all of its processes at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it as systemd does."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.desk.root / "node.log").read_text()

    def states(self) -> dict[str, int]:
        """Count objects by state."""
        return self._count("SELECT state, count(*) FROM node_object GROUP BY state")

    def sendings(self) -> dict[str, int]:
        """Count deliveries by state."""
        return self._count("SELECT state, count(*) FROM node_delivery GROUP BY state")

    def reasons(self) -> list[str]:
        """Why objects are held or wait."""
        return [str(row[0]) for row in self.rows("SELECT coalesce(reason, '') FROM node_object")]

    def rows(self, query: str) -> list[Any]:
        """Ask the queue's database."""
        engine = create_engine(place_of(self.changes.get("database", str(self.queue))).url)
        try:
            with engine.connect() as connection:
                return list(connection.execute(text(query)))
        finally:
            engine.dispose()

    @property
    def queue(self) -> Path:
        """The queue's file, where it is one."""
        return self.spool / "queue.db"

    def _count(self, query: str) -> dict[str, int]:
        return {str(state): int(count) for state, count in self.rows(query)}

    def wait_for(self, states: dict[str, int], patience: float = PATIENCE) -> None:
        """Wait until the objects are in these states."""
        until = time.monotonic() + patience
        while self.states() != states:
            assert time.monotonic() < until, (self.states(), self.reasons(), self.log[-3000:])
            time.sleep(0.2)

    def logged(self) -> list[dict[str, Any]]:
        """Return the log's lines."""
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]


def settled(folder: Path) -> Desk:
    """Give an owner a desk outside the tests: tiny models, a vault, its custodian, and alice."""
    desk = Desk(folder)
    write_classifier(folder / "bundles" / "dr_classifier_tiny")
    write_segmenter(folder / "bundles" / "lesion_segmenter", everywhere=-10)
    os.environ["MEDLOCKER_BUNDLES"] = str(folder / "bundles")
    for name in ("cache", "config", "data"):
        os.environ[f"XDG_{name.upper()}_HOME"] = str(folder / name)
    return owned(desk)


@contextmanager
def running(desk: Desk, destinations: dict[str, dict[str, Any]], **more: Any) -> Iterator[Node]:
    """Run a node for a while; what it left behind is killed."""
    node = Node(desk, destinations, **more)
    try:
        node.start()
        yield node
        node.stop()
    finally:
        if node.process is not None and node.process.poll() is None:
            node.kill()
