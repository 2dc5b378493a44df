"""What libraries log: the words of their source, never the values that they put in.

pynetdicom logs data sets, pydicom warns with values, databases say their parameters, and
an exception may quote any of it. So the text of a record is not taken from the record, but
from the line of source that made it, with an ellipsis for each value; this happens when
the record is made, before a handler of anybody's sees it.
"""

from __future__ import annotations

import ast
import logging
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, LiteralString

from medlocker_dicom.node.log_fields import error_name
from medlocker_dicom.node.own_words import VALUE, parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_SPOKE: Final = "a library logs; its text is all values"
_NAMES: Final = ("alembic", "dbos", "pydicom", "pynetdicom", "sqlalchemy", "urllib3", "uvicorn")
_CALLS: Final = frozenset(
    {"critical", "debug", "error", "exception", "fatal", "info", "log", "warn", "warning"}
)
_MAX_SOURCE: Final = 4 << 20  # bytes of a source file that is looked into


@dataclass(frozen=True)
class LibrarySaid:
    """What a library said, without its values.

    Attributes
    ----------
    level
        ``info``, ``warning`` or ``error``.
    text
        The words in its source.
    library, at
        Its logger, and the place in its source.
    error
        Name of the error that came with it; empty for none.
    """

    level: LiteralString
    text: str
    library: str
    at: str
    error: str = ""


class _Ours(logging.Handler):
    """Hands records on."""

    def __init__(self, say: Callable[[LibrarySaid], None]) -> None:
        super().__init__(logging.INFO)
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on: `_make` has cleaned it."""
        at = f"{record.filename}:{record.lineno}"
        error = getattr(record, "error_name", "")
        self.say(LibrarySaid(_level(record.levelno), str(record.msg), record.name, at, error))


def tame(say: Callable[[LibrarySaid], None]) -> None:
    """Have all that libraries log, warn of or die of handed to `say`, without its values."""
    free()
    logging.setLogRecordFactory(_make)
    handler = _Ours(say)
    for name in ("", *_NAMES, "uvicorn.access", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING)
    warnings.showwarning = _warned(say)
    sys.excepthook = _died(say)
    threading.excepthook = lambda it: _died(say)(it.exc_type, it.exc_value, it.exc_traceback)


def free() -> None:
    """Let libraries log as they do by themselves."""
    logging.setLogRecordFactory(logging.LogRecord)
    for name in ("", *_NAMES, "uvicorn.access", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [one for one in logger.handlers if not isinstance(one, _Ours)]
        logger.propagate = True
    warnings.showwarning = _SHOWWARNING
    sys.excepthook = sys.__excepthook__
    threading.excepthook = threading.__excepthook__


_SHOWWARNING: Final = warnings.showwarning


def _make(  # noqa: PLR0913, PLR0917  logging's own signature
    name: str,
    level: int,
    path: str,
    line: int,
    _: object,
    __: object,
    exc_info: Any,
    function: str | None = None,
    ___: str | None = None,
    **____: object,
) -> logging.LogRecord:
    """Make a record of what the source says, instead of what the call does."""
    record = logging.LogRecord(name, level, path, line, words(path, line), (), None, function)
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    with suppress(ValueError):
        record.error_name = error_name(error)
    return record


def words(path: str, line: int) -> str:
    """Give the words that a call at a line of source logs, with an ellipsis for each value.

    Whatever becomes of that, it does not raise: who logs is in the middle of something.
    """
    try:
        return _all_words(path).get(line, _SPOKE)
    except SystemError:  # of `parse`: another time it will do
        return _SPOKE


@lru_cache(maxsize=256)
def _all_words(path: str) -> MappingProxyType[int, str]:
    """Give the words of each logging call of a source file, by each of its lines."""
    found: dict[int, str] = {}
    try:
        source = Path(path)
        tree = parse(source.read_bytes() if source.stat().st_size <= _MAX_SOURCE else b"")
    except (OSError, SyntaxError, ValueError, RecursionError):
        return MappingProxyType({})
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in _CALLS and node.args:
            text = _constant(node.args[1 if node.func.attr == "log" else 0 :][:1])
            found |= dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), text)
    return MappingProxyType(found)


def _constant(arguments: list[ast.expr]) -> str:
    """Give a text's constant parts; its values are left open."""
    parts: list[str] = []
    for argument in arguments:
        whole = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
        for one in whole:
            text = one.value if isinstance(one, ast.Constant) else None
            parts.append(text if isinstance(text, str) else VALUE)
    return "".join(parts).strip() if any(part.strip(VALUE) for part in parts) else _SPOKE


def _level(number: int) -> LiteralString:
    if number >= logging.ERROR:
        return "error"
    return "warning" if number >= logging.WARNING else "info"


def _warned(say: Callable[[LibrarySaid], None]) -> Callable[..., None]:
    def show(_: object, category: type[Warning], path: str, line: int, *__: object) -> None:
        at = f"{Path(path).name}:{line}"
        say(LibrarySaid("warning", "a library warns", "warnings", at, category.__name__))

    return show


def _died(say: Callable[[LibrarySaid], None]) -> Callable[..., None]:
    def show(
        kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt | SystemExit):
            return
        places: list[str] = []
        while trace is not None:
            places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
            trace = trace.tb_next
        at, name = " ".join(places[-20:]), error_name(kind if error is None else error)
        say(LibrarySaid("error", "an error that nobody caught", "python", at, name))

    return show
