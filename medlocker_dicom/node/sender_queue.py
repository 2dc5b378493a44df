"""How far an association runs ahead of the network: some fragments, never a whole object."""

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
