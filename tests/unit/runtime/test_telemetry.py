"""Tracing that is free when off, trace contexts that can be trusted, logs that are sampled."""

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sternpost_runtime import telemetry
from sternpost_runtime.settings import ServiceSettings
from sternpost_runtime.telemetry import sampled, valid_traceparent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

TRACEPARENTS = [
    (PARENT, PARENT, "valid"),
    (PARENT[:-2] + "00", PARENT[:-2] + "00", "valid, not sampled"),
    ("cc" + PARENT[2:] + "-more", PARENT, "a later version is read as 00"),
    (PARENT + "-more", "", "version 00 has nothing after the flags"),
    ("ff" + PARENT[2:], "", "version ff is forbidden"),
    ("00-" + "0" * 32 + "-b7ad6b7169203331-01", "", "a trace id of zeros"),
    ("00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01", "", "a span id of zeros"),
    (PARENT.upper(), "", "capital letters"),
    (PARENT[:-1], "", "too short"),
    (PARENT + "\r\nX: y", "", "header injection"),
    (PARENT + "\n", "", "a line feed at the end"),
    ("", "", "nothing"),
]


class Collector:
    """An OTLP/HTTP collector that keeps what it gets."""

    def __init__(self) -> None:
        spans: list[Any] = []
        arrived = Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    names = {a.key: a.value.string_value for a in resource.resource.attributes}
                    for scope in resource.scope_spans:
                        spans.extend((names["service.name"], span) for span in scope.spans)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                arrived.set()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.spans, self.arrived = spans, arrived
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    found = Collector()
    telemetry.setup_tracing("example", ServiceSettings(otlp_endpoint=found.url))
    yield found
    telemetry.shutdown_tracing()
    found.server.shutdown()
    found.server.server_close()


@pytest.mark.parametrize(("text", "read", "why"), TRACEPARENTS)
def test_a_clients_traceparent_is_checked(text: str, read: str, why: str) -> None:
    assert valid_traceparent(text) == read, why


def test_with_tracing_off_nothing_is_made_and_a_valid_context_is_passed_on() -> None:
    telemetry.setup_tracing("example", ServiceSettings(otlp_endpoint=""))
    assert not telemetry.tracing_enabled()
    assert telemetry.new_traceparent() == ""
    assert telemetry.new_traceparent("rubbish") == ""
    assert telemetry.new_traceparent(PARENT) == PARENT
    assert telemetry.link_from(PARENT) is None
    assert telemetry.inject() == ""
    with telemetry.span("send", links=[None]) as span:
        assert span is None


def test_with_tracing_off_opentelemetry_is_not_even_imported() -> None:
    code = (
        "import sys\n"
        "from sternpost_runtime import telemetry\n"
        "with telemetry.span('x', links=[telemetry.link_from('" + PARENT + "')]): telemetry.new_traceparent()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_door_continues_the_clients_trace_and_an_attempt_links_to_the_door(collector: Collector) -> None:
    traceparent = telemetry.new_traceparent(PARENT)
    assert traceparent.split("-")[1] == PARENT.split("-")[1]
    assert traceparent != PARENT
    link = telemetry.link_from(traceparent)
    with telemetry.span(
        "send mx.example.com",
        kind="client",
        links=[link, None],
        attributes={telemetry.MESSAGING_OPERATION_TYPE: "send"},
    ) as span:
        assert span is not None
        assert telemetry.inject().split("-")[1] != traceparent.split("-")[1], "an attempt is a trace of its own"
    telemetry.shutdown_tracing()
    assert collector.arrived.wait(10)
    (door_service, door), (_, attempt) = sorted(collector.spans, key=lambda item: str(item[1].name))
    assert (door_service, door.name, attempt.name) == ("sternpost-example", "create mail", "send mx.example.com")
    assert door.parent_span_id.hex() == PARENT.split("-")[2]
    assert [(found.trace_id.hex(), found.span_id.hex()) for found in attempt.links] == [
        (door.trace_id.hex(), door.span_id.hex())
    ]
    assert traceparent == f"00-{door.trace_id.hex()}-{door.span_id.hex()}-01"


def test_without_a_parent_a_door_starts_a_trace(collector: Collector) -> None:
    made = telemetry.new_traceparent()
    assert valid_traceparent(made) == made != ""
    assert made.split("-")[1] != telemetry.new_traceparent("rubbish").split("-")[1]
    assert telemetry.inject() == "", "no span stays current"
    assert telemetry.link_from("rubbish") is None


def test_an_exception_marks_the_span_and_goes_on(collector: Collector) -> None:
    with pytest.raises(ValueError, match="broken"), telemetry.span("project"):
        raise ValueError("broken")
    telemetry.shutdown_tracing()
    assert collector.arrived.wait(10)
    ((_, span),) = collector.spans
    assert span.status.code == 2
    assert span.events[0].name == "exception"


class Log:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.written: list[tuple[str, dict[str, object]]] = []

    def warning(self, event: str, **fields: object) -> None:
        self.written.append((event, fields))


def test_a_sampled_log_writes_the_first_and_then_one_in_every() -> None:
    log = Log()
    refused = sampled(log, every=3, level="warning")
    for number in range(7):
        refused("mail_refused", number=number)
    assert [fields["number"] for _, fields in log.written] == [0, 3, 6]
    assert log.written[1] == ("mail_refused", {"number": 3, "seen": 4, "sampled_one_in": 3})


def test_a_sampled_log_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        sampled(Log(), every=0, level="warning")


def test_a_method_instead_of_a_logger_is_refused_with_the_fix() -> None:
    with pytest.raises(TypeError, match="not the method"):
        sampled(Log().warning, every=100)
