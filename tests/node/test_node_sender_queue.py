"""The queues of an association: bounded, and never waited at for a connection that is gone."""

import queue
import threading
import time
from typing import Any

import pytest
from pynetdicom.pdu_primitives import A_ABORT, P_DATA

from medlocker_dicom.node.sender_queue import Inlet, Outlet, PeerGoneError


class Provider:
    """A connection's thread, as far as the queues look at it."""

    def __init__(self) -> None:
        self.living = True

    def is_alive(self) -> bool:
        return self.living


def full(provider: Any, patience: float) -> Outlet:
    """Return an outlet that takes no further fragment."""
    outlet = Outlet(provider, patience)
    for _ in range(8):
        outlet.put(P_DATA())
    return outlet


def test_a_fragment_waits_for_room() -> None:
    """One more fits as soon as one has left; an abort is never kept waiting."""
    outlet = full(Provider(), 5)
    threading.Timer(0.1, outlet.get).start()
    outlet.put(P_DATA())
    assert outlet.qsize() == 8
    outlet.put(A_ABORT())
    assert outlet.qsize() == 9


def test_nobody_takes_fragments() -> None:
    """A silent peer is given up after the patience, one that is gone at once; each said so."""
    with pytest.raises(PeerGoneError) as caught:
        full(Provider(), 0.1).put(P_DATA())
    assert caught.value.silent
    provider = Provider()
    outlet = full(provider, 60)
    provider.living = False
    began = time.monotonic()
    with pytest.raises(PeerGoneError) as caught:
        outlet.put(P_DATA())
    assert not caught.value.silent
    assert time.monotonic() - began < 1


def test_an_answer_that_never_comes() -> None:
    """It is waited for as long as was said, but not of a connection that ended meanwhile."""
    provider: Any = Provider()
    inlet = Inlet(provider)
    with pytest.raises(queue.Empty):
        inlet.get(timeout=0.1)
    threading.Timer(0.2, lambda: setattr(provider, "living", False)).start()
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        inlet.get(timeout=60)
    assert time.monotonic() - began < 5
    inlet.put("last words")
    assert inlet.get(timeout=60) == "last words"
