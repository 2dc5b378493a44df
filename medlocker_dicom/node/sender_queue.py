"""The queues between an association and its connection: bounded, and not waited at for the dead."""

from __future__ import annotations

import queue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from pynetdicom.pdu_primitives import P_DATA

if TYPE_CHECKING:
    from pynetdicom.dul import DULServiceProvider

_AHEAD: Final = 8
_GLANCE_S: Final = 0.25


class PeerGoneError(Exception):
    """The connection ended, or stood still, while an object was on its way."""

    def __init__(self, *, silent: bool) -> None:
        super().__init__()
        self.silent = silent


class Outlet(queue.Queue[Any]):
    """Takes the place of the queue between an association and its connection.

    pynetdicom's own takes whole objects, and waits for the answer from the moment
    the last fragment was queued: a slow line so looks like a silent peer.

    Parameters
    ----------
    provider
        Takes from this queue and writes to the connection.
    patience
        Seconds without any fragment leaving after which the peer is given up.
    """

    def __init__(self, provider: DULServiceProvider, patience: float) -> None:
        super().__init__()
        self._provider = provider
        self._patience = patience

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002  as queue.Queue's
        """Add a primitive; a fragment waits until there is room.

        Raises
        ------
        PeerGoneError
            There was none for too long, or there is nobody who takes it.
        """
        if isinstance(item, P_DATA):
            self._wait()
        super().put(item, block, timeout)

    def _wait(self) -> None:
        began = monotonic()
        with self.not_full:
            while self._qsize() >= _AHEAD:
                if not self._provider.is_alive():
                    raise PeerGoneError(silent=False)
                if monotonic() - began > self._patience:
                    raise PeerGoneError(silent=True)
                self.not_full.wait(_GLANCE_S)


class Inlet(queue.Queue[Any]):
    """Takes the place of the queue of messages that have arrived.

    A connection that ends in the moment in which something is asked leaves
    pynetdicom's own empty, and waited at until the timeout.

    Parameters
    ----------
    provider
        Puts into this queue what the connection gives.
    """

    def __init__(self, provider: DULServiceProvider) -> None:
        super().__init__()
        self._provider = provider

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002  as queue.Queue's
        """Take a message.

        Raises
        ------
        queue.Empty
            There is none in time, or there never will be.
        """
        if not block:
            return super().get(block=False)
        end = None if timeout is None else monotonic() + timeout
        while True:
            alive = self._provider.is_alive()
            left = _GLANCE_S if end is None else min(_GLANCE_S, end - monotonic())
            try:
                return super().get(timeout=max(left, 0)) if alive else super().get(block=False)
            except queue.Empty:
                if not alive or (end is not None and monotonic() >= end):
                    raise
