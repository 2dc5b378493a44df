"""What the vault should hold by its audit chain: the chain's entries, played again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from medlocker_dicom.errors import VaultDamagedError

if TYPE_CHECKING:
    from medlocker_dicom.vault.chain import Entry

LIVE: Final = "live"
REPLACED: Final = "replaced"
REVOKED: Final = "revoked"


@dataclass
class Told:
    """What the entries tell, up to the last one that was played.

    Attributes
    ----------
    recipients
        By name: fingerprint, whether a custodian, whether retired.
    instances
        By locked UID: source UID, digest of the binding, SHA-256 of the record, and of the
        detached packet or None.
    grants
        By grant id: locked UID, recipient's fingerprint, digest of what is sealed, state.
    status
        Number of the last status list.
    """

    recipients: dict[str, tuple[str, bool, bool]] = field(default_factory=dict)
    instances: dict[str, tuple[str, str, str, str | None]] = field(default_factory=dict)
    grants: dict[str, tuple[str, str, str, str]] = field(default_factory=dict)
    status: int = 0
    _live: dict[tuple[str, str], str] = field(default_factory=dict)
    _of: dict[str, list[str]] = field(default_factory=dict)

    def play(self, entry: Entry) -> None:
        """Let one more entry happen; entries that change nothing are passed over.

        Raises
        ------
        VaultDamagedError
            It tells of something that cannot have happened.
        """
        happened = getattr(self, f"_{entry.event.replace('-', '_')}", None)
        try:
            if happened is not None:
                happened(json.loads(entry.detail))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise VaultDamagedError(f"{entry} of the audit chain cannot have happened") from error

    def _recipient_added(self, detail: dict[str, Any]) -> None:
        self.recipients[detail["name"]] = (detail["recipient"], False, False)

    def _custodian_added(self, detail: dict[str, Any]) -> None:
        self.recipients[detail["name"]] = (detail["recipient"], True, False)

    def _recipient_retired(self, detail: dict[str, Any]) -> None:
        fingerprint, custodian, _ = self.recipients[detail["name"]]
        self.recipients[detail["name"]] = (fingerprint, custodian, True)

    def _locked(self, detail: dict[str, Any]) -> None:
        for uid in (detail["replaces"] or "").split():
            for grant_id in self._of.get(uid, ()):
                self._becomes(grant_id, REPLACED)
        self.instances[detail["locked_uid"]] = (
            detail["source_uid"],
            detail["binding"],
            detail["record_sha256"],
            detail["packet_sha256"],
        )

    def _granted(self, detail: dict[str, Any]) -> None:
        uid, recipient, grant_id = detail["locked_uid"], detail["recipient"], detail["grant_id"]
        if before := self._live.get((uid, recipient)):
            self._becomes(before, REPLACED)
        self.grants[grant_id] = (uid, recipient, detail["sealed_sha256"], LIVE)
        self._live[uid, recipient] = grant_id
        self._of.setdefault(uid, []).append(grant_id)

    _reissued = _granted

    def _revoked(self, detail: dict[str, Any]) -> None:
        self._becomes(detail["grant_id"], REVOKED)

    def _status_signed(self, detail: dict[str, Any]) -> None:
        self.status = detail["number"]

    def _becomes(self, grant_id: str, state: str) -> None:
        uid, recipient, sealed, before = self.grants[grant_id]
        if before == LIVE:
            del self._live[uid, recipient]
        if before != REVOKED:
            self.grants[grant_id] = (uid, recipient, sealed, state)
