"""What is delivered leaves the spool; its row stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from medlocker_dicom.files import output_error
from medlocker_dicom.node.ledger import State
from medlocker_dicom.node.schema import objects

if TYPE_CHECKING:
    from medlocker_dicom.node.ledger import Ledger
    from medlocker_dicom.node.spool import Spool

_AT_ONCE: Final = 200


def tidy(ledger: Ledger, spool: Spool, keep_hours: float) -> int:
    """Delete the files of objects that were delivered everywhere, or discarded, long enough ago.

    Files first, then the row: what is cut off between the two is done again.

    Returns
    -------
    int
        How many objects.

    Raises
    ------
    OutputError
        A file cannot be deleted.
    VaultError
        The database fails.
    """
    before = ledger.now() - int(keep_hours * 3_600_000)
    over = objects.c.state.in_((State.DONE, State.DISCARDED))
    query = select(objects.c.id).where(over, objects.c.changed <= before).limit(_AT_ONCE)
    with ledger.reading() as connection:
        ids = list(connection.scalars(query))
    for object_id in ids:
        try:
            spool.forget(object_id)
        except OSError as error:
            raise output_error(spool.object(object_id), error) from error
    with ledger.writing() as connection:
        gone = update(objects).where(objects.c.id.in_(ids), over)
        connection.execute(gone.values(state=State.GONE))
    return len(ids)
