"""Prometheus metrics: what can be read from the queue is read when it is asked for.

The rest is counted by the processes that see it, in files of a shared folder
(prometheus_client's multi-process mode), so that one page tells of all of them.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, values
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from medlocker_dicom.errors import MedLockerError
from medlocker_dicom.node.audit import spool_of
from medlocker_dicom.node.figures import Figures, figures, free_bytes
from medlocker_dicom.node.log_fields import error_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from prometheus_client import Metric

    from medlocker_dicom.node.ledger import Entered, Ledger
    from medlocker_dicom.node.spool import Spool

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
FRESH_S: Final = 5.0
"""Seconds for which the queue is not asked again."""
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_LOCKING: Final = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_SENDING: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120)


@dataclass(frozen=True)
class Meters:
    """What a process counts.

    Attributes
    ----------
    registry
        Of this process alone; read it by `exposition`.
    """

    registry: CollectorRegistry
    _stores: Counter
    _bytes: Counter
    _refusals: Counter
    _locking: Histogram
    _sending: Histogram

    def stored(self, outcome: Entered, size: int) -> None:
        """Count an object of `size` bytes that was answered Success."""
        self._stores.labels(outcome.value).inc()
        self._bytes.inc(size)

    def refused(self, reason: Enum | BaseException | type[BaseException]) -> None:
        """Count an object or association that was refused; the reason is of a closed set."""
        self._refusals.labels(_reason(reason)).inc()

    def locked(self, seconds: float) -> None:
        """Count a lock, and how long it took."""
        self._locking.observe(seconds)

    def delivered(self, destination: str, outcome: Enum, seconds: float) -> None:
        """Count a try at a delivery to a destination of node.yaml, and how long it took."""
        self._sending.labels(destination, str(outcome.value)).observe(seconds)


def make_meters(folder: Path | None = None) -> Meters:
    """Make what a process counts in; once in a process.

    Parameters
    ----------
    folder
        Shared by the processes of one machine; None for a process that is alone.
    """
    if folder is not None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ[_FOLDER] = str(folder)
        values.ValueClass = values.get_value_class()  # type: ignore[no-untyped-call]  # theirs
    registry = CollectorRegistry()
    return Meters(
        registry,
        Counter(
            "medlocker_stores",
            "C-STOREs answered Success: new, again, or in conflict with another object",
            ["outcome"],
            registry=registry,
        ),
        Counter("medlocker_store_bytes", "Bytes of these", registry=registry),
        Counter(
            "medlocker_refusals", "Objects and associations refused", ["reason"], registry=registry
        ),
        Histogram(
            "medlocker_lock_seconds", "Seconds a lock took", buckets=_LOCKING, registry=registry
        ),
        Histogram(
            "medlocker_delivery_seconds",
            "Seconds a try at a delivery took",
            ["destination", "outcome"],
            buckets=_SENDING,
            registry=registry,
        ),
    )


def clear(folder: Path) -> None:
    """Forget what processes counted before; when the node starts, before any of them."""
    if folder.is_dir():
        for path in folder.glob("*.db"):
            path.unlink(missing_ok=True)


class QueueCollector(Collector):
    """Reads the queue, and the disk, when it is asked.

    Parameters
    ----------
    ledger, spool
        Of the node.
    clock
        Gives seconds.
    """

    def __init__(
        self, ledger: Ledger, spool: Spool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger, self._spool, self._clock = ledger, spool, clock
        self._read: tuple[float, Figures | None] | None = None

    def collect(self) -> Iterator[Metric]:
        """Give the metrics; those of the queue only where its database answers."""
        known = self._figures()
        yield _gauge(
            "medlocker_database_up", "Whether the queue's database answers", known is not None
        )
        free = free_bytes(self._spool)
        if free is not None:
            yield _gauge("medlocker_spool_free_bytes", "Bytes free on the spool's disk", free)
        yield _gauge(
            "medlocker_spool_floor_bytes", "Below this nothing is received", self._spool.floor
        )
        yield _gauge(
            "medlocker_audit_waiting_bytes",
            "Bytes of audit messages that wait for their server",
            _audit_bytes(self._spool),
        )
        if known is not None:
            yield from _of_queue(known)

    def _figures(self) -> Figures | None:
        now = self._clock()
        if self._read is None or now - self._read[0] > FRESH_S:
            try:
                self._read = (now, figures(self._ledger))
            except MedLockerError:
                self._read = (now, None)
        return self._read[1]


def exposition(queue: QueueCollector, meters: Meters, folder: Path | None = None) -> bytes:
    """Write all metrics in Prometheus's text format (`CONTENT_TYPE`).

    Parameters
    ----------
    queue
        Reads the queue.
    meters
        Of this process.
    folder
        That this process and others count in; None where it is alone.
    """
    registry = CollectorRegistry()
    registry.register(queue)
    if folder is None:
        return generate_latest(registry) + generate_latest(meters.registry)
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]  # theirs
    return generate_latest(registry)


def _of_queue(known: Figures) -> Iterator[Metric]:
    yield CounterMetricFamily("medlocker_received", "Objects taken in, ever", value=known.received)
    yield CounterMetricFamily(
        "medlocker_received_bytes", "Bytes of these", value=known.received_bytes
    )
    states = GaugeMetricFamily("medlocker_objects", "Objects by state", labels=["state"])
    for state, number in known.objects.items():
        states.add_metric([state], number)
    yield states
    sends = GaugeMetricFamily(
        "medlocker_deliveries", "Deliveries by state", labels=["destination", "state"]
    )
    for one in known.deliveries:
        sends.add_metric([one.name, one.state], one.number)
    yield sends
    yield _gauge(
        "medlocker_oldest_waiting_seconds",
        "Age of the oldest object that is to go its way by itself",
        known.oldest_s,
    )
    overdue = GaugeMetricFamily(
        "medlocker_oldest_delivery_seconds",
        "Age of the oldest object that a destination has not got",
        labels=["destination"],
    )
    for name, seconds in known.overdue_s.items():
        overdue.add_metric([name], seconds)
    yield overdue
    yield _gauge("medlocker_workers", "Workers alive in the last minute", known.workers)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _audit_bytes(spool: Spool) -> int:
    folder = spool_of(spool.root)
    try:
        return sum(one.stat().st_size for one in folder.iterdir())
    except OSError:  # not there, or shipped while it was counted
        return 0


def _reason(reason: Enum | BaseException | type[BaseException]) -> str:
    return str(reason.value) if isinstance(reason, Enum) else error_name(reason)
