"""The texts that stand in our own source: the only ones that a log may say as they are.

A text that was put together from a template of ours is told as the template, with an
ellipsis for each value: ``called AE title is not …``.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock, RLock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_READING: Final = Lock()
_PARSING: Final = RLock()
VALUE: Final = "…"
_FEWEST: Final = 8  # characters of a template that are its own
_LONGEST: Final = 1000  # characters of a text that is looked for


def own_words(text: str) -> str | None:
    """Return a text as our source says it; None where it says nothing like it.

    None as well where our source cannot be read this once (see `parse`; or a newer version is just
    being installed): who logs is in the middle of something.
    """
    try:
        return _in(text, _once(_here)) or _in(text, _once(_everywhere))
    except (OSError, SyntaxError, SystemError):
        return None


def _once(read: Callable[[], _Ours]) -> _Ours:
    """Read source in one thread while others wait: several at once take many times as long."""
    with _READING:
        return read()


def parse(source: bytes) -> ast.Module:
    """Parse Python, in one thread at a time.

    Raises
    ------
    SyntaxError, ValueError, RecursionError
        It is none.
    SystemError
        Python before 3.12 counts the depth of all threads' parsing in one place, so another part of
        the process that parses may break this one. Nothing is wrong with the source.
    """
    with _PARSING:
        return ast.parse(source)


def _in(text: str, ours: _Ours) -> str | None:
    literals, templates = ours
    if text in literals:
        return text
    if len(text) > _LONGEST:
        return None
    return next((str(one) for one in templates if one.fits(text)), None)


@dataclass(frozen=True)
class _Template:
    """A text with holes: an empty part stands for nothing before or after one."""

    parts: tuple[str, ...]

    @property
    def weight(self) -> int:
        """How much of it is its own."""
        return sum(len(part) for part in self.parts)

    def fits(self, text: str) -> bool:
        """Tell whether a text may be made of it."""
        first, *inner, last = self.parts
        if not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for part in inner:
            at = text.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return at <= end

    def __str__(self) -> str:
        return VALUE.join(self.parts)


_Ours = tuple[frozenset[str], tuple[_Template, ...]]


@cache
def _here() -> _Ours:
    """Read the node's source, which says most."""
    return _read(Path(__file__).parent)


@cache
def _everywhere() -> _Ours:
    """Read all of our source: its errors come up in the node."""
    return _read(Path(__file__).parents[1])


def _read(folder: Path) -> _Ours:
    """Read the source in a folder: its texts, and its templates, the longest first."""
    literals: set[str] = set()
    templates: set[_Template] = set()
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(parse(path.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                literals.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                templates.add(_template(node))
    kept = [one for one in templates if one.weight >= _FEWEST]
    return frozenset(literals), tuple(sorted(kept, key=lambda it: (-it.weight, str(it))))


def _template(node: ast.JoinedStr) -> _Template:
    parts = [""]
    for value in node.values:
        if isinstance(value, ast.Constant):
            parts[-1] += str(value.value)
        else:
            parts.append("")
    return _Template(tuple(parts) if len(parts) > 1 else (parts[0], ""))
