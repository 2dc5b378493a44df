"""Where errors become words and exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from medlocker_dicom.errors import MedLockerError, UsageError
from medlocker_dicom.files import output_error

#: Some items failed, the others are done.
PARTIAL = 3
INTERRUPTED = 130


class Guarded(TyperGroup):
    """A command group whose errors are two lines and an exit code, never a traceback."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Read the options; those that print and end do so here."""
        with _guard():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _guard():
            return super().invoke(ctx)


@contextmanager
def _guard() -> Iterator[None]:
    try:
        with _output():
            yield
    except MedLockerError as error:
        failure = error
    except BrokenPipeError:
        raise  # whoever reads has enough: click ends quietly
    except OSError as error:
        failure = _named(error)
    except (KeyboardInterrupt, ImportError) as error:
        if KeyboardInterrupt not in {type(error), type(error.__cause__)}:
            raise  # else a compiled library was interrupted in its import
        sys.stderr.write("\nmedlocker: interrupted; start again to go on\n")
        raise typer.Exit(INTERRUPTED) from error
    else:
        return
    say_error(failure)
    raise typer.Exit(failure.exit_code) from failure


def _named(error: OSError) -> MedLockerError:
    """Tell a path that was given and cannot even be looked at from a failed print."""
    if error.filename is None:
        return output_error(Path("standard output"), error)
    return UsageError(f"{error.filename}: {error.strerror}")


@contextmanager
def _output() -> Iterator[None]:
    """See the standard output written: at Python's end it would be too late for an error."""
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError:
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  what is left is not tried again
            raise


def say_error(error: MedLockerError) -> None:
    """Print an error and its hint to the standard error stream."""
    sys.stderr.write(f"medlocker: error: {plain(str(error))}\n")
    if error.hint:
        sys.stderr.write(f"medlocker: hint: {plain(error.hint)}\n")


def plain(text: str) -> str:
    """Keep control characters of hostile file names and attributes off the terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
