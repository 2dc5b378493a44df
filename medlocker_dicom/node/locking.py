"""Locks an object of the queue, in a process apart: see `apart`.

It can be cut off at any moment and begun again: a lock that is in the vault is found there by the
name of its file.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Final

from medlocker_dicom.dicom.fundus import decode_fundus
from medlocker_dicom.dicom.reading import read_file
from medlocker_dicom.dicom.writing import to_bytes
from medlocker_dicom.errors import (
    DeviceError,
    DiskFullError,
    DuplicateInstanceError,
    MedLockerError,
    NotFundusError,
    OutputError,
    PlacementError,
    SourceError,
    VaultError,
)
from medlocker_dicom.keyfile import dump_detached
from medlocker_dicom.node import ledger as queue
from medlocker_dicom.node.config import FORWARD
from medlocker_dicom.node.ledger import State
from medlocker_dicom.node.outcome import LONGEST_DELAY_S
from medlocker_dicom.node.routes import facts_of, route_for
from medlocker_dicom.node.setbacks import Setbacks
from medlocker_dicom.pipeline.lock import lock
from medlocker_dicom.vault.instances import check_new, instance_of, keep, locks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset
    from sqlalchemy import Row

    from medlocker_dicom.node.config import NodeConfig, Route
    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.lockers import Lockers
    from medlocker_dicom.node.logs import Log
    from medlocker_dicom.node.spool import Spool

#: Until a full disk is looked at again, at most: it has room as soon as something was delivered.
_LONGEST_FULL_S: Final = 120.0
_NO_ROUTE: Final = "no route of node.yaml matches it"


@dataclass(frozen=True)
class Locking:
    """What is at hand to lock.

    Attributes
    ----------
    config
        Gives node.yaml as it is now.
    spool, ledger
        The queue.
    lockers
        Make lockers, and know the vault.
    log
        Is told what was done; never of a patient.
    clock
        Gives the time with a time zone.
    """

    config: Callable[[], NodeConfig]
    spool: Spool
    ledger: Ledger
    lockers: Lockers
    log: Log
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def _back(self) -> Setbacks:
        return Setbacks(self.ledger, self.log)

    def __call__(self, object_id: str) -> bytes:
        """Lock an object by its route, hold it or postpone it, and enter which.

        Returns
        -------
        bytes
            Seconds that the lock took, as a decimal number; empty where there was none.

        Raises
        ------
        VaultError, DiskFullError
            The queue's database fails.
        """
        row = queue.find(self.ledger, object_id)
        # Here: a process that is only starting has begun nothing.
        queue.begin(self.ledger, object_id)
        try:
            return self._process(row)
        except (OutputError, VaultError, DeviceError) as error:
            longest = _LONGEST_FULL_S if isinstance(error, DiskFullError) else LONGEST_DELAY_S
            self._back.postpone(row, error, str(error), error.hint, longest_s=longest)
        except MedLockerError as error:
            self._back.hold(object_id, str(error), error.hint)
        except MemoryError as error:
            self._back.hold(
                object_id, "it needs more memory than there is", "retry on a larger machine"
            )
            self.log.error("out of memory", object=object_id, error=error)  # noqa: TRY400  no traceback
        except Exception as error:  # noqa: BLE001  whatever it is: nothing leaves, nothing is lost
            self._back.hold(object_id, f"unexpected: {type(error).__name__}", "report this")
            self.log.error("unexpected error", object=object_id, error=error)  # noqa: TRY400  the same
        return b""

    def _process(self, row: Row[tuple[object, ...]]) -> bytes:
        self.spool.check_reserve()
        ds = read_file(self.spool.object(row.id))
        facts = facts_of(row.calling_ae_title, row.sop_class_uid, ds)
        route = route_for(self.config(), facts)
        if route is None:
            self._back.hold(row.id, _NO_ROUTE, "add a route, then retry")
            return b""
        began = monotonic()
        try:
            result_uid, attempt = self._locked(row, ds, route)
        except DuplicateInstanceError as error:  # it could be locked: it may not leave as it came
            self._back.hold(row.id, str(error), error.hint, route.name)
        except NotFundusError as error:
            self._pass_or_hold(row, route, route.not_fundus, error)
        except (SourceError, PlacementError) as error:
            self._pass_or_hold(row, route, route.not_lockable, error)
        else:
            seconds = monotonic() - began
            self._send(row.id, State.LOCKED, route, result_uid, attempt)
            self.log.info("locked", object=row.id, route=route.name)
            return f"{seconds:.3f}".encode()
        return b""

    def _locked(self, row: Row[tuple[object, ...]], ds: Dataset, route: Route) -> tuple[str, str]:
        """Lock an object: file first, then vault; give its UID and the name of the attempt."""
        vault = self.lockers.vault
        if (known := self._known(row)) is not None:
            return known  # by a worker that ended just then
        with vault.reading() as connection:
            check_new(connection, str(row.sop_instance_uid))
        now = self.clock()
        locker = self.lockers.make(route.lock, now)
        made = lock(decode_fundus(ds), locker, now=now)
        # Named after a grant: the vault tells later whether this is the file that it knows.
        attempt = made.grants[0].grant_id.hex()
        self.spool.write_result(row.id, attempt, to_bytes(made.ds))
        packet = None if made.detached is None else dump_detached(made.detached)
        key = locker.issuer.public.verify_key
        instance = instance_of(made.record.as_json(), made.grants, key, packet)
        try:
            with vault.writing() as writing:
                keep(writing, instance, made.grants)
                writing.checkpoint(locker.issuer)
        except DuplicateInstanceError:
            if (known := self._known(row)) is None:
                raise
            return known  # by a worker that was taken for dead, and was quicker
        return instance.locked_uid, attempt

    def _known(self, row: Row[tuple[object, ...]]) -> tuple[str, str] | None:
        """Find the lock of an object that the vault knows and whose file is here."""
        with self.lockers.vault.reading() as connection:
            for locked_uid, grant_id in locks_of(connection, str(row.sop_instance_uid)):
                if self.spool.result(row.id, grant_id.hex()).is_file():
                    return locked_uid, grant_id.hex()
        return None

    def _pass_or_hold(
        self, row: Row[tuple[object, ...]], route: Route, rule: str, error: MedLockerError
    ) -> None:
        """Forward an object as it came if its route says so in words; else hold it."""
        if rule == FORWARD:
            self._send(row.id, State.PASSED, route, str(row.sop_instance_uid), "")
            self.log.warning("forwarded unlocked", object=row.id, route=route.name, error=error)
        else:
            self._back.hold(row.id, str(error), error.hint, route.name)

    def _send(self, object_id: str, state: State, route: Route, uid: str, attempt: str) -> None:
        where = route.destinations
        queue.outgoing(self.ledger, object_id, state, route.name, uid, attempt, where)
