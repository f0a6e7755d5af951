"""How a process writes its log: structured lines on stderr, from our code and from libraries, without secrets.

This file knows no event; services name theirs in their `telemetry.py`.
"""

import logging
import sys
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from sternpost_runtime.settings import ServiceSettings

SECRET_WORDS = ("password", "secret", "authorization", "api_key", "apikey", "token", "cookie", "private_key")
"""A field whose name contains one of these never shows its value."""
REMOVED = "[removed]"
MAX_DEPTH = 4
"""How deep into a field's own mappings secrets are looked for; what lies deeper is removed as a whole."""

EventDict = MutableMapping[str, Any]


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    name = name.lower().replace("-", "_")
    return any(word in name for word in SECRET_WORDS)


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        if depth == 0:
            return REMOVED
        return {key: REMOVED if _is_secret(str(key)) else _clean(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, list | tuple) and depth:
        return [_clean(inner, depth - 1) for inner in value]
    return value


def remove_secrets(_logger: object, _method: str, event: EventDict) -> EventDict:
    """The processor that replaces the values of fields with telling names, in nested mappings too."""
    for key, value in event.items():
        if _is_secret(key):
            event[key] = REMOVED
        elif isinstance(value, Mapping | list | tuple):
            event[key] = _clean(value, MAX_DEPTH)
    return event


def setup_logging(service: str, settings: ServiceSettings, stream: TextIO | None = None) -> None:
    """Send the lines of our code (from `log_level` up) and of libraries (from warning up) to stderr.

    Libraries stay at warning whatever the level: aiosmtpd's debug lines hold what clients send, passwords included.
    """
    output = stream or sys.stderr

    def name_the_process(_logger: object, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        event["instance"] = settings.hostname
        return event

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        name_the_process,
        remove_secrets,
    ]
    last: list[Processor]
    if settings.log_format == "console":
        # The default formatter prints local variables, and those hold mails and passwords.
        last = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(output),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
