"""What machines ask of the node: is it well, can it receive, how much is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medlocker_dicom.node import figures
from medlocker_dicom.node.metrics import QueueCollector, exposition

if TYPE_CHECKING:
    from pathlib import Path

    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.metrics import Meters
    from medlocker_dicom.node.spool import Spool


@dataclass(frozen=True)
class NodeProbes:
    """Asks ledger and spool.

    Attributes
    ----------
    ledger, spool
        The queue.
    meters, folder
        What this process counts in, and where all do.
    """

    ledger: Ledger
    spool: Spool
    meters: Meters
    folder: Path
    _queue: QueueCollector = field(init=False)

    def __post_init__(self) -> None:
        """Make what reads the queue once: it keeps what it read for some seconds."""
        object.__setattr__(self, "_queue", QueueCollector(self.ledger, self.spool))

    def health(self) -> list[str]:
        """Tell in words what somebody has to look at; nothing while all is well."""
        faults: list[str] = figures.health(self.ledger, self.spool)["faults"]
        return faults

    def ready(self) -> list[str]:
        """Tell in words why nothing can be received now; nothing while it can."""
        faults: list[str] = figures.ready(self.ledger, self.spool)["faults"]
        return faults

    def metrics(self) -> bytes:
        """Give the metrics in the text format of Prometheus."""
        return exposition(self._queue, self.meters, self.folder)
