"""Where errors become words and exit codes."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from medlocker_dicom.errors import MedLockerError

#: Some items failed, the others are done.
PARTIAL = 3
INTERRUPTED = 130


class Guarded(TyperGroup):
    """A command group whose errors are two lines and an exit code, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except MedLockerError as error:
            say_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            sys.stderr.write("\nmedlocker: interrupted; start again to go on where it stopped\n")
            raise typer.Exit(INTERRUPTED) from error


def say_error(error: MedLockerError) -> None:
    """Print an error and its hint to the standard error stream."""
    sys.stderr.write(f"medlocker: error: {plain(str(error))}\n")
    if error.hint:
        sys.stderr.write(f"medlocker: hint: {plain(error.hint)}\n")


def plain(text: str) -> str:
    """Keep control characters of hostile file names and attributes off the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
