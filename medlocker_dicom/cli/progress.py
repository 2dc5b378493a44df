"""A bar on a terminal, one line an item elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    track,
)

from medlocker_dicom.cli.guard import plain, say_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from medlocker_dicom.errors import MedLockerError


_EVERY = 5.0  # s


class Item(Protocol):
    """What the folder runs yield."""

    @property
    def path(self) -> Path:
        """Relative to the source."""
        ...

    @property
    def number(self) -> int:
        """Counted from 1."""
        ...

    @property
    def total(self) -> int:
        """How many there are."""
        ...

    @property
    def state(self) -> str:
        """What became of it."""
        ...

    @property
    def error(self) -> MedLockerError | None:
        """Why it failed."""
        ...


T = TypeVar("T", bound=Item)


def shown(items: Iterable[T], verb: str, note: Callable[[T], str] = lambda _: "") -> Iterator[T]:
    """Pass items on while showing how far they are; errors are printed as they come.

    Parameters
    ----------
    items
        From a folder run.
    verb
        What is being done, such as ``locking``.
    note
        A few words on an item.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        for item in items:
            line = f"{item.number}/{item.total} {item.state} {item.path} {note(item)}".rstrip()
            sys.stderr.write(plain(line) + "\n")
            if item.error is not None:
                say_error(item.error)
            yield item
        return
    columns = (
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None, rate="")
        for item in items:
            if item.error is not None:
                progress.console.print(
                    f"medlocker: error: {escape(plain(str(item.error)))}",
                    style="red",
                    highlight=False,
                )
                if item.error.hint:
                    progress.console.print(f"medlocker: hint: {escape(plain(item.error.hint))}")
            speed = progress.tasks[task].finished_speed or progress.tasks[task].speed
            progress.update(
                task,
                total=item.total,
                completed=item.number,
                description=escape(plain(f"{item.path.name} {note(item)}")),
                rate=f"{60 * speed:.1f}/min" if speed else "",
            )
            yield item


C = TypeVar("C")


def counting(steps: Iterable[C], verb: str) -> Iterator[C]:
    """Pass steps on while showing how far they are, where they are ``(done, total, ...)``.

    On a terminal a bar; elsewhere a line every few seconds.
    """
    console = Console(stderr=True)
    said = time.monotonic()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(verb, total=None)
        for step in steps:
            if isinstance(step, tuple):
                done, total = step[:2]
                progress.update(task, completed=done, total=total)
                if not console.is_terminal and time.monotonic() - said > _EVERY:
                    sys.stderr.write(f"{verb} {done}/{total}\n")
                    said = time.monotonic()
            yield step


def counted(paths: Sequence[Path], verb: str) -> Iterator[Path]:
    """Pass paths on while a bar on the terminal shows how far they are."""
    console = Console(stderr=True)
    yield from track(paths, verb, console=console, disable=not console.is_terminal)
