"""One event, one line, named fields: readable in a terminal, parseable everywhere else.

Values never reach a line unescaped: no file name ends a line, forges another, or tells a terminal what to do. Passwords
of URLs reach none at all.
"""

import io
import logging
import math
import sys
from typing import Any, Final, Literal, TextIO

import structlog

from runtime import tracing
from runtime.escapes import escaped, masked


def _escape_line(_logger: object, _method: str, line: Any) -> str:
    """A structlog processor behind the renderer of JSON, which escapes only what JSON must not have."""
    return escaped(masked(line))


def _escape_values(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A structlog processor before the renderer for terminals, which shows text without spaces as it is."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = escaped(masked(value))
    return event


def _format_trouble(stream: TextIO, trouble: Any) -> None:
    """Write a traceback, each line indented: what others wrote into its message looks like no line of the log."""
    written = io.StringIO()
    # The default shows local variables, among them passwords, and takes seconds on deep stacks.
    structlog.dev.plain_traceback(written, trouble)
    stream.write("\n".join(f"  {escaped(masked(line))}" for line in written.getvalue().split("\n")))


def _name_trace(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A structlog processor: name the trace that a line belongs to."""
    event.update(tracing.ids())
    return event


REPEAT_SECONDS: Final = 60.0
"""Within this time a library tells a thing once."""
MOST_LINES: Final = 200
"""Remembered for that."""


class _Unrepeated(logging.Filter):
    """Lets a library's line pass if it is none of a moment ago: some tell of each try, our own of the fault."""

    def __init__(self, library: str) -> None:
        super().__init__()
        self._library = library
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(self._library):
            return True
        line, now = record.getMessage(), record.created
        if now - self._told.get(line, -math.inf) < REPEAT_SECONDS:
            return False
        if len(self._told) == MOST_LINES:
            self._told.clear()
        self._told[line] = now
        return True


def configure_logging(process: str, level: str, log_format: Literal["console", "json"]) -> None:
    """Send our logs and the libraries' to standard error in one format, naming the process."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _name_trace,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso" if log_format == "json" else "%H:%M:%S", utc=log_format == "json"),
        structlog.processors.StackInfoRenderer(),
    ]
    renderers: list[structlog.typing.Processor] = (
        [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
            _escape_line,
        ]
        if log_format == "json"
        else [
            _escape_values,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=_format_trouble
            ),
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.addFilter(_Unrepeated("aiokafka"))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    structlog.contextvars.bind_contextvars(process=process)
    for noisy in ("aiokafka", "httpx", "httpcore", "alembic", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
