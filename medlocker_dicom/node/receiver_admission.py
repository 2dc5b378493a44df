"""Who may associate: a decision, and the A-ASSOCIATE-RJ that says no (PS3.8 section 9.3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

from medlocker_dicom.node.audit import Alert

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from medlocker_dicom.node.config import Listen


@dataclass(frozen=True)
class Caller:
    """Who asks for an association, or sent an object.

    Attributes
    ----------
    calling_ae_title, called_ae_title
        As the A-ASSOCIATE-RQ says, without padding.
    address
        IP address.
    """

    calling_ae_title: str
    called_ae_title: str
    address: str


@dataclass(frozen=True)
class Refusal:
    """An A-ASSOCIATE-RJ.

    Attributes
    ----------
    result, source, diagnostic
        PS3.8 table 9-21.
    reason
        For the log.
    alert
        For the audit trail; None where nobody did what they may not.
    """

    result: int
    source: int
    diagnostic: int
    reason: str
    alert: Alert | None = None

    @property
    def codes(self) -> tuple[int, int, int]:
        """As pynetdicom takes them."""
        return self.result, self.source, self.diagnostic


BROKEN: Final = Refusal(2, 2, 1, "an error of this node's")
"""Transient, of ACSE, no reason given."""


def stranger(listen: Listen, caller: Caller) -> Refusal | None:
    """Tell why a caller may not associate, however much room there is; None if it may."""
    if caller.called_ae_title != listen.ae_title:
        return Refusal(1, 1, 7, f"called AE title is not {listen.ae_title}", Alert.CALLED)
    if not listen.peers:
        return None
    known = [peer for peer in listen.peers if peer.ae_title == caller.calling_ae_title]
    if not known:
        return Refusal(1, 1, 3, "calling AE title is not among listen.peers", Alert.CALLING)
    address = _address(caller.address)
    if any(not peer.addresses or _within(address, peer.addresses) for peer in known):
        return None
    reason = "address is not among those of this calling AE title in listen.peers"
    return Refusal(1, 1, 3, reason, Alert.ADDRESS)


def crowded(reason: str) -> Refusal:
    """Say that there is no room for now: transient, of the presentation, local limit exceeded."""
    return Refusal(2, 3, 2, reason)


def _within(address: IPv4Address | IPv6Address, networks: tuple[object, ...]) -> bool:
    return any(address in network for network in networks)  # type: ignore[operator]


def _address(text: str) -> IPv4Address | IPv6Address:
    """Read an address; one of IPv4 that came in by IPv6 is one of IPv4."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
