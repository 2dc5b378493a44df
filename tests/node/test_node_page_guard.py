"""Who gets into the page, and what other sites and other hosts cannot do with it."""

import base64
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from page_house import PAGES, ROOT, Client, PageHouse, page_house, served
from starlette.applications import Starlette

from medlocker_dicom.errors import UsageError
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.ledger import State
from medlocker_dicom.node.page import login
from medlocker_dicom.node.page.guard import allowed_hosts, host_name
from medlocker_dicom.node.page.serve import make_server

SECRET = "correct horse"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PageHouse]:
    with page_house(tmp_path) as made:
        yield made


@pytest.fixture
def client(node: PageHouse) -> Iterator[Client]:
    with served(node.app()) as port:
        yield Client(port)


@pytest.fixture(scope="module")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "node.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "node.key").write_bytes(private)
    return folder / "node.crt", folder / "node.key"


@pytest.fixture
def locked(node: PageHouse) -> Starlette:
    """A page with a login."""
    path = node.root / "password"
    path.write_text(f"{SECRET}\nnot this\n")
    return node.app(user="admin", password_file=path)


@pytest.fixture
def outside(locked: Starlette) -> Iterator[Client]:
    """Somebody who is not logged in yet."""
    with served(locked) as port:
        yield Client(port)


def enter(client: Client, password: str = SECRET, user: str = "admin") -> int:
    """Log in; the status."""
    if not client.stamp:
        client.get("/login")
    return client.press("/login", {"user": user, "password": password}).status


def test_every_answer_has_its_headers(node: PageHouse, client: Client) -> None:
    """Pages, errors, refusals, pictures and static files alike."""
    held = node.photograph(1)
    answers = [client.get(path) for path in (*PAGES, "/none", "/static/page.css", "/health")]
    answers += [client.get("/", host="evil.example"), client.get(f"/thumbnails/{held}/original")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["server"] is None


def test_no_page_holds_a_script_or_a_style_of_its_own(node: PageHouse, client: Client) -> None:
    """What the policy would refuse is not there; scripts and styles are our own files."""
    node.hold(node.photograph(1), "r", "h")
    for path in (*PAGES, f"/studies/{ROOT}.1.1"):
        text = client.get(path).text
        assert "<style" not in text
        assert "style=" not in text
        assert " on" + "click" not in text
        assert "http://" not in text.replace("http://127.0.0.1", "")
        assert text.count("<script") == text.count('<script src="/static/')


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8055", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8055"]
)
def test_hosts_that_are_ours(client: Client, host: str) -> None:
    """Loopback by each of its names, whatever the port of a tunnel."""
    assert client.get("/", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8055", "[::2]", "", "::1"],
)
def test_hosts_that_are_not(client: Client, host: str) -> None:
    """Another site's name that was pointed to loopback (DNS rebinding) is refused."""
    assert client.get("/", host=host).status in (400, 421)


def test_host_names() -> None:
    """Elsewhere than on loopback any name will do: the cookie belongs to one of them."""
    assert allowed_hosts("192.0.2.1") is None
    assert "127.0.0.2" in (allowed_hosts("127.0.0.2") or ())
    assert host_name(" [FE80::1]:80") == "fe80::1"
    assert host_name("Node:443") == "node"


def test_forms_of_other_sites(node: PageHouse, client: Client) -> None:
    """No stamp, a wrong one, another browser's, another origin, or GET: nothing happens."""
    held = node.photograph(1)
    node.hold(held, "r", "h")
    path = f"/held/{held}/retry"
    client.get("/held")
    stranger = Client(client.port)
    stranger.get("/held")
    own = client.stamp
    assert own != stranger.stamp
    for stamp in ("", "0" * 64, stranger.stamp, "\u00e9"):
        assert client.press(path, {"stamp": stamp}).status == 403
    client.stamp = own
    assert client.ask("POST", path, "").status == 403
    bare = Client(client.port)
    assert bare.press(path, {"stamp": own}).status == 403
    assert client.press(path, {"stamp": own}, origin="http://evil.example").status == 403
    assert client.press(path, {"stamp": own}, origin="null").status == 403
    assert client.press(path, {"stamp": own}, sec_fetch_site="cross-site").status == 403
    assert client.get(path).status == 405
    assert queue.find(node.ledger, held).state == State.HELD
    good = f"http://127.0.0.1:{client.port}"
    assert (
        client.press(path, {"stamp": own}, origin=good, sec_fetch_site="same-origin").status == 303
    )


def test_forms_that_are_none(client: Client) -> None:
    """Too long, of unknown length, with too many fields, or no text."""
    client.get("/held")
    assert client.press("/held/retry", {"x": "y" * 20_000}).status == 413
    assert client.ask("POST", "/held/retry", "&".join(["a=b"] * 300)).status == 400
    assert client.ask("POST", "/held/retry", "stamp=%ff").status == 400


def test_nothing_is_shown_before_the_login(node: PageHouse, outside: Client) -> None:
    """Pages lead to the login; parts are refused; only the two probes answer anybody."""
    held = node.photograph(1)
    node.hold(held, "r", "h")
    for path in (*PAGES, f"/studies/{ROOT}.1.1", f"/held/{held}/release"):
        answer = outside.get(path)
        assert (answer.status, answer.headers["location"]) == (303, "/login")
        assert answer.body == b""
    for path in ("/events", f"/thumbnails/{held}/original", f"/thumbnails/{held}/locked"):
        assert outside.get(path).status == 401
    page = outside.get("/login")
    assert page.status == 200
    assert "<nav" not in page.text
    assert "<nav" not in outside.get("/none").text
    assert outside.press(f"/held/{held}/retry").headers["location"] == "/login"
    assert queue.find(node.ledger, held).state == State.HELD
    assert outside.get("/health").status == outside.get("/ready").status == 200


def test_login_and_logout(node: PageHouse, outside: Client) -> None:
    """The token is new, the cookie is for this site's pages alone, and logging out ends it."""
    outside.get("/login")
    before = outside.cookies["medlocker-8055-form"]
    answer = outside.press("/login", {"user": "admin", "password": SECRET})
    assert answer.status == 303
    cookie = answer.headers.get_all("set-cookie", [""])[0].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie
    assert outside.cookies["medlocker-8055-session"]
    assert outside.cookies["medlocker-8055-form"] != before
    assert node.told.count("110114", 'UserID="admin"') == 1
    assert outside.get("/").status == 200
    assert ">admin<" in outside.get("/held").text
    held = node.photograph(1)
    node.hold(held, "r", "h")
    assert outside.press(f"/held/{held}/discard").status == 303
    assert queue.find(node.ledger, held).reason == "discarded by admin: r"
    assert node.told.count("110105", f"{ROOT}.1.1") == 1
    outside.get("/held")
    copied = dict(outside.cookies)
    assert outside.press("/logout").status == 303
    outside.cookies = copied
    assert outside.get("/").status == 303


def test_a_link_from_elsewhere_ends_no_session(outside: Client) -> None:
    """It carries no session (SameSite=Strict), and what it gets replaces none."""
    enter(outside)
    outside.get("/held")
    form = outside.cookies["medlocker-8055-form"]
    answer = outside.get("/login", cookie=f"medlocker-8055-form={form}")
    assert answer.headers["set-cookie"] is None
    assert outside.get("/held").status == 200


def test_wrong_passwords(outside: Client, node: PageHouse) -> None:
    """Five wrong tries a minute, then even the right one waits; other addresses do not."""
    for password in ("", SECRET.upper(), "not this", SECRET + " ", "\udcff"):
        assert enter(outside, password.encode(errors="replace").decode()) == 403
    assert enter(outside) == 429
    assert outside.press("/login", {"user": "admin"}).headers["retry-after"] == "61"
    assert node.told.count("110114", 'EventOutcomeIndicator="8"') == 5
    neighbour = Client(outside.port, source="127.0.0.2")
    assert enter(neighbour, user="Admin") == 403
    assert enter(neighbour) == 303
    node.clocks.seconds += 59
    assert enter(outside) == 429
    node.clocks.seconds += 1
    assert enter(outside) == 303


def test_sessions_end(outside: Client, node: PageHouse) -> None:
    """After half an hour without a page, though its events were fetched; and after twelve hours."""
    enter(outside)
    for _ in range(4):
        node.clocks.seconds += login.IDLE_S / 3
        assert outside.get("/held").status == 200
    for _ in range(3):
        node.clocks.seconds += login.IDLE_S / 3
        assert outside.get(f"/thumbnails/{'a' * 64}/original").status == 200
    node.clocks.seconds += 1
    assert outside.get("/held").status == 303
    enter(outside)
    for _ in range(int(login.LONGEST_S / login.IDLE_S) + 1):
        node.clocks.seconds += login.IDLE_S
        last = outside.get("/held").status
    assert last == 303


def test_the_stream_ends_with_the_session(outside: Client, node: PageHouse) -> None:
    """Who is logged out sees nothing more."""
    enter(outside)
    with outside.watching() as stream:
        assert stream.readline().startswith(b"data: ")
        node.clocks.seconds += login.LONGEST_S + 1
        assert stream.read() == b"\n"


def test_metrics_take_the_password(outside: Client) -> None:
    """By HTTP's basic authentication, as Prometheus sends it; wrong ones count as tries."""

    def ask(text: str) -> int:
        sent = "Basic " + base64.b64encode(text.encode()).decode()
        return outside.get("/metrics", authorization=sent).status

    bare = outside.get("/metrics")
    assert (bare.status, bare.headers["www-authenticate"][:5]) == (401, "Basic")
    assert outside.get("/metrics", authorization="Basic %%%").status == 401
    assert outside.get("/metrics", authorization=f"Bearer {SECRET}").status == 401
    assert ask(f"admin:{SECRET}") == 200
    assert [ask("admin:x") for _ in range(5)] == [401] * 5
    assert ask(f"admin:{SECRET}") == 401
    assert enter(outside) == 429


def test_no_login_where_there_is_none(node: PageHouse, client: Client) -> None:
    """On loopback without a password nobody logs in."""
    node.hold(node.photograph(1), "r", "h")
    assert client.get("/login").status == 303
    client.get("/held")
    assert client.press("/login", {"user": "", "password": ""}).status == 404


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 2000, b"\xff\n"])
def test_passwords_that_are_none(tmp_path: Path, content: bytes) -> None:
    """Empty, too long, no text: the page does not start, and says the file."""
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="password"):
        login.read_credentials("admin", path)
    with pytest.raises(UsageError, match="cannot be read"):
        login.read_credentials("admin", tmp_path / "none")


def test_tries_and_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many addresses or logins take no more memory; one network of IPv6 is one address."""
    monkeypatch.setattr(login, "_MOST_ADDRESSES", 3)
    monkeypatch.setattr(login, "_MOST_SESSIONS", 3)
    tries, sessions = login.Tries(lambda: 0.0), login.Sessions(lambda: 0.0)
    for number in range(10):
        tries.wrong(f"10.0.0.{number}")
    assert len(tries._wrong) == 3
    for number in range(5):
        tries.wrong(f"2001:db8::{number}")
    assert tries.wait("2001:db8::ffff") == 61
    assert tries.wait("2001:db8:0:1::") == 0
    tokens = [sessions.begin("admin") for _ in range(5)]
    assert [sessions.look(one) for one in tokens] == [None, None, "admin", "admin", "admin"]


def test_served_by_tls(node: PageHouse, tls_files: tuple[Path, Path]) -> None:
    """With a certificate the cookie is Secure and bound to the host; TLS 1.1 is refused."""
    certificate, key = tls_files
    app = node.app(certificate=certificate, key=key)
    context = ssl.create_default_context(cafile=certificate)
    with served(app) as port:
        with urllib.request.urlopen(f"https://localhost:{port}/", context=context) as answer:
            cookie = answer.headers["set-cookie"]
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        with pytest.deprecated_call():
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(OSError, match=r"(?i)protocol|version|ssl"):
            urllib.request.urlopen(f"https://localhost:{port}/", context=context)
    assert cookie.startswith("__Host-medlocker-8055-form=")
    assert "; Secure" in cookie
    key.write_text("no key")
    with pytest.raises(UsageError, match="no certificate"):
        make_server(app, app.state.config.page)


def test_the_server_ends_while_somebody_watches(node: PageHouse) -> None:
    """A stream of events, which has no end, does not keep the node from stopping."""
    with ExitStack() as watchers:
        with served(node.app()) as port:
            stream = watchers.enter_context(Client(port).watching())
            assert stream.readline().startswith(b"data: ")
            began = time.monotonic()
        assert time.monotonic() - began < 8
