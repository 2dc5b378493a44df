"""What every handler works with: the node's parts, and who asks."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from medlocker_dicom.node.ledger import Sending, State
from medlocker_dicom.node.page import views, words
from medlocker_dicom.node.page.actions import Person

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from medlocker_dicom.node.audit import Auditor
    from medlocker_dicom.node.config import NodeConfig
    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.page.actions import Actions, Probes
    from medlocker_dicom.node.page.login import Credentials, Sessions, Stamps, Tries
    from medlocker_dicom.node.page.thumbnails import Thumbnails
    from medlocker_dicom.node.spool import Spool
    from medlocker_dicom.vault.vault import Vault

_LONGEST_TOKEN: Final = 64
_ID = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
#: In an address, for the empty UID of objects without a study.
NO_STUDY: Final = "-"
#: What is said after a button was pressed, by its word in the address.
DONE: Final = {
    "retried": "The object goes its way again, by the routes as they are now.",
    "all-retried": "The objects go their way again, by the routes as they are now.",
    "discarded": "The object was discarded. It goes nowhere.",
    "released": "The object leaves unlocked, as you confirmed.",
    "sent-again": "The delivery is tried again now.",
    "all-sent-again": "The deliveries are tried again now.",
}


@dataclass(frozen=True)
class Visit:
    """Who asks.

    Attributes
    ----------
    browser
        Token of the browser, to which its forms belong; empty where it has none yet.
    session
        Token of the session; empty for none.
    user
        Who is logged in; empty for nobody.
    """

    browser: str = field(repr=False)
    session: str = field(repr=False)
    user: str


@dataclass(frozen=True)
class Site:
    """The node as the page sees it.

    Attributes
    ----------
    config
        Gives node.yaml as it is now.
    ledger, spool, vault, actions, probes, auditor
        Of the node; the vault is read only.
    credentials
        Whom the page lets in; None for everybody who reaches it.
    secure
        Whether it is served by TLS.
    """

    config: Callable[[], NodeConfig]
    ledger: Ledger
    spool: Spool
    vault: Vault
    actions: Actions
    probes: Probes
    auditor: Auditor
    credentials: Credentials | None
    secure: bool
    sessions: Sessions
    tries: Tries
    stamps: Stamps
    thumbnails: Thumbnails
    templates: Environment

    def visit(self, request: Request) -> Visit:
        """Tell who asks; the clock of their session starts anew."""
        session = self._token(request, "session")
        return Visit(self._token(request, "form"), session, self.sessions.use(session) or "")

    def visit_unused(self, request: Request) -> Visit:
        """Tell who asks, as if they had not: for what a page fetches by itself."""
        session = self._token(request, "session")
        return Visit(self._token(request, "form"), session, self.sessions.look(session) or "")

    def still(self, visit: Visit) -> bool:
        """Tell whether who asked may go on to look."""
        return self.credentials is None or self.sessions.look(visit.session) is not None

    def may(self, visit: Visit) -> bool:
        """Tell whether who asks may look."""
        return self.credentials is None or bool(visit.user)

    def set_session(self, response: Response, token: str) -> None:
        """Give a browser its session, which no other site's link or form carries along."""
        self._set_cookie(response, "session", token, "strict")

    def set_browser(self, response: Response) -> str:
        """Give a browser a token of its own, which a link from elsewhere does not replace."""
        token = secrets.token_urlsafe(32)
        self._set_cookie(response, "form", token, "lax")
        return token

    def _set_cookie(
        self, response: Response, kind: str, token: str, same_site: Literal["lax", "strict"]
    ) -> None:
        response.set_cookie(
            self._cookie(kind), token, httponly=True, samesite=same_site, secure=self.secure
        )

    def _cookie(self, kind: str) -> str:
        """Name a cookie: by the port, since browsers tell pages of one host apart by no more."""
        prefix = "__Host-" if self.secure else ""
        return f"{prefix}medlocker-{self.config().page.port}-{kind}"

    def _token(self, request: Request, kind: str) -> str:
        token = request.cookies.get(self._cookie(kind), "")
        return token if token.isascii() and len(token) <= _LONGEST_TOKEN else ""


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes
    ----------
    site
        Whom it reached.
    request
        As Starlette gives it.
    visit
        Who asks.
    form
        What was sent with it.
    """

    site: Site
    request: Request
    visit: Visit
    form: Mapping[str, str] = field(default_factory=dict, repr=False)  # may hold a password

    @property
    def object_id(self) -> str:
        """The object's id in the address; 404 for what is none."""
        text: str = self.request.path_params["object_id"]
        if not _ID.fullmatch(text):
            raise HTTPException(404)
        return text

    @property
    def page(self) -> int:
        """The page's number in the address, from 1; 404 for what is none."""
        text = self.request.query_params.get("page", "1")
        if not _NUMBER.fullmatch(text):
            raise HTTPException(404)
        return int(text)

    @property
    def said(self) -> str:
        """What the button that led here did, in words."""
        return DONE.get(self.request.query_params.get("said", ""), "")

    @property
    def address(self) -> str:
        """From where it comes."""
        return self.request.client.host if self.request.client else "nowhere"

    @property
    def who(self) -> Person:
        """Who does something, for the queue and the audit."""
        return Person(self.visit.user, self.address)


def make_templates() -> Environment:
    """Make what renders the pages: everything is escaped, nothing may be left out."""
    environment = Environment(
        loader=PackageLoader("medlocker_dicom.node.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        State=State,
        Sending=Sending,
        STATES=words.STATES,
        SENDINGS=words.SENDINGS,
        zone=words.zone,
        plural=words.plural,
    )
    environment.filters.update(
        moment=words.moment,
        number=words.number,
        size=words.size,
        said=words.said,
        short=words.short,
        ago=words.ago,
    )
    return environment


async def render(asked: Asked, name: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """Render a page that tells how many objects are held."""
    held = await run_in_threadpool(views.held_number, asked.site.ledger)
    return fill(asked, name, status=status, held_number=held, **context)


def fill(
    asked: Asked, name: str, *, status: int = 200, held_number: int = 0, **context: Any
) -> HTMLResponse:
    """Render a page without a look at the queue; a browser that has no token yet gets one."""
    site, visit = asked.site, asked.visit
    response = HTMLResponse(status_code=status)
    browser = visit.browser or site.set_browser(response)
    page = site.templates.get_template(name).render(
        here=name.removesuffix(".html"),
        user=visit.user,
        inside=site.may(visit),
        stamp=site.stamps.of(browser),
        held_number=held_number,
        **context,
    )
    response.body = page.encode()
    response.headers["content-length"] = str(len(response.body))
    return response


def is_ours(request: Request) -> bool:
    """Tell whether a form came from a page of ours, as far as the browser says."""
    origin = request.headers.get("origin")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")
