"""The page in a real browser, headless Chromium: what is seen, pressed and kept up to date."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from page_house import PAGES, ROOT, PageHouse, page_house, served
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.ledger import State
from medlocker_dicom.node.page import views

CSS = Path(__file__).parents[2] / "medlocker_dicom/node/page/static/page.css"
LONG = int("9" * 33)
"""A study of the longest UID, 64 characters with `ROOT`."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium", path="/usr/bin:/usr/local/bin")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(autouse=True)
def _installed(peer: Callable[[str], object]) -> None:
    peer("chromium")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PageHouse]:
    """A node with a held photograph, one on its way, one refused, one that is no photograph."""
    with page_house(tmp_path) as made:
        held, sent, refused = (made.photograph(number, LONG) for number in range(3))
        made.hold(held, "no position that the policy allows", "release it", "photographs")
        made.lock(sent)
        made.lock(refused)
        queue.again(made.ledger, sent, "archive", 0, "A700: out of resources", 60)
        queue.park(made.ledger, refused, "research", "409: a data set that does not match " * 4)
        made.hold(made.enter(3, LONG, b"no DICOM"), "is not DICOM", "look at the sender")
        made.hold(made.enter(4, 0), "has no study", "look at the sender")
        yield made


@pytest.fixture
def held(node: PageHouse) -> str:
    return next(str(one.id) for one in views.held(node.ledger, 1) if one.route == "photographs")


class Watched:
    """A tab that remembers what its console said."""

    def __init__(self, tab: Page, port: int) -> None:
        self.tab, self.port, self.faults = tab, port, list[str]()
        tab.on("console", self._note)
        tab.on("pageerror", lambda error: self.faults.append(str(error)))
        tab.on("requestfailed", self._note_failed)

    def _note_failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by us, who left the page
            self.faults.append(f"{request.url}: {request.failure}")

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def open(self, path: str) -> None:
        self.tab.goto(f"http://127.0.0.1:{self.port}{path}")


@pytest.fixture
def tab(node: PageHouse, browser: Browser) -> Iterator[Watched]:
    with served(node.app()) as port:
        made = browser.new_page(viewport={"width": 1280, "height": 720})
        made.set_default_timeout(10_000)
        yield Watched(made, port)
        made.close()


@pytest.mark.parametrize("width", [1280, 800])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page(tab: Watched, held: str, width: int, scheme: str) -> None:
    """No error, nothing that the policy refuses, no overflow; one heading; pictures that load."""
    tab.tab.set_viewport_size({"width": width, "height": 720})
    tab.tab.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    study = f"/studies/{ROOT}.1.{LONG}"
    for path in (*PAGES, study, f"/held/{held}/release", f"/held/{held}/discard", "/studies/-"):
        tab.open(path)
        for picture in tab.tab.query_selector_all("img"):
            picture.scroll_into_view_if_needed()
        tab.tab.evaluate("Promise.all([...document.images].map(one => one.decode()))")
        assert tab.tab.evaluate("[...document.images].every(one => one.naturalWidth > 0)")
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert tab.tab.evaluate(wide) <= 0, path
        cut = (
            "[...document.querySelectorAll('.wide')].some(one => one.scrollWidth > one.clientWidth)"
        )
        assert not tab.tab.evaluate(cut), path
        assert tab.tab.locator("h1").count() == 1
        unnamed = (
            "[...document.querySelectorAll('input:not([type=hidden])')]"
            ".filter(one => one.labels.length === 0).length"
        )
        assert tab.tab.evaluate(unnamed) == 0
        dark = tab.tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark == "rgb(20, 23, 27)") is (scheme == "dark")
        assert tab.faults == [], path


def test_retry_is_pressed(node: PageHouse, tab: Watched, held: str) -> None:
    """The object is no longer held, and goes its way again."""
    tab.open("/held")
    uid = queue.find(node.ledger, held).sop_instance_uid
    tab.tab.get_by_role("button", name=f"Retry: {uid}").click()
    expect(tab.tab.get_by_role("status")).to_contain_text("goes its way again")
    expect(tab.tab.get_by_text(uid, exact=True)).to_have_count(0)
    expect(tab.tab.get_by_role("link", name="Held (2)")).to_be_visible()
    assert queue.find(node.ledger, held).state == State.RECEIVED
    assert tab.faults == []


def test_release_needs_its_tick(node: PageHouse, tab: Watched, held: str) -> None:
    """The browser itself asks for it; the destinations are read before."""
    tab.open(f"/held/{held}/release")
    expect(tab.tab.get_by_label("photographs")).to_be_checked()
    expect(tab.tab.get_by_text("archive, research")).to_be_visible()
    button = tab.tab.get_by_role("button", name="Forward unlocked")
    button.click()
    assert queue.find(node.ledger, held).state == State.HELD
    tab.tab.get_by_label("I want this object to leave unlocked").check()
    button.click()
    expect(tab.tab.get_by_role("status")).to_contain_text("leaves unlocked")
    assert queue.find(node.ledger, held).state == State.PASSED
    assert tab.faults == []


def test_the_overview_is_live(node: PageHouse, tab: Watched) -> None:
    """What arrives is seen without loading the page again, and what needs somebody too."""
    for one in views.held(node.ledger, 1):
        queue.retry(node.ledger, one.id)
    tab.open("/")
    received = tab.tab.locator('[data-text="received-minute"]')
    expect(received).to_have_text("5")
    expect(tab.tab.get_by_text("objects are held")).to_be_hidden()
    node.hold(node.photograph(9), "r", "h")
    began = time.monotonic()
    expect(received).to_have_text("6", timeout=10_000)
    assert time.monotonic() - began < 8
    expect(tab.tab.get_by_text("1 object is held")).to_be_visible()
    assert tab.faults == []


def test_the_overview_says_when_it_is_not(node: PageHouse, browser: Browser) -> None:
    """A node that has stopped is not taken for one that has nothing to do."""
    tab = browser.new_page()
    with served(node.app()) as port:
        tab.goto(f"http://127.0.0.1:{port}/")
        expect(tab.get_by_text("up to date", exact=True)).to_be_visible()
    expect(tab.get_by_text("the node does not answer")).to_be_visible()
    tab.close()


def test_without_javascript(node: PageHouse, browser: Browser, held: str) -> None:
    """Everything is shown, and every button works."""
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.set_default_timeout(10_000)
    with served(node.app()) as port:
        tab.goto(f"http://127.0.0.1:{port}/")
        expect(tab.get_by_text("3 objects are held")).to_be_visible()
        tab.get_by_role("link", name="see why").click()
        uid = queue.find(node.ledger, held).sop_instance_uid
        tab.get_by_role("link", name=f"Discard: {uid}").click()
        tab.get_by_role("button", name="Discard it").click()
        expect(tab.get_by_role("status")).to_contain_text("discarded")
        tab.get_by_role("link", name="Destinations").click()
        tab.get_by_role("button", name="Retry all 1: research").click()
        expect(tab.get_by_role("status")).to_contain_text("tried again now")
    context.close()
    assert queue.find(node.ledger, held).state == State.DISCARDED


def test_login_by_keyboard(node: PageHouse, browser: Browser) -> None:
    """User, password, Enter; then the first stop leads past the navigation."""
    path = node.root / "password"
    path.write_text("correct horse")
    tab = browser.new_page()
    tab.set_default_timeout(10_000)
    with served(node.app(user="admin", password_file=path)) as port:
        tab.goto(f"http://127.0.0.1:{port}/held")
        expect(tab.get_by_label("User")).to_be_focused()
        tab.keyboard.type("admin")
        tab.keyboard.press("Tab")
        tab.keyboard.type("correct horse")
        tab.keyboard.press("Enter")
        expect(tab.get_by_role("heading", name="Overview")).to_be_visible()
        tab.keyboard.press("Tab")
        expect(tab.get_by_role("link", name="Skip to the content")).to_be_focused()
        tab.get_by_role("button", name="Log out").click()
        expect(tab.get_by_role("heading", name="Log in")).to_be_visible()
    tab.close()


def test_contrast() -> None:
    """Every colour of text is read on every ground, light or dark: 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    schemes = re.findall(r":root \{(.*?)\}", CSS.read_text(), re.DOTALL)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): #(\w+);", scheme))
        for text in ("text", "muted", "link", "good", "bad"):
            for ground in ("page", "soft"):
                assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        assert contrast(colours["bad"], colours["button"]) >= 4.5


def contrast(one: str, other: str) -> float:
    """The ratio of two colours' luminances (WCAG 2.2)."""
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of a colour in hexadecimal digits."""
    digits = colour if len(colour) == 6 else "".join(2 * one for one in colour)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
