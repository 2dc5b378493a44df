"""The page as an ASGI application: its addresses, and what holds for each of them."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from medlocker_dicom.errors import MedLockerError, UsageError
from medlocker_dicom.node import audit
from medlocker_dicom.node.page import forms, handlers
from medlocker_dicom.node.page.guard import Guard, allowed_hosts
from medlocker_dicom.node.page.live import Pulse
from medlocker_dicom.node.page.login import Sessions, Stamps, Tries, read_credentials
from medlocker_dicom.node.page.site import Asked, Site, Visit, fill, is_ours, make_templates
from medlocker_dicom.node.page.thumbnails import Thumbnails

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.requests import Request

    from medlocker_dicom.node.audit import Auditor
    from medlocker_dicom.node.config import NodeConfig
    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.page.actions import Actions, Probes
    from medlocker_dicom.node.spool import Spool
    from medlocker_dicom.vault.vault import Vault

    Handler = Callable[[Asked], Awaitable[Response]]
    Endpoint = Callable[[Request], Awaitable[Response]]

_MOST_FORM: Final = 16 << 10  # bytes
_MOST_FIELDS: Final = 200
_STATIC: Final = Path(__file__).with_name("static")


def make_app(  # noqa: PLR0913, PLR0917  the node's parts
    config: NodeConfig,
    ledger: Ledger,
    spool: Spool,
    vault: Vault,
    actions: Actions,
    probes: Probes,
    auditor: Auditor,
    clock: Callable[[], float] = monotonic,
) -> Starlette:
    """Make the page.

    Parameters
    ----------
    config
        node.yaml. A later one is put into ``app.state.config``: routes, destinations
        and what is shown follow it; address, login and certificate are those of the start.
    ledger, spool
        The queue.
    vault
        Only read.
    actions, probes
        What buttons do, and what machines ask.
    auditor
        Is told who logs in, or fails to, and who looks at photographs.
    clock
        Seconds that never go back, for sessions.

    Raises
    ------
    UsageError
        The password cannot be read.
    """
    page = config.page
    credentials = None
    if page.user is not None and page.password_file is not None:
        credentials = read_credentials(page.user, page.password_file)
    site = Site(
        config=lambda: app.state.config,
        ledger=ledger,
        spool=spool,
        vault=vault,
        actions=actions,
        probes=probes,
        auditor=auditor,
        credentials=credentials,
        secure=page.certificate is not None,
        sessions=Sessions(clock),
        tries=Tries(clock),
        stamps=Stamps(),
        thumbnails=Thumbnails(),
        templates=make_templates(),
    )
    app = Starlette(
        routes=_routes(site),
        middleware=[Middleware(Guard, hosts=allowed_hosts(page.address))],
        exception_handlers={
            HTTPException: _failed(site),
            MedLockerError: _failed(site),
        },
    )
    app.state.config = config
    return app


def _routes(site: Site) -> list[Route | Mount]:
    pages: list[tuple[str, Handler]] = [
        ("/", handlers.overview),
        ("/studies", handlers.studies),
        ("/studies/{uid}", handlers.study),
        ("/held", handlers.held),
        ("/held/{object_id}/release", handlers.releasing),
        ("/held/{object_id}/discard", handlers.discarding),
        ("/destinations", handlers.destinations),
        ("/recipients", handlers.recipients),
        ("/audit", handlers.audit),
    ]
    parts: list[tuple[str, Handler]] = [
        ("/events", Pulse(site).events),
        ("/thumbnails/{object_id}/original", handlers.original),
        ("/thumbnails/{object_id}/locked", handlers.locked),
    ]
    buttons: list[tuple[str, Handler]] = [
        ("/held/retry", forms.retry_all),
        ("/held/{object_id}/retry", forms.retry),
        ("/held/{object_id}/discard", forms.discard),
        ("/held/{object_id}/release", forms.release),
        ("/deliveries/{object_id}/{destination}/retry", forms.retry_delivery),
        ("/destinations/{destination}/retry", forms.retry_destination),
        ("/logout", forms.log_out),
    ]
    return [
        *(Route(path, _looked(site, handler), methods=["GET"]) for path, handler in pages),
        *(Route(path, _fetched(site, handler), methods=["GET"]) for path, handler in parts),
        *(Route(path, _pressed(site, handler), methods=["POST"]) for path, handler in buttons),
        Route("/login", _login_page(site), methods=["GET"]),
        Route("/login", _pressed(site, forms.log_in, inside=False), methods=["POST"]),
        Route("/health", _probe(site.probes.health), methods=["GET"]),
        Route("/ready", _probe(site.probes.ready), methods=["GET"]),
        Route("/metrics", _metrics(site), methods=["GET"]),
        Mount("/static", StaticFiles(directory=_STATIC)),
    ]


def _looked(site: Site, handler: Handler) -> Endpoint:
    """Make a page of a handler: who is not logged in is led to where they can."""

    async def answer(request: Request) -> Response:
        visit = site.visit(request)
        if not site.may(visit):
            return RedirectResponse("/login", 303)
        return await handler(Asked(site, request, visit))

    return answer


def _fetched(site: Site, handler: Handler) -> Endpoint:
    """Make a part of a page of a handler: to fetch it does not keep a session alive."""

    async def answer(request: Request) -> Response:
        visit = site.visit_unused(request)
        if not site.may(visit):
            return PlainTextResponse("log in first\n", status_code=401)
        return await handler(Asked(site, request, visit))

    return answer


def _pressed(site: Site, handler: Handler, *, inside: bool = True) -> Endpoint:
    """Make what a button leads to of a handler: only forms of our own pages reach it."""

    async def answer(request: Request) -> Response:
        visit = site.visit(request)
        if inside and not site.may(visit):
            return RedirectResponse("/login", 303)
        form = await _form_of(request)
        stamped = visit.browser and site.stamps.fits(form.get("stamp", ""), visit.browser)
        if not stamped or not is_ours(request):
            raise HTTPException(403, "this form is too old, or is not from this page: try again")
        return await handler(Asked(site, request, visit, form))

    return answer


async def _form_of(request: Request) -> Mapping[str, str]:
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > _MOST_FORM:
        raise HTTPException(413, "this form is too long")
    try:
        text = (await request.body()).decode("ascii")
        return dict(parse_qsl(text, max_num_fields=_MOST_FIELDS, errors="strict"))
    except ValueError as error:
        raise HTTPException(400, "this is no form") from error


def _login_page(site: Site) -> Endpoint:
    async def answer(request: Request) -> Response:
        visit = site.visit(request)
        if site.may(visit):
            return RedirectResponse("/", 303)
        return fill(Asked(site, request, visit), "login.html", wrong="")

    return answer


def _probe(ask: Callable[[], Sequence[str]]) -> Endpoint:
    """Make an answer for machines: 200, or 503 with what is wrong."""

    async def answer(request: Request) -> Response:  # noqa: ARG001  Starlette's signature
        wrong = await run_in_threadpool(ask)
        body = "".join(f"{line}\n" for line in wrong) or "ok\n"
        return PlainTextResponse(body, status_code=503 if wrong else 200)

    return answer


def _metrics(site: Site) -> Endpoint:
    """Make the metrics: where there is a login, for a session or HTTP's basic authentication."""

    async def answer(request: Request) -> Response:
        asked = Asked(site, request, site.visit_unused(request))
        if not site.may(asked.visit) and not _knows_password(asked):
            challenge = {"WWW-Authenticate": 'Basic realm="medlocker", charset="UTF-8"'}
            return PlainTextResponse("log in first\n", status_code=401, headers=challenge)
        body = await run_in_threadpool(site.probes.metrics)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    return answer


def _knows_password(asked: Asked) -> bool:
    """Tell whether a request carries the password, unless its address tried too often."""
    scheme, _, sent = asked.request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic" or asked.site.credentials is None:
        return False
    if asked.site.tries.wait(asked.address):
        return False
    try:
        user, _, password = base64.b64decode(sent, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    if asked.site.credentials.match(user, password):
        return True
    asked.site.tries.wrong(asked.address)
    asked.site.auditor.logged_in(user[:64], asked.address, audit.SERIOUS)
    return False


def _failed(site: Site) -> Callable[[Request, Exception], Response]:
    """Make the page that says what went wrong."""

    def answer(request: Request, error: Exception) -> Response:
        visit: Visit = site.visit(request)
        hint = ""
        if isinstance(error, HTTPException):
            status, words = error.status_code, _WORDS.get(error.status_code, error.detail)
        else:
            status = 409 if isinstance(error, UsageError) else 503
            words, hint = str(error), getattr(error, "hint", "")
        return fill(
            Asked(site, request, visit), "error.html", status=status, words=words, hint=hint
        )

    return answer


_WORDS: Final = {
    404: "nothing is here, or it is no longer what it was",
    405: "this address is not asked so",
}
