"""What the page's buttons do, and what its probes ask: given to the page, not made by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.audit import Auditor, Moved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medlocker_dicom.node.ledger import Ledger


@dataclass(frozen=True)
class Person:
    """Who presses a button.

    Attributes
    ----------
    user
        Who is logged in; empty where nobody has to be.
    place
        Address.
    """

    user: str
    place: str

    @property
    def name(self) -> str:
        """The user, or a word for them."""
        return self.user or "somebody"

    def __str__(self) -> str:
        """How the queue names them."""
        return self.user or f"somebody at {self.place}"


class Actions(Protocol):
    """What a person can do about an object; each raises `UsageError` where it cannot be done."""

    def retry(self, object_id: str, who: Person) -> None:
        """Let a held object go its way again from the beginning."""

    def discard(self, object_id: str, who: Person) -> None:
        """Let a held object go nowhere."""

    def release(self, object_id: str, route: str, destinations: Sequence[str], who: Person) -> None:
        """Let a held object leave as it came, to a route's destinations."""

    def retry_delivery(self, object_id: str, destination: str, who: Person) -> None:
        """Try a parked or waiting delivery now."""


class Probes(Protocol):
    """What machines ask."""

    def health(self) -> Sequence[str]:
        """Tell in words what is wrong with the node; nothing while it works."""

    def ready(self) -> Sequence[str]:
        """Tell in words why nothing can be received now; nothing while it can."""

    def metrics(self) -> bytes:
        """Give the metrics in the text format of Prometheus."""


@dataclass(frozen=True)
class LedgerActions:
    """Actions that change the queue, and tell the audit trail what left or was thrown away.

    Attributes
    ----------
    ledger
        The queue.
    auditor
        Tells the trail.
    """

    ledger: Ledger
    auditor: Auditor

    def retry(self, object_id: str, who: Person) -> None:  # noqa: ARG002  the queue does not keep it
        """Let a held object go its way again from the beginning."""
        queue.retry(self.ledger, object_id)

    def discard(self, object_id: str, who: Person) -> None:
        """Let a held object go nowhere."""
        queue.discard(self.ledger, object_id, str(who))
        self.auditor.discarded(who.name, who.place, self._moved(object_id))

    def release(self, object_id: str, route: str, destinations: Sequence[str], who: Person) -> None:
        """Let a held object leave as it came, to a route's destinations."""
        queue.release(self.ledger, object_id, route, destinations, str(who))
        self.auditor.released(who.name, who.place, self._moved(object_id))

    def retry_delivery(self, object_id: str, destination: str, who: Person) -> None:  # noqa: ARG002
        """Try a parked or waiting delivery now."""
        queue.retry_delivery(self.ledger, object_id, destination)

    def _moved(self, object_id: str) -> Moved:
        row = queue.find(self.ledger, object_id)
        return Moved(row.study_instance_uid, {row.sop_class_uid: 1})
