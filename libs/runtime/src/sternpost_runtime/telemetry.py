"""Traces and sampled logs. Metrics come straight from prometheus_client: each service has a `telemetry.py`.

Tracing is off unless `otlp_endpoint` is set, and then nothing of OpenTelemetry is even imported: every function here
returns at its first line. A mail carries the W3C trace context of its submission; later work *links* to it, because a
retry days later is no child of a request that ended long ago.

Which share of traces is kept follows OpenTelemetry's own variables (`OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`).
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # at run time only when tracing is on: the import costs tens of milliseconds and MiB
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Link, Span, SpanContext, Tracer

    from sternpost_runtime.settings import ServiceSettings

# Names of OpenTelemetry's semantic conventions for messaging, as attributes of our spans.
MESSAGING_SYSTEM = "messaging.system"
MESSAGING_OPERATION_TYPE = "messaging.operation.type"
MESSAGING_OPERATION_NAME = "messaging.operation.name"
MESSAGING_DESTINATION_NAME = "messaging.destination.name"
MESSAGING_CONSUMER_GROUP_NAME = "messaging.consumer.group.name"
MESSAGING_MESSAGE_ID = "messaging.message.id"
MESSAGING_MESSAGE_BODY_SIZE = "messaging.message.body.size"
MESSAGING_BATCH_MESSAGE_COUNT = "messaging.batch.message_count"

MAX_WAITING_SPANS = 2048
"""Spans that wait for the collector; beyond it they are dropped, never the mail delayed."""
EXPORT_SECONDS = 5
"""Seconds that one export may take."""
FLUSH_MS = 2000
"""Milliseconds that the end of a process waits for the last spans."""

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_NO_SPAN: AbstractContextManager[None] = nullcontext()

_provider: "TracerProvider | None" = None


def setup_tracing(service: str, settings: "ServiceSettings") -> None:
    """Send spans to `settings.otlp_endpoint` (OTLP over HTTP); does nothing where it is empty or called again."""
    global _provider
    if not settings.otlp_endpoint or _provider is not None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {
            "service.name": f"sternpost-{service}",
            "service.namespace": settings.release_namespace,
            "service.instance.id": settings.hostname,
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{settings.otlp_endpoint}/v1/traces", timeout=EXPORT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=MAX_WAITING_SPANS))
    _provider = provider


def shutdown_tracing() -> None:
    """Send what waits, for at most FLUSH_MS, and switch tracing off."""
    global _provider
    provider, _provider = _provider, None
    if provider is not None:
        provider.force_flush(FLUSH_MS)


def tracing_enabled() -> bool:
    """Whether spans go anywhere: ask before computing attributes that cost something."""
    return _provider is not None


def tracer(name: str) -> "Tracer":
    """OpenTelemetry's own tracer, for what `span` does not offer; one that does nothing where tracing is off."""
    if _provider is not None:
        return _provider.get_tracer(name)
    from opentelemetry.trace import NoOpTracer

    return NoOpTracer()


def span(
    name: str,
    *,
    links: "Sequence[Link | None]" = (),
    attributes: Attributes | None = None,
    kind: Kind = "internal",
    parent: str = "",
) -> "AbstractContextManager[Span | None]":
    """A span around a block, current inside it; yields None where tracing is off. An exception marks it as failed.

    `links` takes what `link_from` returned, None included. `parent` is the traceparent of a caller that waits for us.
    """
    if _provider is None:
        return _NO_SPAN
    from opentelemetry.trace import SpanKind

    context = _context_of(parent)
    return _provider.get_tracer("sternpost").start_as_current_span(
        name,
        context=_within(context) if context else None,
        kind=SpanKind[kind.upper()],
        links=[link for link in links if link is not None],
        attributes=attributes,
    )


def link_from(traceparent: str) -> "Link | None":
    """A link to the span of a traceparent; None where tracing is off or the text is no traceparent."""
    if _provider is None or not traceparent:
        return None
    context = _context_of(traceparent)
    if context is None:
        return None
    from opentelemetry.trace import Link

    return Link(context)


def inject() -> str:
    """The traceparent of the current span, empty where there is none."""
    if _provider is None:
        return ""
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    return _format(context) if context.is_valid else ""


def new_traceparent(parent: str = "") -> str:
    """The traceparent that a door gives to a mail: that of a new `create mail` span, below `parent` where it is valid.

    Where tracing is off, a valid `parent` is passed on and nothing is made up (the answer is then `parent` or empty).
    """
    parent = valid_traceparent(parent) if parent else ""
    if _provider is None:
        return parent
    with span(
        "create mail",
        kind="producer",
        parent=parent,
        attributes={MESSAGING_SYSTEM: "nats", MESSAGING_OPERATION_TYPE: "create", MESSAGING_OPERATION_NAME: "create"},
    ):
        return inject()


def valid_traceparent(text: str) -> str:
    """A traceparent that a client sent, in the form of version 00, or empty where it is none (W3C Trace Context §3.2).

    Later versions are read as 00, as the standard asks; what they append is dropped.
    """
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return ""
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == "0" * 32 or span_id == "0" * 16:
        return ""
    return f"00-{trace_id}-{span_id}-{flags}"


class Sampled:
    """A log call of which one in `every` is written. Made by `sampled`."""

    __slots__ = ("_every", "_level", "_log", "_seen")

    def __init__(self, log: Any, every: int, level: str) -> None:
        if not hasattr(log, level):
            raise TypeError(
                f"give the logger and the level, not the method: sampled(log, every={every}, level='{level}')"
            )
        if every < 1:
            raise ValueError("one in `every` is written, so it is at least 1")
        self._log = log
        self._every = every
        self._level = level
        self._seen = 0

    def __call__(self, event: str, **fields: object) -> None:
        seen = self._seen
        self._seen = seen + 1
        if seen % self._every == 0:
            # Looked up here: a method of a structlog logger that is taken at import knows nothing of later settings.
            getattr(self._log, self._level)(event, sampled_one_in=self._every, seen=seen + 1, **fields)


def sampled(log: Any, *, every: int, level: Literal["debug", "info", "warning", "error"] = "info") -> Sampled:
    """A cheap log call for a path that every mail takes: the first is written, then one in `every`.

    Each written line tells the rate (`sampled_one_in`) and how many calls there were (`seen`). `log` is a logger, which
    may be made at import: `refused = sampled(structlog.get_logger(), every=100)`, then `refused("mail_refused", ...)`.
    """
    return Sampled(log, every, level)


def _context_of(traceparent: str) -> "SpanContext | None":
    text = valid_traceparent(traceparent) if traceparent else ""
    if not text:
        return None
    from opentelemetry.trace import SpanContext, TraceFlags

    _, trace_id, span_id, flags = text.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _within(context: "SpanContext") -> Any:
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context

    return set_span_in_context(NonRecordingSpan(context))


def _format(context: "SpanContext") -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
