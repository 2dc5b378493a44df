"""The page over a queue, a spool and a vault: what it shows, and what its buttons do."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_house import PAGES, ROOT, Client, PageHouse, page_house, served

from medlocker_dicom.dicom.fundus import decode_fundus
from medlocker_dicom.errors import UsageError
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.apart import Apart, EndedError, EndlessError, UnbegunError
from medlocker_dicom.node.ledger import Sending, State
from medlocker_dicom.node.page import live, thumbnails, views, words
from postgres import database


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PageHouse]:
    with page_house(tmp_path) as made:
        yield made


@pytest.fixture
def client(node: PageHouse) -> Iterator[Client]:
    with served(node.app()) as port:
        yield Client(port)


def state_of(node: PageHouse, object_id: str) -> str:
    return str(queue.find(node.ledger, object_id).state)


def test_every_page_of_an_empty_node(client: Client) -> None:
    """Nothing was received yet: each page says so, and none fails."""
    for path in PAGES:
        answer = client.get(path)
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "No study was received yet" in client.get("/studies").text
    assert "Nothing is held" in client.get("/held").text
    assert client.get("/health").text == "ok\n"
    assert client.get("/metrics").body == b"medlocker_node_received_total 7\n"


def test_what_is_not_ready_says_why(node: PageHouse, client: Client) -> None:
    """Machines get 503 and the words."""
    node.probes.wrong = ["the database does not answer"]
    answer = client.get("/ready")
    assert (answer.status, answer.text) == (503, "the database does not answer\n")


def test_the_overview_counts(node: PageHouse) -> None:
    """Received, locked and delivered in each span; states; workers that are alive."""
    node.clocks.ms -= 2 * views.SPANS["hour"]
    old = node.photograph(1)
    node.lock(old)
    queue.delivered(node.ledger, old, "archive", "0000")
    queue.alive(node.ledger, "dead")
    node.clocks.ms += 2 * views.SPANS["hour"]
    new = node.photograph(2)
    node.lock(new)
    node.hold(node.photograph(3), "r", "h")
    queue.park(node.ledger, new, "archive", "A900")
    queue.alive(node.ledger, "working")
    now = views.overview(node.ledger, node.spool)
    assert now.received == {"minute": 2, "hour": 2, "day": 3}
    assert now.locked == {"minute": 1, "hour": 1, "day": 2}
    assert now.delivered == {"minute": 0, "hour": 0, "day": 1}
    assert now.states == {State.LOCKED: 2, State.HELD: 1}
    assert now.sendings == {Sending.WAITING: 2, Sending.DELIVERED: 1, Sending.PARKED: 1}
    assert now.workers == ("working",)
    assert live.values(now)["shown"] == {
        "held": True, "parked": True, "disk": False, "idle": False, "calm": False,
    }  # fmt: skip


def test_a_study(node: PageHouse, client: Client) -> None:
    """Its objects with pictures, routes, what destinations said, and the buttons they need."""
    locked, held = node.photograph(1), node.photograph(2)
    node.lock(locked)
    queue.delivered(node.ledger, locked, "archive", "0000: stored")
    queue.park(node.ledger, locked, "research", "<b>409</b>\nConflict")
    node.hold(held, "no position", "release it")
    page = client.get(f"/studies/{ROOT}.1.1").text
    assert "1 of 2 deliveries" in page
    assert "&lt;b&gt;409&lt;/b&gt; Conflict" in page
    assert f'src="/thumbnails/{locked}/original"' in page
    assert f'src="/thumbnails/{locked}/locked"' in page
    assert f'src="/thumbnails/{held}/locked"' not in page
    assert f'action="/deliveries/{locked}/research/retry"' in page
    assert f'action="/deliveries/{locked}/archive/retry"' not in page
    assert f'action="/held/{held}/retry"' in page
    assert "Doe" not in page
    assert node.told.count("110103", f"{ROOT}.1.1") == 1
    for kind in ("original", "locked"):
        picture = client.get(f"/thumbnails/{locked}/{kind}")
        assert picture.headers["content-type"] == "image/jpeg"
        assert picture.headers["cache-control"] == "no-store"
        assert picture.body[:2] == b"\xff\xd8"
    assert client.get(f"/thumbnails/{held}/locked").status == 404


def test_what_has_no_picture_has_a_word(node: PageHouse, client: Client) -> None:
    """What does not decode is tried once and then said; what was deleted is said too."""
    junk = node.enter(1, data=b"no DICOM")
    node.hold(junk, "is not DICOM", "look")
    picture = client.get(f"/thumbnails/{junk}/original")
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "cannot be shown" in picture.text
    page = client.get(f"/studies/{ROOT}.1.1").text
    assert '<div class="word">cannot be shown</div>' in page
    assert f"/thumbnails/{junk}/original" not in page
    assert "deleted here" in client.get(f"/thumbnails/{node.enter(2)}/original").text


def test_large_files_get_no_picture(node: PageHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caps come before any decoding, of the file and of its pixels."""
    path = node.spool.object(node.photograph(1))
    small = thumbnails.thumbnail(path, decode_fundus)
    assert small.jpeg
    monkeypatch.setattr(thumbnails, "MAX_PIXEL_BYTES", 160 * 160 * 3 - 1)
    assert thumbnails.thumbnail(path, decode_fundus) == thumbnails.LARGE
    monkeypatch.setattr(thumbnails, "MAX_FILE_BYTES", 100)
    monkeypatch.setattr(thumbnails, "read_file", None)
    assert thumbnails.thumbnail(path, decode_fundus) == thumbnails.LARGE


@pytest.mark.parametrize(
    ("end", "again"), [(EndedError(-9), True), (UnbegunError(""), True), (EndlessError(), False)]
)
def test_what_ends_over_a_picture(
    node: PageHouse,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    end: Exception,
    again: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    """A codec takes its own process with it; what may pass is tried again, what froze is not."""
    one, other = node.photograph(1), node.photograph(2)
    with monkeypatch.context() as patch:
        patch.setattr(Apart, "call", lambda *_: (_ for _ in ()).throw(end))
        assert "cannot be shown" in client.get(f"/thumbnails/{one}/original").text
    for which, shown in ((one, again), (other, True)):
        picture = client.get(f"/thumbnails/{which}/original").body[:2] == b"\xff\xd8"
        assert picture is shown


def test_pictures_are_bounded(
    node: PageHouse, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are small, kept, and the oldest one gives way."""
    ids = [node.photograph(number, size=400) for number in range(3)]
    monkeypatch.setattr(thumbnails, "MOST", 2)
    made = []
    call = Apart.call

    def counted(apart: Apart, seconds: float, path: str, kind: str) -> bytes:
        made.append(Path(path))
        return call(apart, seconds, path, kind)

    monkeypatch.setattr(Apart, "call", counted)
    for one in (ids[0], ids[1], ids[1], ids[2], ids[0]):
        assert len(client.get(f"/thumbnails/{one}/original").body) < 20_000
    assert made == [node.spool.object(one) for one in (ids[0], ids[1], ids[2], ids[0])]


def test_pictures_can_be_switched_off(node: PageHouse) -> None:
    """Neither the pictures nor their addresses are there, also when a later node.yaml says so."""
    locked = node.photograph(1)
    node.lock(locked)
    app = node.app()
    with served(app) as port:
        client = Client(port)
        assert client.get(f"/thumbnails/{locked}/original").status == 200
        app.state.config = node.config(thumbnails=False)
        assert "/thumbnails/" not in client.get(f"/studies/{ROOT}.1.1").text
        for kind in ("original", "locked"):
            assert client.get(f"/thumbnails/{locked}/{kind}").status == 404
    assert not node.told.messages


def test_a_study_becomes_quiet(node: PageHouse, client: Client) -> None:
    """By the last arrival, in words, after the minutes of node.yaml."""
    node.photograph(1)
    assert "still arriving" in client.get("/studies").text
    node.clocks.ms += 11 * 60_000
    assert "quiet for 11 minutes" in client.get("/studies").text
    node.photograph(2)
    assert "still arriving" in client.get(f"/studies/{ROOT}.1.1").text


def test_objects_without_a_study(node: PageHouse, client: Client) -> None:
    """They are listed together, and their page opens."""
    node.hold(node.enter(1, study=0), "has no study", "ask")
    assert 'href="/studies/-"' in client.get("/studies").text
    assert f"{ROOT}.3.1" in client.get("/studies/-").text


def test_retry(node: PageHouse, client: Client) -> None:
    """A held object goes its way again, once: who comes second is told."""
    held = node.photograph(1)
    node.hold(held, "the model failed", "install it")
    client.get("/held")
    answer = client.press(f"/held/{held}/retry")
    assert (answer.status, answer.headers["location"]) == (303, "/held?said=retried")
    assert state_of(node, held) == State.RECEIVED
    assert node.work[-1] == ("process", f"{held}-2")
    assert "goes its way again" in client.get("/held?said=retried").text
    assert client.get("/held?said=<script>").text.count("<script") == 0
    second = client.press(f"/held/{held}/retry")
    assert second.status == 409
    assert "is not held" in second.text


def test_retry_all(node: PageHouse, client: Client) -> None:
    """One press reaches everything that is held."""
    ids = [node.photograph(number) for number in range(3)]
    for one in ids:
        node.hold(one, "the model failed", "install it")
    client.get("/held")
    assert client.press("/held/retry").status == 303
    assert {state_of(node, one) for one in ids} == {State.RECEIVED}


def test_discard(node: PageHouse, client: Client) -> None:
    """It asks first; the row stays, and says who."""
    held = node.photograph(1)
    node.hold(held, "a duplicate", "compare")
    asked = client.get(f"/held/{held}/discard")
    assert "sent nowhere" in asked.text
    assert client.press(f"/held/{held}/discard").status == 303
    row = queue.find(node.ledger, held)
    assert row.state == State.DISCARDED
    assert row.reason == "discarded by somebody at 127.0.0.1: a duplicate"
    assert client.get(f"/held/{held}/discard").status == 404
    with pytest.raises(UsageError, match="is not held"):
        queue.discard(node.ledger, held, "me")


def test_release(node: PageHouse, client: Client) -> None:
    """It names the destinations, and does nothing before they were read and agreed to."""
    held = node.photograph(1)
    node.hold(held, "no position", "release it", "photographs")
    asked = client.get(f"/held/{held}/release").text
    assert "photographs: unlocked to <strong>archive, research</strong>" in asked
    form = {"route": "photographs", "to photographs": "archive, research", "agreed": "yes"}
    for wrong, said in (
        ({"route": ""}, "choose a route"),
        ({"route": "nowhere"}, "choose a route"),
        ({"to photographs": "archive"}, "have changed since"),
        ({"agreed": ""}, "tick that"),
    ):
        refused = client.press(f"/held/{held}/release", form | wrong)
        assert refused.status == 422
        assert said in refused.text
        assert state_of(node, held) == State.HELD
    assert client.press(f"/held/{held}/release", form).status == 303
    row = queue.find(node.ledger, held)
    assert (row.state, row.result, row.result_uid) == (State.PASSED, "", row.sop_instance_uid)
    assert row.reason == "released unlocked by somebody at 127.0.0.1: no position"
    assert node.told.count("110113", f"{ROOT}.1.1") == 1
    assert [key for name, key in node.work if name == "deliver"] == [
        f"{held}-archive-1",
        f"{held}-research-1",
    ]
    for name in ("archive", "research"):
        queue.delivered(node.ledger, held, name, "0000")
    assert state_of(node, held) == State.DONE
    assert client.press(f"/held/{held}/release", form).status == 409


def test_release_to_nobody(node: PageHouse) -> None:
    """The queue itself refuses it, and keeps the object held."""
    held = node.photograph(1)
    node.hold(held, "r", "h")
    with pytest.raises(UsageError, match="no destination"):
        queue.release(node.ledger, held, "all", [], "me")
    assert state_of(node, held) == State.HELD


def test_destinations(node: PageHouse, client: Client) -> None:
    """What each has, said last and is to get; what was refused is tried again at one press."""
    node.clocks.ms -= 60_000
    ids = [node.photograph(number) for number in range(3)]
    for one in ids:
        node.lock(one)
        queue.park(node.ledger, one, "archive", "C000: cannot understand")
    node.clocks.ms += 60_000
    queue.again(node.ledger, ids[0], "research", 0, "503: later", 90)
    queue.delivered(node.ledger, ids[1], "research", "200 OK")
    archive, research = views.targets(node.ledger, ["archive", "research"])
    assert (archive.states[Sending.PARKED], archive.said) == (3, "C000: cannot understand")
    assert archive.next_try is None
    assert research.states == {Sending.WAITING: 2, Sending.DELIVERED: 1}
    assert research.next_try == node.clocks.ms + 90_000
    assert "ARCHIVE at archive.example:104" in client.get("/destinations").text
    assert client.press("/destinations/archive/retry").status == 303
    assert views.targets(node.ledger, ["archive"])[0].states == {Sending.WAITING: 3}
    assert client.press(f"/deliveries/{ids[0]}/research/retry").status == 303
    assert client.press(f"/deliveries/{ids[1]}/research/retry").status == 409
    assert client.press(f"/deliveries/{ids[1]}/nowhere/retry").status == 409


def test_a_destination_that_is_no_longer_configured(node: PageHouse, client: Client) -> None:
    """Its deliveries are not forgotten."""
    node.lock(node.photograph(1), ["old archive"])
    assert "no longer in node.yaml" in client.get("/destinations").text


def test_recipients_and_audit(client: Client) -> None:
    """People with fingerprints and live grants; the chain's newest entries and its head."""
    people = client.get("/recipients").text
    assert people.count('<td class="count">4</td>') == 3
    assert ">custodian</span>" in people
    audit = client.get("/audit").text
    assert "recipient-added" in audit
    assert "<code>20:" in audit


@pytest.mark.parametrize(
    "path",
    [
        "/studies/1.2.3",
        "/studies/..%2f..%2fetc",
        "/studies/' OR 1=1",
        f"/studies/{'1' * 65}",
        "/studies?before=x",
        "/studies?before=99999999999999999999-1",
        "/held?page=0",
        "/held?page=1e9",
        "/held?page=9999999",
        "/thumbnails/../../etc/passwd/original",
        f"/thumbnails/{'A' * 64}/original",
        f"/thumbnails/{'a' * 63}/original",
        f"/held/{'g' * 64}/release",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/nothing",
    ],
)
def test_addresses_that_are_none(client: Client, path: str) -> None:
    """Nothing is there, and nothing fails."""
    assert client.get(path.replace(" ", "%20")).status == 404


def test_an_object_that_nobody_knows(node: PageHouse, client: Client) -> None:
    """Its id is well formed: the queue says that there is none."""
    node.hold(node.photograph(1), "r", "h")
    client.get("/held")
    nobody = "a" * 64
    assert client.get(f"/held/{nobody}/release").status == 409
    assert client.get(f"/thumbnails/{nobody}/locked").status == 409
    assert client.press(f"/held/{nobody}/retry").status == 409


def test_a_queue_that_fails(node: PageHouse, client: Client) -> None:
    """The page says so with 503, and the stream of events goes on."""
    with node.ledger.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE node_object RENAME TO lost")
    for path in PAGES:
        assert client.get(path).status == 503
    assert live.LOST["texts"]["state"].startswith("not up to date")


def test_ten_thousand_objects(node: PageHouse, client: Client) -> None:
    """Every list has a page's rows and comes quickly; pages of studies follow each other."""
    node.crowd(10_000)
    client.get("/")
    for path in ("/", "/studies", "/held", "/held?page=150", "/destinations"):
        began = time.monotonic()
        answer = client.get(path)
        assert answer.status == 200
        assert time.monotonic() - began < 1.5, path
        assert len(answer.body) < 150_000
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        page, cursor = views.studies(node.ledger, cursor)
        seen += [one.uid for one in page]
    assert seen == [f"{ROOT}.1.{n}" for n in range(4999, 4999 - 150, -1)]
    last, cursor = views.studies(node.ledger, views.Cursor(page[-1].last, ""))
    assert last[0].uid == f"{ROOT}.1.{4999 - 150}"


def test_studies_of_one_moment_are_each_listed_once(node: PageHouse) -> None:
    """Many objects can arrive in one millisecond."""
    for number in range(120):
        node.enter(number, study=number + 1)
    seen: list[str] = []
    page, cursor = views.studies(node.ledger, None)
    while True:
        seen += [one.uid for one in page]
        if cursor is None:
            break
        page, cursor = views.studies(node.ledger, cursor)
    assert sorted(seen) == sorted({f"{ROOT}.1.{number + 1}" for number in range(120)})


def test_on_postgresql(postgresql: str, tmp_path: Path) -> None:
    """Every page, and each button once, over a real server."""
    with database(postgresql) as url, page_house(tmp_path, url) as node, served(node.app()) as port:
        client = Client(port)
        ids = [node.photograph(number, number) for number in range(1, 5)]
        for one in ids[:3]:
            node.hold(one, "r", "h", "photographs")
        node.lock(ids[3])
        queue.park(node.ledger, ids[3], "archive", "A900")
        for path in (*PAGES, f"/studies/{ROOT}.1.3", f"/held/{ids[0]}/release"):
            assert client.get(path).status == 200, path
        page, _ = views.studies(node.ledger, views.Cursor(node.clocks.ms, f"{ROOT}.1.2"))
        assert [one.uid for one in page] == [f"{ROOT}.1.1"]
        form = {"route": "photographs", "to photographs": "archive, research", "agreed": "yes"}
        for path in (
            f"/held/{ids[0]}/retry",
            f"/held/{ids[1]}/discard",
            f"/held/{ids[2]}/release",
            f"/deliveries/{ids[3]}/research/retry",
            "/destinations/archive/retry",
        ):
            assert client.press(path, form).status == 303, path
        states = [State.RECEIVED, State.DISCARDED, State.PASSED, State.LOCKED]
        assert [state_of(node, one) for one in ids] == states


def test_live_events(node: PageHouse, client: Client) -> None:
    """A stream tells what the overview shows, again and again."""
    with client.watching() as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        first = json.loads(response.readline().removeprefix(b"data: "))
        response.readline()
        node.hold(node.photograph(1), "r", "h")
        second = json.loads(response.readline().removeprefix(b"data: "))
    assert (first["texts"]["received-minute"], second["texts"]["received-minute"]) == ("0", "1")
    assert (first["shown"]["held"], second["shown"]["held"]) == (False, True)
    assert second["texts"]["held"] == "1 object is held"


def test_words() -> None:
    """Sizes, spans and foreign words as people read them."""
    assert words.size(1023) == "1023 bytes"
    assert words.size(3 << 40) == "3.0 TiB"
    assert words.ago(59_999) == "less than a minute"
    assert words.ago(49 * 3_600_000) == "2 days"
    assert words.said("a\n b" + "x" * 400) == "a b" + "x" * 297 + "…"
    assert words.short("0123456789abcdef" * 4) == "0123456789abcdef…"
    assert words.plural(1, "object", "objects") == "1 object"
    assert set(words.STATES) == set(State)
    assert set(words.SENDINGS) == set(Sending)
