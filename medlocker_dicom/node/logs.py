"""The node's log: one line an event, on stderr, and nothing of a patient can get into it.

Three rules make that so, instead of care:

- An event is a literal in the code of the function that logs it.
- A field is declared in `FIELDS`, whose form lets through numbers, members of
  enumerations, texts of the node's own source, names out of node.yaml, keyed hashes of
  UIDs, and classes of errors; no other text, and never an error's message, which may
  quote an object.
- What libraries log is replaced by the text that stands in their source, with its holes
  open, before any handler sees the record (`library_logs`).
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, LiteralString

import structlog

from medlocker_dicom.node import library_logs
from medlocker_dicom.node.log_fields import WITHHELD, Forms, UndeclaredError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from types import CodeType
    from typing import TextIO

    from medlocker_dicom.node.config import NodeConfig

_NOT_LITERAL: Final = "a log's event has to be a literal of the function that logs it"


@dataclass(frozen=True)
class Log:
    """What a part of the node logs by.

    Attributes
    ----------
    part
        Which, such as ``receiver``.
    fields
        Said with every event.
    """

    part: str
    fields: Mapping[str, object] = field(default_factory=dict)

    def bind(self, **fields: object) -> Log:
        """Return a log that says further fields with every event."""
        return Log(self.part, {**self.fields, **fields})

    def info(self, event: LiteralString, **fields: object) -> None:
        """Log what went as it should; `event` stands in the caller's code, `fields` in `FIELDS`.

        Raises
        ------
        UndeclaredError
            They do not, and this is a test.
        """
        self._say("info", event, fields, sys._getframe(1).f_code)  # noqa: SLF001  whose literal

    def warning(self, event: LiteralString, **fields: object) -> None:
        """Log what somebody may have to look at; as `info`."""
        self._say("warning", event, fields, sys._getframe(1).f_code)  # noqa: SLF001  the same

    def error(self, event: LiteralString, **fields: object) -> None:
        """Log what somebody has to look at; as `info`."""
        self._say("error", event, fields, sys._getframe(1).f_code)  # noqa: SLF001  the same

    def _say(
        self, level: LiteralString, event: str, fields: Mapping[str, object], caller: CodeType
    ) -> None:
        literal = type(event) is str and event in caller.co_consts
        if not structlog.is_configured():  # in tests of other parts: checked, not written
            if not literal:
                raise UndeclaredError(_NOT_LITERAL)
            Forms(b"unwritten", frozenset(), strict=True).said({**self.fields, **fields})
            return
        logger = structlog.get_logger()
        getattr(logger, level)(
            event if literal else WITHHELD, literal=literal, part=self.part, **self.fields, **fields
        )


def start(
    config: NodeConfig,
    secret: bytes,
    stream: TextIO | None = None,
    *,
    strict: bool = False,
) -> None:
    """Set up a process's log; each process of the node does so before it does anything else.

    Parameters
    ----------
    config
        Its `log` says the form; names of its routes and destinations may be said.
    secret
        Key of the hashes; the same for all processes, so that hashes agree.
    stream
        stderr by default.
    strict
        Whether undeclared fields raise (in tests), or are dropped and named.

    Raises
    ------
    ValueError
        The secret is empty.
    """
    if not secret:
        raise ValueError("the log's secret is empty")
    out = sys.stderr if stream is None else stream
    forms = Forms(
        secret,
        _names(config),
        plain_uids=config.log.study_uids == "plain",
        strict=strict,
    )
    structlog.configure(
        processors=[
            _Declared(forms),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer()
            if config.log.form == "json"
            else structlog.dev.ConsoleRenderer(colors=out.isatty(), sort_keys=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        logger_factory=structlog.WriteLoggerFactory(file=out),
    )
    library_logs.tame(_library)


def stop() -> None:
    """Log nothing any more; libraries log as they did before."""
    library_logs.free()
    structlog.reset_defaults()


def _library(said: library_logs.LibrarySaid) -> None:
    """Log what a library said, in our form."""
    fields = {"library": said.library, "at": said.at}
    fields |= {"error": said.error} if said.error else {}
    getattr(structlog.get_logger(), said.level)(
        said.text, literal=True, part="library", library=fields
    )


def _names(config: NodeConfig) -> frozenset[str]:
    """Give the names that may be said as they are."""
    user = () if config.page.user is None else (config.page.user,)
    return frozenset({*config.destinations, *(route.name for route in config.routes), *user})


@dataclass(frozen=True)
class _Declared:
    """The processor that lets through what is declared, in its form."""

    forms: Forms

    def __call__(
        self, _: Any, __: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event, literal = event_dict.pop("event", WITHHELD), event_dict.pop("literal", False)
        if literal is not True:
            if self.forms.strict:
                raise UndeclaredError(_NOT_LITERAL)
            event = WITHHELD
        part = event_dict.pop("part", "node")
        library = event_dict.pop("library", {})
        said = {**self.forms.said(event_dict), **library}
        return {"event": event, "part": part, "process": os.getpid(), **said}
