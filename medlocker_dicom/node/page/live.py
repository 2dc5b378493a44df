"""What changes on the overview while it is open, by server-sent events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, StreamingResponse

from medlocker_dicom.errors import MedLockerError
from medlocker_dicom.node.ledger import Sending, State
from medlocker_dicom.node.page import views, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.responses import Response

    from medlocker_dicom.node.page.site import Asked, Site, Visit
    from medlocker_dicom.node.page.views import Overview

#: Seconds between two looks at the queue, however many pages are open.
PERIOD_S: Final = 2
#: Pages that are kept up to date at once.
MOST: Final = 32
LOST: Final = {"texts": {"state": "not up to date: the queue cannot be read"}, "shown": {}}


def values(now: Overview) -> dict[str, dict[str, Any]]:
    """Give what the overview shows: texts by their place, and which warnings are shown."""
    texts = {
        "state": "up to date",
        "free": f"{words.size(now.free)} free, {words.size(now.floor)} have to stay",
        "workers": f"{len(now.workers)} alive",
        "names": ", ".join(now.workers) or "none",
        "held": words.plural(now.states[State.HELD], "object is held", "objects are held"),
        "parked": words.plural(
            now.sendings[Sending.PARKED], "delivery was refused", "deliveries were refused"
        ),
    }
    for name in ("received", "locked", "delivered"):
        for span, count in getattr(now, name).items():
            texts[f"{name}-{span}"] = words.number(count)
    texts |= {f"object-{state}": words.number(now.states[state]) for state in State}
    texts |= {f"sending-{state}": words.number(now.sendings[state]) for state in Sending}
    shown = {
        "held": now.states[State.HELD] > 0,
        "parked": now.sendings[Sending.PARKED] > 0,
        "disk": now.free < now.floor,
        "idle": not now.workers,
    }
    return {"texts": texts, "shown": shown | {"calm": not any(shown.values())}}


class Pulse:
    """Looks at the queue every `PERIOD_S` seconds while somebody watches.

    Parameters
    ----------
    site
        Whose.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = anyio.Lock()
        self._line, self._until = "", 0.0
        self._watchers = 0

    async def events(self, asked: Asked) -> Response:
        """Answer with a stream that ends with the visitor's session."""
        if self._watchers >= MOST:
            return PlainTextResponse("too many pages are open\n", status_code=503)
        return StreamingResponse(self._stream(asked.visit), media_type="text/event-stream")

    async def _stream(self, visit: Visit) -> AsyncIterator[str]:
        self._watchers += 1
        try:
            while self._site.still(visit):
                yield f"data: {await self._look()}\n\n"
                await anyio.sleep(PERIOD_S)
        finally:
            self._watchers -= 1

    async def _look(self) -> str:
        async with self._lock:
            if anyio.current_time() >= self._until:
                self._line = json.dumps(await run_in_threadpool(self._values))
                self._until = anyio.current_time() + PERIOD_S / 2
            return self._line

    def _values(self) -> dict[str, dict[str, Any]]:
        try:
            return values(views.overview(self._site.ledger, self._site.spool))
        except (MedLockerError, OSError):
            return LOST
