"""One file's excess is that file's failure."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from medlocker_dicom.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def contained(path: Path) -> Iterator[None]:
    """Turn what exhausts memory or the stack within into an error of the file at work.

    Raises
    ------
    SourceError
        The file needs more memory than there is, or is nested too deeply.
    """
    try:
        yield
    except (MemoryError, RecursionError) as error:
        error.__traceback__ = None  # its frames hold what filled the memory
        deep = isinstance(error, RecursionError)
        what = "is nested too deeply" if deep else "needs more memory than there is"
        raise SourceError(f"{path}: {what}") from error
