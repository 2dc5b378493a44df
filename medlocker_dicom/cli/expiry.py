"""The option by which grants end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from medlocker_dicom.errors import UsageError

Expires = Annotated[
    str | None,
    typer.Option(metavar="YYYY-MM-DD", help="Last day (UTC) on which the recipients' grants open."),
]


def expiry_of(text: str | None) -> datetime | None:
    """Read the option: the first moment of the day after, UTC.

    Raises
    ------
    UsageError
        It is no day, or one that is over.
    """
    if text is None:
        return None
    try:
        end = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise UsageError("--expires is not a day like 2028-12-31") from error
    if end <= datetime.now(UTC):
        raise UsageError(f"--expires {text} is over already")
    return end
