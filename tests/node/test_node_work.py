"""What a worker does with an object: every end that it can come to is in the ledger."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage
from running_node import Node
from sqlalchemy import Connection

from desk import Desk, owned
from medlocker_dicom.database import place_of
from medlocker_dicom.errors import DeviceError, DiskFullError, VaultBusyError
from medlocker_dicom.keyfile import load_identity
from medlocker_dicom.node import commitment, logs
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node import locking as locking_now
from medlocker_dicom.node import work as working
from medlocker_dicom.node.apart import ClosedError, EndedError, EndlessError, UnbegunError
from medlocker_dicom.node.audit import Auditor
from medlocker_dicom.node.config import NodeConfig, load_config
from medlocker_dicom.node.ledger import Arrival, Ledger, Sending, State, make_ledger
from medlocker_dicom.node.lockers import Lockers
from medlocker_dicom.node.locking import Locking
from medlocker_dicom.node.logs import Log
from medlocker_dicom.node.metrics import make_meters
from medlocker_dicom.node.outcome import Kind, Outcome, delay_s
from medlocker_dicom.node.retention import tidy
from medlocker_dicom.node.routes import Facts, route_for
from medlocker_dicom.node.spool import Spool
from medlocker_dicom.node.work import Work
from medlocker_dicom.pipeline.lock import lock as lock_now
from medlocker_dicom.vault.vault import open_vault

ARCHIVES = {
    name: {"kind": "dicom", "ae_title": name.upper(), "host": "::1", "port": 4242}
    for name in ("one", "two")
}


@dataclass
class Entered:
    """Remembers what was entered."""

    left: list[tuple[str, tuple[str, ...], float]] = field(default_factory=list)

    def __call__(
        self, connection: Connection, workflow: str, key: str, *arguments: str, delay_s: float = 0
    ) -> None:
        """Enter."""
        assert connection.in_transaction()
        assert key.startswith(arguments[0])
        self.left.append((workflow, arguments, delay_s))


@dataclass
class Archive:
    """Stands for all destinations: says what it is told to say, and keeps what it is sent."""

    says: dict[str, Outcome] = field(default_factory=dict)
    kept: list[tuple[str, str]] = field(default_factory=list)

    def send(self, name: str, path: Path) -> Outcome:
        """Take a file."""
        self.kept.append((name, str(dcmread(path).SOPInstanceUID)))
        return self.says.get(name, Outcome(Kind.STORED, "0000H stored"))


@dataclass
class Shop:
    """A worker without processes."""

    desk: Desk
    work: Work
    locking: Locking
    ledger: Ledger
    entered: Entered
    archive: Archive

    def receive(self, path: Path, uid: str = "") -> str:
        """Take a file in, as a receiver does."""
        ds = dcmread(path, force=True)
        spool = self.work.spool
        part = spool.incoming / "part"
        part.write_bytes(path.read_bytes())
        arrival = Arrival(
            uid or str(ds.get("SOPInstanceUID", "1.2.3")),
            str(ds.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7")),
            "1.2.840.10008.1.2.1",
            str(ds.get("StudyInstanceUID", "")),
            str(ds.get("SeriesInstanceUID", "")),
            f"{hash(path.read_bytes()) & (2**64 - 1):064x}",
            path.stat().st_size,
            "MODALITY",
            "MEDLOCKER",
            "127.0.0.1",
        )
        spool.adopt(part, arrival.id)
        queue.enter(self.ledger, arrival)
        return arrival.id

    def run(self) -> None:
        """Do what was entered, and what that enters; what is to wait is left."""
        while now := [one for one in self.entered.left if not one[2]]:
            self.entered.left = [one for one in self.entered.left if one[2]]
            for workflow, arguments, _ in now:
                if workflow == queue.PROCESS:
                    self.work.process(*arguments)
                else:
                    self.work.deliver(arguments[0], arguments[1], int(arguments[2]))

    def state(self, object_id: str) -> tuple[str, str]:
        """State and reason of an object."""
        row = queue.find(self.ledger, object_id)
        return row.state, row.reason or ""


def configured(desk: Desk, route: dict[str, Any] | None = None) -> NodeConfig:
    """Write node.yaml and read it."""
    return load_config(Node(desk, ARCHIVES, route=route or {}, port=11112, page=8055).write())


@pytest.fixture
def shop(office: Desk) -> Iterator[Shop]:
    """A worker whose archives take everything."""
    owned(office)
    config = configured(office)
    entered, archive = Entered(), Archive()
    spool = Spool(config.spool, config.floor)
    spool.prepare()
    ledger = make_ledger(place_of(str(config.spool / "queue.db")), entered)
    issuer = load_identity(config.issuer.read_bytes(), bytes)
    vault = open_vault(place_of(config.vault))
    log, meters = Log("worker"), make_meters()
    lockers = Lockers(vault, issuer)
    locking = Locking(lambda: config, spool, ledger, lockers, log)
    work = Work(
        lambda: config,
        spool,
        ledger,
        lambda _, object_id: locking(object_id),
        archive,  # type: ignore[arg-type]  # stands for it
        log,
        Auditor(None, ("MEDLOCKER",), b"secret"),
        meters,
    )
    logs.start(config, b"secret", StringIO(), strict=True)
    yield Shop(office, work, locking, ledger, entered, archive)
    logs.stop()
    ledger.close()
    vault.close()


def with_route(shop: Shop, **route: Any) -> None:
    """Let node.yaml say something else from now on."""
    config = configured(shop.desk, route)
    for one in (shop.work, shop.locking):
        object.__setattr__(one, "config", lambda: config)


def test_a_photograph_is_locked_and_sent_everywhere(shop: Shop) -> None:
    """Two archives get one locked object; the vault knows it; the spool forgets it in time."""
    one = shop.receive(shop.desk.eye("a.dcm"))
    shop.run()
    assert shop.state(one) == (State.DONE, "")
    ((first, uid), (second, same)) = shop.archive.kept
    assert ({first, second}, uid) == ({"one", "two"}, same)
    assert uid in shop.desk.good("grant", "list").out
    assert tidy(shop.ledger, shop.work.spool, 24) == 0
    assert tidy(shop.ledger, shop.work.spool, 0) == 1
    assert shop.state(one)[0] == State.GONE
    assert list(shop.work.spool.root.rglob("*.dcm")) == []


def test_who_comes_late_joins_its_series(shop: Shop) -> None:
    """The second photograph of a series, a day after the first was delivered: one locked series."""
    read = []
    for number in range(2):
        one = shop.receive(shop.desk.eye(f"{number}.dcm", number))
        shop.run()
        row = queue.find(shop.ledger, one)
        read.append(dcmread(shop.work.spool.result(one, row.result)))
        object.__setattr__(shop.work, "clock", lambda: datetime.now(UTC) + timedelta(days=1))
    first, late = read
    source = dcmread(shop.desk / "0.dcm")
    assert first.StudyInstanceUID == late.StudyInstanceUID == source.StudyInstanceUID
    assert first.SeriesInstanceUID == late.SeriesInstanceUID != source.SeriesInstanceUID
    assert first.SOPInstanceUID != late.SOPInstanceUID


def test_what_was_cut_off_is_found_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ended after the vault and before the queue: the same file is sent."""
    one = shop.receive(shop.desk.eye("a.dcm"))
    with monkeypatch.context() as patch:
        patch.setattr(queue, "outgoing", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shop.work.process(one)
    made = shop.work.spool.results(one)
    assert len(made) == 1
    shop.run()
    assert shop.state(one)[0] == State.DONE
    assert shop.work.spool.results(one) == made
    assert "1 instances, 2 grants, 2 of them live" in shop.desk.good("vault", "check").out


def test_a_file_without_the_vaults_word_is_not_sent(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that ended before the vault knew: it locks again, and sends what the vault knows."""
    one = shop.receive(shop.desk.eye("a.dcm"))
    with monkeypatch.context() as patch:
        patch.setattr(locking_now, "keep", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shop.work.process(one)
    (orphan,) = shop.work.spool.results(one)
    shop.run()
    row = queue.find(shop.ledger, one)
    assert shop.work.spool.result(one, row.result) != orphan
    assert "1 instances, 2 grants, 2 of them live" in shop.desk.good("vault", "check").out


@pytest.mark.parametrize(
    ("name", "route", "state", "words"),
    [
        ("letter", {}, State.HELD, "not a DICOM file"),
        ("letter", {"not_lockable": "forward unlocked"}, State.HELD, "not a DICOM file"),
        ("eye", {"match": {"modality": ["CT"]}}, State.HELD, "no route"),
        ("report", {}, State.HELD, "not a fundus photograph"),
        ("report", {"not_lockable": "forward unlocked"}, State.HELD, "not a fundus photograph"),
        ("report", {"not_fundus": "forward unlocked"}, State.DONE, ""),
        ("black", {}, State.HELD, "dark all over"),
        ("black", {"not_lockable": "forward unlocked"}, State.HELD, "dark all over"),
        ("black", {"not_fundus": "forward unlocked"}, State.DONE, ""),
        ("short", {}, State.HELD, "pixel data"),
        ("short", {"not_fundus": "forward unlocked"}, State.HELD, "pixel data"),
        ("short", {"not_lockable": "forward unlocked"}, State.DONE, ""),
    ],
)
def test_what_cannot_be_locked(
    shop: Shop, name: str, route: dict[str, Any], state: State, words: str
) -> None:
    """Held with the reason; forwarded only if the route says so in words, for just that case."""
    with_route(shop, **route)
    path = shop.desk.eye("a.dcm")
    ds = dcmread(path)
    if name == "letter":
        path.write_bytes(b"a letter")
    elif name == "report":
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
        ds.save_as(path)
    elif name == "short":
        ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]
        ds.save_as(path)
    elif name == "black":
        ds.PixelData = bytes(len(ds.PixelData))
        ds.save_as(path)
    one = shop.receive(path)
    shop.run()
    found, reason = shop.state(one)
    assert (found, words in reason) == (state, True), reason
    assert len(shop.archive.kept) == (2 if state is State.DONE else 0)
    if state is State.DONE:
        assert {uid for _, uid in shop.archive.kept} == {str(ds.SOPInstanceUID)}


def test_a_held_object_goes_on_when_the_route_is_mended(shop: Shop) -> None:
    """Retry asks the routes as they are now."""
    with_route(shop, match={"modality": ["CT"]})
    one = shop.receive(shop.desk.eye("a.dcm"))
    shop.run()
    with_route(shop)
    queue.retry(shop.ledger, one)
    shop.run()
    assert shop.state(one) == (State.DONE, "")


@pytest.mark.parametrize(
    "error",
    [DiskFullError("no space left"), VaultBusyError("busy"), DeviceError("cuda: out of memory")],
)
def test_what_passes_by_itself_is_tried_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A full disk, a vault that is held, a GPU: the object waits, and says for what."""
    one = shop.receive(shop.desk.eye("a.dcm"))
    with monkeypatch.context() as patch:
        patch.setattr(Lockers, "make", lambda *_: (_ for _ in ()).throw(error))
        shop.run()
    assert shop.state(one) == (State.RECEIVED, str(error))
    ((_, arguments, wait),) = shop.entered.left
    assert arguments == (one,)
    assert 4 <= wait <= 6
    shop.entered.left = []
    shop.work.process(one)
    shop.run()
    assert shop.state(one) == (State.DONE, "")


def test_a_bug_holds_and_tells_no_name(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised: the object is held, and the words of the error are nowhere."""
    one = shop.receive(shop.desk.eye("a.dcm"))
    monkeypatch.setattr(Lockers, "make", lambda *_: (_ for _ in ()).throw(RuntimeError("Doe^Jane")))
    shop.run()
    assert shop.state(one) == (State.HELD, "unexpected: RuntimeError")


def test_an_object_that_ends_the_worker_is_held(shop: Shop) -> None:
    """After twenty beginnings without an end nobody begins again; a retry starts anew."""
    one = shop.receive(shop.desk.eye("a.dcm"))
    for _ in range(working.MOST_STARTS):
        queue.begin(shop.ledger, one)
    shop.run()
    assert shop.state(one) == (State.HELD, "the worker ended 20 times while it worked on this")
    queue.retry(shop.ledger, one)
    shop.run()
    assert shop.state(one)[0] == State.DONE


def apart(shop: Shop, *ends: BaseException) -> None:
    """Let the process that locks come to these ends, one after the other; then it locks."""
    left = iter(ends)

    def locking(_: float, object_id: str) -> bytes:
        for end in left:
            if isinstance(end, EndedError):
                queue.begin(shop.ledger, object_id)
            raise end
        return shop.locking(object_id)

    object.__setattr__(shop.work, "locking", locking)


def test_a_lock_that_does_not_end_is_held(shop: Shop) -> None:
    """It is given up once; a retry begins anew."""
    one = shop.receive(shop.desk.eye("a.dcm"))
    apart(shop, EndlessError())
    shop.run()
    state, reason = shop.state(one)
    assert (state, reason[:41]) == (State.HELD, "locking it took longer than 30 minutes, l")
    queue.retry(shop.ledger, one)
    shop.run()
    assert shop.state(one)[0] == State.DONE


def test_a_process_that_ends_over_an_object(shop: Shop) -> None:
    """It waits, longer each time, and is held at the fifth end; a retry begins anew."""
    one, waits = shop.receive(shop.desk.eye("a.dcm")), []
    apart(shop, *[EndedError(-9)] * 5)
    for _ in range(4):
        shop.run()
        assert shop.state(one) == (State.RECEIVED, "the process that locked it ended")
        ((workflow, arguments, wait),) = shop.entered.left
        waits.append(wait)
        shop.entered.left = [(workflow, arguments, 0)]
    assert all(later > 1.3 * earlier for earlier, later in pairwise(waits))
    shop.run()
    assert shop.state(one) == (State.HELD, "the process that locked it ended, after 5 tries")
    queue.retry(shop.ledger, one)
    shop.run()
    assert shop.state(one)[0] == State.DONE


def test_a_worker_that_ends_before_the_process_began(shop: Shop) -> None:
    """However often it does: the object was not begun with, and is not held for it."""
    one = shop.receive(shop.desk.eye("a.dcm"))
    apart(shop, *[ClosedError()] * (working.MOST_STARTS + 1))
    for _ in range(working.MOST_STARTS + 1):
        with pytest.raises(ClosedError):
            shop.work.process(one)
    shop.run()
    assert shop.state(one)[0] == State.DONE


def test_a_process_that_cannot_begin(shop: Shop) -> None:
    """What it needs is away: the object waits, and is not held for it."""
    one = shop.receive(shop.desk.eye("a.dcm"))
    apart(shop, UnbegunError("the vault is away"))
    shop.run()
    assert shop.state(one) == (State.RECEIVED, "the vault is away")
    ((_, (waiting,), wait),) = shop.entered.left
    assert (waiting, wait > 0) == (one, True)


def test_a_destination_that_does_not_take_it(shop: Shop) -> None:
    """One parks, one is to be tried again later; the object is not done before both have it."""
    shop.archive.says = {
        "one": Outcome(Kind.PARK, "C000H cannot be understood"),
        "two": Outcome(Kind.RETRY, "A700H out of resources"),
    }
    one = shop.receive(shop.desk.eye("a.dcm"))
    shop.run()
    assert shop.state(one)[0] == State.LOCKED
    parked, waiting = (queue.delivery(shop.ledger, one, name) for name in ("one", "two"))
    assert (parked.state, waiting.state) == (Sending.PARKED, Sending.WAITING)
    assert (parked.said, waiting.said) == ("C000H cannot be understood", "A700H out of resources")
    ((workflow, arguments, wait),) = shop.entered.left
    assert (workflow, arguments) == (queue.DELIVER, (one, "two", "2"))
    assert 4 <= wait <= 6
    shop.archive.says = {}
    queue.retry_delivery(shop.ledger, one, "one")
    shop.work.deliver(one, "two", 1)  # overtaken: nothing happens
    shop.run()
    assert queue.delivery(shop.ledger, one, "two").state == Sending.WAITING
    shop.work.deliver(one, "two", 2)
    assert shop.state(one)[0] == State.DONE


@pytest.mark.parametrize("rule", ["hold", "forward unlocked"])
def test_a_source_that_was_locked_elsewhere_is_held(shop: Shop, rule: str) -> None:
    """The vault knows a lock whose file is not here: no second rendition, and never as it came."""
    with_route(shop, not_lockable=rule)
    eye = shop.desk.eye("src/a.dcm")
    shop.desk.good(
        "lock", eye, shop.desk / "out", "--to", "alice", "--models", "dr_classifier_tiny",
        "--budget", "12",
    )  # fmt: skip
    one = shop.receive(eye)
    shop.run()
    state, reason = shop.state(one)
    assert state == State.HELD
    assert "was locked at" in reason


def test_waits_grow_and_end() -> None:
    """Five seconds, twice as long each time, at most a quarter of an hour; a fifth up or down."""
    for tries, wait in ((0, 5), (1, 10), (3, 40), (7, 640), (8, 900), (1000, 900)):
        assert 0.8 * wait <= delay_s(tries) <= 1.2 * wait


def test_the_first_route_that_matches_counts(shop: Shop) -> None:
    """Lists of patterns, all of which have to fit; none given fits anything."""
    facts = Facts("MODALITY 7", "1.2.840.10008.5.1.4.1.1.7", "OP", "ROOM 3", "L")
    cases: list[tuple[dict[str, list[str]], bool]] = [
        ({}, True),
        ({"calling_ae_title": ["MODALITY*"]}, True),
        ({"calling_ae_title": ["OTHER", "MODALITY ?"], "laterality": ["L"]}, True),
        ({"calling_ae_title": ["MODALITY*"], "laterality": ["R"]}, False),
        ({"station_name": ["room*"]}, False),
        ({"sop_class": ["1.2.840.10008.5.1.4.1.1.77.*"]}, False),
    ]
    for match, fits in cases:
        config = configured(shop.desk, {"match": match})
        assert (route_for(config, facts) is not None) is fits, match


def test_grants_last_from_the_moment_of_the_lock(shop: Shop) -> None:
    """A route's days are counted from there."""
    tiny = {"recipients": ["alice"], "models": ["dr_classifier_tiny"]}
    with_route(shop, lock=tiny | {"expires_days": 9})
    now = datetime(2026, 1, 1, tzinfo=UTC)
    made = shop.locking.lockers.make(shop.work.config().routes[0].lock, now)
    assert made.expires == datetime(2026, 1, 10, tzinfo=UTC)


def test_a_worker_that_comes_late_changes_nothing(shop: Shop) -> None:
    """Taken for dead, it ends after another has delivered: nothing is sent or held again."""
    one = shop.receive(shop.desk.eye("a.dcm"))
    shop.run()
    before = [queue.find(shop.ledger, one), queue.delivery(shop.ledger, one, "two")]
    queue.outgoing(shop.ledger, one, State.LOCKED, "all", "1.2.3", "ab", ["one", "two"])
    assert not queue.postpone(shop.ledger, one, 0, "the vault is away", "", 0)
    queue.hold(shop.ledger, one, "it cannot be locked", "", "all")
    assert not queue.again(shop.ledger, one, "two", 0, "the archive is away", 0)
    queue.park(shop.ledger, one, "two", "C000H cannot be understood")
    queue.sent(shop.ledger, one, "two", "stored; asked to commit", "1.2.4")
    assert [queue.find(shop.ledger, one), queue.delivery(shop.ledger, one, "two")] == before
    assert shop.entered.left == []


@pytest.mark.parametrize("rule", ["hold", "forward unlocked"])
def test_two_that_lock_the_same_make_one_lock(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """One was taken for dead and was not: the quicker one's file is sent, and nothing is held."""
    with_route(shop, not_lockable=rule)
    one, others = shop.receive(shop.desk.eye("a.dcm")), iter(range(1))

    def lock(*arguments: Any, **more: Any) -> Any:
        made = lock_now(*arguments, **more)
        for _ in others:
            shop.work.process(one)
        return made

    monkeypatch.setattr(locking_now, "lock", lock)
    shop.run()
    assert shop.state(one) == (State.DONE, "")
    assert next(others, None) is None
    (sent,) = {uid for _, uid in shop.archive.kept}
    assert sent == queue.find(shop.ledger, one).result_uid != "1.2.3"
    assert sorted(name for name, _ in shop.archive.kept) == ["one", "two"]
    assert "1 instances" in shop.desk.good("vault", "check").out


def test_a_locked_file_that_is_gone_holds_up_no_other(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two whose commitment is awaited, one's file was damaged: it is parked, both are seen."""
    asked: list[str] = []
    monkeypatch.setattr(working, "_COMMIT_S", -1.0)

    def request(*arguments: Any) -> Outcome:
        asked.append(arguments[3][0].instance_uid)
        return Outcome(Kind.STORED, "asked to commit")

    monkeypatch.setattr(commitment, "request", request)
    ids = [shop.receive(shop.desk.eye(f"{n}.dcm", n)) for n in range(2)]
    shop.archive.says = {"one": Outcome(Kind.RETRY, "A700H out of resources")}
    shop.run()
    for one in ids:
        queue.sent(shop.ledger, one, "one", "stored; asked to commit", "1.2.4")
    row = queue.find(shop.ledger, ids[0])
    shop.work.spool.result(row.id, row.result).write_bytes(b"damaged")
    shop.work.recommit()
    states = [queue.delivery(shop.ledger, one, "one").state for one in ids]
    assert states == [Sending.PARKED, Sending.SENT]
    assert asked == [queue.find(shop.ledger, ids[1]).result_uid]
