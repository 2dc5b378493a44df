"""What the page's buttons lead to: each is a form that is sent, and ends on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from medlocker_dicom.errors import UsageError
from medlocker_dicom.node import audit
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.page import views
from medlocker_dicom.node.page.site import NO_STUDY, fill, render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from starlette.responses import Response

    from medlocker_dicom.node.page.site import Asked

#: What somebody has to tick before an object leaves unlocked.
AGREED: Final = "yes"


async def retry(asked: Asked) -> Response:
    """Let a held object go its way again."""
    who = asked.who
    await run_in_threadpool(asked.site.actions.retry, asked.object_id, who)
    return _then("/held", "retried")


async def retry_all(asked: Asked) -> Response:
    """Let everything that is held go its way again, as far as one press reaches."""
    who = asked.who
    ids = await run_in_threadpool(views.held_ids, asked.site.ledger)
    await run_in_threadpool(_each, ids, lambda one: asked.site.actions.retry(one, who))
    return _then("/held", "all-retried")


async def discard(asked: Asked) -> Response:
    """Let a held object go nowhere."""
    who = asked.who
    await run_in_threadpool(asked.site.actions.discard, asked.object_id, who)
    return _then("/held", "discarded")


async def release(asked: Asked) -> Response:
    """Let a held object leave unlocked, to destinations that were read and agreed to."""
    object_id = asked.object_id
    routes = {route.name: route for route in asked.site.config().routes}
    route = routes.get(asked.form.get("route", ""))
    wrong = ""
    if route is None:
        wrong = "choose a route: it says where the object goes"
    elif asked.form.get(f"to {route.name}") != ", ".join(route.destinations):
        wrong = f"the destinations of {route.name} have changed since: read them again"
    elif asked.form.get("agreed") != AGREED:
        wrong = "tick that the object may leave unlocked"
    if route is None or wrong:
        row = await run_in_threadpool(queue.find, asked.site.ledger, object_id)
        shown = {"row": row, "routes": routes.values(), "wrong": wrong}
        return await render(asked, "release.html", status=422, **shown)
    who = asked.who
    release = asked.site.actions.release
    await run_in_threadpool(release, object_id, route.name, route.destinations, who)
    return _then("/held", "released")


async def retry_delivery(asked: Asked) -> Response:
    """Try one delivery again now."""
    object_id, destination = asked.object_id, asked.request.path_params["destination"]
    who = asked.who
    row = await run_in_threadpool(queue.find, asked.site.ledger, object_id)
    await run_in_threadpool(asked.site.actions.retry_delivery, object_id, destination, who)
    study = quote(row.study_instance_uid or NO_STUDY)
    return _then(f"/studies/{study}", "sent-again")


async def retry_destination(asked: Asked) -> Response:
    """Try again what a destination refused, as far as one press reaches."""
    name, who = asked.request.path_params["destination"], asked.who
    ids = await run_in_threadpool(views.parked_ids, asked.site.ledger, name)
    retry = asked.site.actions.retry_delivery
    await run_in_threadpool(_each, ids, lambda one: retry(one, name, who))
    return _then("/destinations", "all-sent-again")


def _each(ids: Iterable[str], act: Callable[[str], None]) -> None:
    """Act on each; somebody else may have been quicker with some."""
    for one in ids:
        try:
            act(one)
        except UsageError:
            continue


async def log_in(asked: Asked) -> Response:
    """Begin a session, under a new token."""
    if asked.site.credentials is None:
        raise HTTPException(404)
    if seconds := asked.site.tries.wait(asked.address):
        wrong = f"too many wrong tries: wait {seconds} seconds"
        response: Response = fill(asked, "login.html", status=429, wrong=wrong)
        response.headers["Retry-After"] = str(seconds)
        return response
    site, user = asked.site, asked.form.get("user", "")
    if not asked.site.credentials.match(user, asked.form.get("password", "")):
        site.tries.wrong(asked.address)
        site.auditor.logged_in(user[:64] or "nobody", asked.address, audit.SERIOUS)
        wrong = "this user and password do not belong together"
        return fill(asked, "login.html", status=403, wrong=wrong)
    site.auditor.logged_in(user, asked.address)
    site.sessions.end(asked.visit.session)
    response = RedirectResponse("/", 303)
    site.set_session(response, site.sessions.begin(user))
    site.set_browser(response)
    return response


async def log_out(asked: Asked) -> Response:
    """End a session."""
    asked.site.sessions.end(asked.visit.session)
    response = RedirectResponse("/login", 303)
    asked.site.set_session(response, "")
    return response


def _then(path: str, said: str) -> Response:
    return RedirectResponse(f"{path}?{urlencode({'said': said})}", 303)
