"""medlocker demo: the whole way in one command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medlocker_dicom.errors import DestinationError, UsageError


def demo(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder.")] = Path("demo-out"),
) -> None:
    """Lock two eyes for two recipients, unlock as one, refuse a third; leave a report."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DestinationError(f"{out}: exists", "remove it, or name another folder")
    try:
        from medlocker_dicom.demo import run_demo  # noqa: PLC0415  the engine
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the demonstration needs {error.name}", "pip install 'medlocker-dicom[demo]'"
        ) from error
    run_demo(out, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201  progress
    sys.stdout.write(f"{out / 'report.html'}\n")
