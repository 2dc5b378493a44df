"""What storage commitment says: data sets of requests and of reports (PS3.4 annex J.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from medlocker_dicom.dicom.uids import check_uid
from medlocker_dicom.errors import UIDError

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASS_UID: Final = "1.2.840.10008.1.20.1"
"""Storage Commitment Push Model SOP Class."""
INSTANCE_UID: Final = "1.2.840.10008.1.20.1.1"
"""Its well-known SOP Instance."""
REQUEST: Final = 1
"""Action type of a request (PS3.4 J.3.2.1)."""
COMPLETE, FAILURES = 1, 2
"""Event types of a report: all of it is committed to, or there are failures (PS3.4 J.3.3.1)."""
NO_SUCH_INSTANCE: Final = 0x0112
CONFLICT: Final = 0x0119
MOST_REFERENCES: Final = 10_000
LONGEST: Final = 4 << 20
"""Bytes of a data set that is looked at."""

_NO_SUCH_ARGUMENT: Final = 0x0114
_INVALID_VALUE: Final = 0x0115
_RESOURCES: Final = 0x0213
_PROCESSING_FAILURE: Final = 0x0110


class Reference(NamedTuple):
    """An instance, by its SOP Class and SOP Instance UIDs."""

    class_uid: str
    instance_uid: str


class Failure(NamedTuple):
    """An instance that is not committed to, and the Failure Reason (0008,1197)."""

    reference: Reference
    reason: int


@dataclass(frozen=True)
class Report:
    """What an SCP commits to.

    Attributes
    ----------
    transaction_uid
        Of the request.
    committed, failed
        Instances of the request.
    """

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[Failure, ...]


class MessageError(Exception):
    """A message that cannot be used, with the status that says so (PS3.7 annex C)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status:04X}H")
        self.status = status


def request_of(transaction_uid: str, references: Sequence[Reference]) -> Dataset:
    """Build the Action Information of a request (PS3.4 table J.3-1)."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = Items(map(_item, references))
    return ds


def read_request(ds: Dataset) -> tuple[str, tuple[Reference, ...]]:
    """Read the Action Information of a request.

    Returns
    -------
    tuple
        Transaction UID, and what is to be committed to: at least one instance.

    Raises
    ------
    MessageError
        It is none, or too long.
    """
    references = tuple(map(_reference, _items(ds, "ReferencedSOPSequence")))
    if not references:
        raise MessageError(_NO_SUCH_ARGUMENT)
    return _uid(ds, "TransactionUID"), references


def report_of(report: Report) -> tuple[int, Dataset]:
    """Build event type and Event Information of a report (PS3.4 table J.3-2)."""
    ds = Dataset()
    ds.TransactionUID = report.transaction_uid
    if report.committed:
        ds.ReferencedSOPSequence = Items(map(_item, report.committed))
    if not report.failed:
        return COMPLETE, ds
    failed = []
    for reference, reason in report.failed:
        item = _item(reference)
        item.FailureReason = reason
        failed.append(item)
    ds.FailedSOPSequence = Items(failed)
    return FAILURES, ds


def read_report(ds: Dataset) -> Report:
    """Read the Event Information of a report, whatever event type it came with.

    Raises
    ------
    MessageError
        It is none, or too long.
    """
    failed = []
    for item in _items(ds, "FailedSOPSequence"):
        reason = item.get("FailureReason")
        good = isinstance(reason, int)
        failed.append(Failure(_reference(item), reason if good else _PROCESSING_FAILURE))
    committed = tuple(map(_reference, _items(ds, "ReferencedSOPSequence")))
    return Report(_uid(ds, "TransactionUID"), committed, tuple(failed))


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.class_uid
    item.ReferencedSOPInstanceUID = reference.instance_uid
    return item


def _reference(item: Dataset) -> Reference:
    return Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))


def _items(ds: Dataset, keyword: str) -> list[Any]:
    value = ds.get(keyword)
    if not value:
        return []
    if not isinstance(value, Items):
        raise MessageError(_INVALID_VALUE)
    if len(value) > MOST_REFERENCES:
        raise MessageError(_RESOURCES)
    return list(value)


def _uid(ds: Dataset, keyword: str) -> str:
    if not ds.get(keyword):
        raise MessageError(_NO_SUCH_ARGUMENT)
    try:
        return check_uid(ds[keyword].value, keyword)
    except UIDError as error:
        raise MessageError(_INVALID_VALUE) from error
