"""What is too much for one file becomes several."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

T = TypeVar("T")


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut a sequence into parts of at most `size`."""
    return (items[at : at + size] for at in range(0, len(items), size))


def numbered(path: Path, count: int) -> list[Path]:
    """Name the files of so many parts: ``a.x`` for one, else ``a-1.x``, ``a-2.x`` and so on."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, count + 1)]
