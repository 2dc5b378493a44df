"""Keeps an object back, for somebody to look at or for a while, and tells the log of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.outcome import LONGEST_DELAY_S, delay_s

if TYPE_CHECKING:
    from sqlalchemy import Row

    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.logs import Log

LOOK: Final = "look at the object and at the worker's log, then retry"


@dataclass(frozen=True)
class Setbacks:
    """What keeps objects of a queue back.

    Attributes
    ----------
    ledger
        The queue.
    log
        Is told which, and no reason: that may quote an object.
    """

    ledger: Ledger
    log: Log

    def hold(self, object_id: str, reason: str, hint: str = LOOK, route: str | None = None) -> None:
        """Hold an object, unless another worker has brought it further."""
        if queue.hold(self.ledger, object_id, reason, hint, route):
            self.log.warning("object held", object=object_id)

    def postpone(  # noqa: PLR0913  what a try came to
        self,
        row: Row[Any],
        error: Exception,
        reason: str,
        hint: str = LOOK,
        *,
        longest_s: float = LONGEST_DELAY_S,
        starts: int = 0,
    ) -> None:
        """Have an object tried again later, and later each time.

        Parameters
        ----------
        row
            Its row, as it was before this try.
        error
            Why; the log has its class.
        reason, hint
            Why, and what to do, for the page.
        longest_s
            Seconds until the next try, at most.
        starts
            Beginnings that came to no end.
        """
        wait = min(delay_s(row.tries), longest_s)
        queue.postpone(self.ledger, row.id, row.tries, reason, hint, wait, starts=starts)
        self.log.warning("object postponed", object=row.id, error=error, next_try_s=wait)
