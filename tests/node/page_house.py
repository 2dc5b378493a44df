"""A node without its processes: a queue, a spool, a vault, and the page over them."""

import hashlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import numpy as np
from PIL import Image
from sqlalchemy import Connection, insert
from starlette.applications import Starlette

from factories import make_fundus
from medlocker_dicom.database import place_of
from medlocker_dicom.dicom.capture import attach_packet, build_capture
from medlocker_dicom.dicom.fundus import read_fundus
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.audit import Auditor
from medlocker_dicom.node.config import NodeConfig
from medlocker_dicom.node.ledger import Arrival, Ledger, State, make_ledger
from medlocker_dicom.node.page.actions import LedgerActions
from medlocker_dicom.node.page.app import make_app
from medlocker_dicom.node.page.serve import make_server
from medlocker_dicom.node.schema import objects
from medlocker_dicom.node.spool import Spool
from medlocker_dicom.phantom import Phantom, phantom
from medlocker_dicom.vault.vault import Vault
from medlocker_dicom.watermark.draw import draw_logo
from vault_factories import ALICE, BOB, house

ROOT = "1.2.826.0.1.3680043.10.77"
CLASS = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
SYNTAX = "1.2.840.10008.1.2.1"
PAGES = ("/", "/studies", "/held", "/destinations", "/recipients", "/audit")


@dataclass
class Probes:
    """Says what it is told to."""

    wrong: list[str] = field(default_factory=list)

    def health(self) -> list[str]:
        """Nothing is ever wrong."""
        return []

    def ready(self) -> list[str]:
        """What is wrong."""
        return self.wrong

    def metrics(self) -> bytes:
        """One number."""
        return b"medlocker_node_received_total 7\n"


@dataclass
class Told:
    """An audit trail that remembers."""

    messages: list[str] = field(default_factory=list)

    def append(self, message: bytes) -> None:
        """Remember."""
        self.messages.append(message.decode())

    def count(self, code: str, words: str) -> int:
        """Count the messages of an event that hold some words."""
        return sum(f'csd-code="{code}"' in one and words in one for one in self.messages)


@dataclass
class Clocks:
    """The queue's milliseconds, and the sessions' seconds."""

    ms: int = field(default_factory=lambda: int(time.time() * 1000))
    seconds: float = 0.0


@dataclass
class PageHouse:
    """Everything that the page shows."""

    root: Path
    ledger: Ledger
    spool: Spool
    vault: Vault
    clocks: Clocks
    work: list[tuple[str, str]]
    probes: Probes = field(default_factory=Probes)
    told: Told = field(default_factory=Told)
    eyes: dict[str, Phantom] = field(default_factory=dict)

    @property
    def auditor(self) -> Auditor:
        """Tells what is kept in `told`."""
        return Auditor(cast("Any", self.told), ("MEDLOCKER",), b"secret")

    def config(self, **page: Any) -> NodeConfig:
        """A configuration with two destinations and two routes; `page` is that of the page."""
        lock = {"recipients": ["alice"]}
        archive = {"kind": "dicom", "ae_title": "ARCHIVE", "host": "archive.example", "port": 104}
        research = {"kind": "stow", "url": "https://research.example/dicom-web"}
        both = {"name": "photographs", "lock": lock, "destinations": ["archive", "research"]}
        rest = {"name": "everything else", "lock": lock, "destinations": ["archive"]}
        return NodeConfig.model_validate(
            {
                "spool": self.spool.root,
                "vault": str(self.root / "vault.db"),
                "issuer": self.root / "issuer.key",
                "destinations": {"archive": archive, "research": research},
                "routes": [both, rest],
                "page": page,
            }
        )

    def app(self, **page: Any) -> Starlette:
        """The page."""
        actions = LedgerActions(self.ledger, self.auditor)
        return make_app(
            self.config(**page),
            self.ledger,
            self.spool,
            self.vault,
            actions,
            self.probes,
            self.auditor,
            lambda: self.clocks.seconds,
        )

    def enter(
        self, number: int, study: int = 1, data: bytes | None = None, station: str = "TOPCON1"
    ) -> str:
        """Receive an object, with a file of its own or none; its id."""
        digest = hashlib.sha256(data or str(number).encode()).hexdigest()
        arrival = Arrival(
            sop_instance_uid=f"{ROOT}.3.{number}",
            sop_class_uid=CLASS,
            transfer_syntax_uid=SYNTAX,
            study_instance_uid=f"{ROOT}.1.{study}" if study else "",
            series_instance_uid=f"{ROOT}.2.{study}",
            sha256=digest,
            size=len(data or b"") or 3_400_000,
            calling_ae_title=station,
            called_ae_title="MEDLOCKER",
            address="10.20.30.40",
        )
        if data is not None:
            part = self.spool.incoming / f"{number}"
            part.write_bytes(data)
            self.spool.adopt(part, arrival.id)
        queue.enter(self.ledger, arrival)
        return arrival.id

    def photograph(self, number: int, study: int = 1, size: int = 160) -> str:
        """Receive a phantom's photograph; its id."""
        eye = eye_of(number, size)
        ds = make_fundus(eye.image[None], instance_uid=f"{ROOT}.3.{number}")
        object_id = self.enter(number, study, to_bytes(ds))
        self.eyes[object_id] = eye
        return object_id

    def lock(self, object_id: str, destinations: Sequence[str] = ("archive", "research")) -> None:
        """Lock a received photograph, as far as the page can tell."""
        self.spool.write_result(
            object_id, "a1", marked(self.eyes[object_id], self.spool.object(object_id))
        )
        uid = f"{ROOT}.4.{object_id[:6].translate(str.maketrans('abcdef', '123456'))}"
        queue.outgoing(self.ledger, object_id, State.LOCKED, "photographs", uid, "a1", destinations)

    def hold(self, object_id: str, reason: str, hint: str, route: str | None = None) -> None:
        """Hold an object."""
        queue.hold(self.ledger, object_id, reason, hint, route)

    def crowd(self, count: int) -> None:
        """Enter many objects at once, two a study, without files, held."""
        now = self.clocks.ms
        rows = [
            {
                "id": hashlib.sha256(str(n).encode()).hexdigest(),
                "sop_instance_uid": f"{ROOT}.3.{n}",
                "sop_class_uid": CLASS,
                "transfer_syntax_uid": SYNTAX,
                "study_instance_uid": f"{ROOT}.1.{n // 2}",
                "series_instance_uid": f"{ROOT}.2.{n // 2}",
                "sha256": "0" * 64,
                "size": 1,
                "calling_ae_title": "A",
                "called_ae_title": "B",
                "address": "::1",
                "received": now - count + n,
                "state": State.HELD,
                "changed": now,
                "reason": "no",
                "tries": 0,
                "starts": 0,
            }
            for n in range(count)
        ]
        with self.ledger.writing() as connection:
            connection.execute(insert(objects), rows)


@cache
def eye_of(number: int, size: int) -> Phantom:
    """A phantom of `size` px."""
    return phantom(np.random.default_rng(number), (size, size))


def marked(eye: Phantom, path: Path) -> bytes:
    """A photograph with the logo where it covers the least of lesions, as a locked instance."""
    source = read_fundus(path)
    pixels = source.pixels.copy()
    side = pixels.shape[1] // 4
    places = [
        (slice(y, y + side), slice(x, x + side))
        for y in range(side // 2, 5 * side // 2, side // 4)
        for x in range(side // 2, 5 * side // 2, side // 4)
    ]
    place = min(places, key=lambda one: np.count_nonzero(eye.mask[one]))
    logo = np.asarray(Image.fromarray(draw_logo()).resize((side, side)), np.float64)
    alpha = 0.7 * logo[..., 3:] / 255
    pixels[0][place] = np.rint(pixels[0][place] * (1 - alpha) + logo[..., :3] * alpha)
    ds = build_capture(
        source,
        pixels,
        series_uid=f"{ROOT}.5",
        instance_uid=f"{source.ds.SOPInstanceUID}.9",
        now=datetime(2026, 11, 23, tzinfo=UTC),
        version="0",
    )
    attach_packet(ds, b"packet" * 20, bytes(32))
    return to_bytes(ds)


@contextmanager
def page_house(root: Path, database: str = "") -> Iterator[PageHouse]:
    """Make an empty node: its vault has alice, bob and a custodian, its queue is in SQLite."""
    work: list[tuple[str, str]] = []
    clocks = Clocks()

    def enqueue(
        connection: Connection, workflow: str, key: str, *arguments: str, delay_s: float = 0
    ) -> None:
        assert connection.in_transaction()
        assert arguments
        assert delay_s >= 0
        work.append((workflow, key))

    made = make_ledger(place_of(database or str(root / "queue.db")), enqueue)
    ledger = Ledger(made.place, made.engine, enqueue, lambda: clocks.ms)
    spool = Spool(root / "spool", 1 << 20)
    spool.prepare()
    home = house(str(root / "vault.db"))
    for number in range(4):
        home.lock(number, ALICE, BOB)
    yield PageHouse(root, ledger, spool, home.vault, clocks, work)
    ledger.close()
    home.vault.close()


@contextmanager
def served(app: Starlette) -> Iterator[int]:
    """Serve a page from a thread as the node does; give its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        port: int = listener.getsockname()[1]
        server = make_server(app, app.state.config.page)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield port
        finally:
            server.should_exit = True
            thread.join()


def wait_until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something, not for ever."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


@dataclass
class Answer:
    """What the page answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass
class Client:
    """A browser that keeps cookies and follows nothing."""

    port: int
    source: str = "127.0.0.1"
    cookies: dict[str, str] = field(default_factory=dict)
    stamp: str = ""

    def ask(self, method: str, path: str, body: str | None = None, **headers: str | None) -> Answer:
        """Send a request; a header that is None is left out."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=20, source_address=(self.source, 0)
        )
        sent: dict[str, str | None] = {"host": f"127.0.0.1:{self.port}"}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if body is not None:
            sent["content-type"] = "application/x-www-form-urlencoded"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        kept = {name: value for name, value in sent.items() if value is not None}
        connection.request(method, path, body, kept)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        connection.close()
        for line in response.headers.get_all("set-cookie", []):
            self.cookies |= {one.key: one.value for one in SimpleCookie(line).values()}
        if found := re.search(rb'name="stamp" value="([0-9a-f]+)"', answer.body):
            self.stamp = found[1].decode()
        return answer

    def get(self, path: str, **headers: str | None) -> Answer:
        """Look at a page."""
        return self.ask("GET", path, **headers)

    def press(self, path: str, form: dict[str, str] | None = None, **headers: str | None) -> Answer:
        """Send a form of the page that was looked at last."""
        return self.ask("POST", path, urlencode({"stamp": self.stamp} | (form or {})), **headers)

    @contextmanager
    def watching(self) -> Iterator[http.client.HTTPResponse]:
        """Open the stream of events, to be read line by line."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection.request("GET", "/events", headers={"cookie": cookie})
        yield connection.getresponse()
        connection.close()
