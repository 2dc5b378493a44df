"""The pages that are looked at: nothing here changes anything."""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from medlocker_dicom.dicom.syntaxes import SOURCE_CLASSES
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.audit import Moved
from medlocker_dicom.node.ledger import State
from medlocker_dicom.node.page import kept, live, views
from medlocker_dicom.node.page.site import NO_STUDY, render
from medlocker_dicom.node.page.views import PAGE, Cursor

if TYPE_CHECKING:
    from sqlalchemy import Row

    from medlocker_dicom.node.page.site import Asked, Site
    from medlocker_dicom.node.page.thumbnails import Small
    from medlocker_dicom.node.page.views import Instance

_UID = re.compile(r"[0-9.]{1,64}")
_CURSOR = re.compile(r"([0-9]{1,15})-([0-9.]{0,64})")


async def overview(asked: Asked) -> Response:
    """Show the queue and its throughput now."""
    now = await run_in_threadpool(views.overview, asked.site.ledger, asked.site.spool)
    return await render(asked, "overview.html", live=live.values(now))


async def studies(asked: Asked) -> Response:
    """List the studies, the one with the newest arrival first."""
    before = None
    if (text := asked.request.query_params.get("before")) is not None:
        if not (found := _CURSOR.fullmatch(text)):
            raise HTTPException(404)
        before = Cursor(int(found[1]), found[2])
    page, end = await run_in_threadpool(views.studies, asked.site.ledger, before)
    quiet = int(asked.site.config().page.quiet_minutes * 60_000)
    return await render(
        asked, "studies.html", studies=page, end=end, quiet=quiet, first=before is None
    )


async def study(asked: Asked) -> Response:
    """Show a study's objects and their deliveries."""
    uid = asked.request.path_params["uid"]
    if uid != NO_STUDY and not _UID.fullmatch(uid):
        raise HTTPException(404)
    uid = "" if uid == NO_STUDY else uid
    number = asked.page
    whole = await run_in_threadpool(views.study, asked.site.ledger, uid)
    if whole is None:
        raise HTTPException(404)
    page = await run_in_threadpool(views.instances, asked.site.ledger, uid, number)
    if asked.site.config().page.thumbnails:
        classes = Counter(one.row.sop_class_uid for one in page)
        asked.site.auditor.accessed(asked.who.name, asked.address, Moved(uid, classes))
    return await render(
        asked,
        "study.html",
        study=whole,
        quiet=int(asked.site.config().page.quiet_minutes * 60_000),
        instances=[(one, _pictures(asked.site, one)) for one in page],
        thumbnails=asked.site.config().page.thumbnails,
        said=asked.said,
        page=number,
        pages=-(-whole.instances // PAGE),
    )


def _pictures(site: Site, one: Instance) -> tuple[str, str]:
    """Give the words that stand for an object's two pictures; empty where there is a picture."""
    row = one.row
    if row.state == State.GONE:
        return "deleted here", "deleted here"
    original = site.thumbnails.word(site.spool.object(row.id))
    if row.sop_class_uid not in SOURCE_CLASSES:
        original = "no photograph"
    if not row.result:
        return original, "not locked"
    return original, site.thumbnails.word(site.spool.result(row.id, row.result))


async def held(asked: Asked) -> Response:
    """List what somebody has to look at."""
    number = asked.page
    rows = await run_in_threadpool(views.held, asked.site.ledger, number)
    return await render(
        asked,
        "held.html",
        rows=rows,
        page=number,
        page_size=PAGE,
        at_once=views.AT_ONCE,
        said=asked.said,
    )


async def releasing(asked: Asked) -> Response:
    """Ask in words whether a held object may leave unlocked, and to whom."""
    row = await _held_row(asked)
    return await render(asked, "release.html", row=row, routes=asked.site.config().routes, wrong="")


async def discarding(asked: Asked) -> Response:
    """Ask in words whether a held object goes nowhere."""
    return await render(asked, "discard.html", row=await _held_row(asked))


async def _held_row(asked: Asked) -> Row[Any]:
    row = await run_in_threadpool(queue.find, asked.site.ledger, asked.object_id)
    if row.state != State.HELD:
        raise HTTPException(404)
    return row


async def destinations(asked: Asked) -> Response:
    """Show how deliveries to each destination go."""
    named = asked.site.config().destinations
    found = await run_in_threadpool(views.targets, asked.site.ledger, list(named))
    return await render(
        asked,
        "destinations.html",
        targets=found,
        named=named,
        at_once=views.AT_ONCE,
        said=asked.said,
    )


async def recipients(asked: Asked) -> Response:
    """Show who can unlock."""
    found = await run_in_threadpool(kept.recipients, asked.site.vault)
    return await render(asked, "recipients.html", recipients=found)


async def audit(asked: Asked) -> Response:
    """Show the newest entries of the vault's audit chain."""
    entries, head = await run_in_threadpool(kept.newest, asked.site.vault)
    return await render(asked, "audit.html", entries=entries, head=head)


async def original(asked: Asked) -> Response:
    """Show an object as it came in, small."""
    _check_shown(asked)
    path = asked.site.spool.object(asked.object_id)
    return _picture(await asked.site.thumbnails.of(path, locked=False))


async def locked(asked: Asked) -> Response:
    """Show what locking made of an object, small."""
    _check_shown(asked)
    row = await run_in_threadpool(queue.find, asked.site.ledger, asked.object_id)
    if not row.result:
        raise HTTPException(404)
    path = asked.site.spool.result(row.id, row.result)
    return _picture(await asked.site.thumbnails.of(path, locked=True))


def _check_shown(asked: Asked) -> None:
    """Hide pictures where node.yaml does."""
    if not asked.site.config().page.thumbnails:
        raise HTTPException(404)


def _picture(small: Small) -> Response:
    """Answer with a picture, or with its word as a picture: an image's place takes no text."""
    if small.jpeg:
        return Response(small.jpeg, media_type="image/jpeg")
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="240" height="180" role="img">'
        '<rect width="240" height="180" fill="#888" opacity=".2"/>'
        '<text x="120" y="95" text-anchor="middle" font-family="sans-serif" font-size="15" '
        f'fill="#888">{escape(small.word)}</text></svg>'
    )
    return Response(drawn, media_type="image/svg+xml")
