"""What probes and scrapers are told."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from sternpost_runtime import health as module
from sternpost_runtime.health import Health


@pytest.fixture
async def health() -> AsyncIterator[Health]:
    served = Health()
    await served.serve("127.0.0.1", 0)
    yield served
    await served.close()


async def get(served: Health, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{served.port}{path}", headers=headers)


async def ask_raw(served: Health, octets: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(octets)
    answer = await reader.read()
    writer.close()
    return answer


async def test_live_depends_on_no_check(health: Health) -> None:
    health.add("bus", lambda: False)
    assert (await get(health, "/healthz/live")).status_code == 200


async def test_ready_when_every_check_holds(health: Health) -> None:
    health.add("bus", lambda: True)
    answer = await get(health, "/healthz/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


async def test_not_ready_names_what_fails_and_follows_the_checks(health: Health) -> None:
    connected = False
    health.add("bus", lambda: connected)
    health.add("configuration", lambda: True)
    answer = await get(health, "/healthz/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "not ready", "failing": ["bus"]})
    connected = True
    assert (await get(health, "/healthz/ready")).status_code == 200


async def test_a_check_that_raises_does_not_hold(health: Health) -> None:
    def broken() -> bool:
        raise RuntimeError("no")

    health.add("broken", broken)
    answer = await get(health, "/healthz/ready")
    assert answer.status_code == 503
    assert answer.json()["failing"] == ["broken"]


def test_two_checks_of_one_name_are_refused() -> None:
    health = Health()
    health.add("bus", lambda: True)
    with pytest.raises(ValueError, match="'bus' exists already"):
        health.add("bus", lambda: True)


async def test_metrics_show_the_process(health: Health) -> None:
    answer = await get(health, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "process_resident_memory_bytes" in answer.text


async def test_metrics_come_from_the_given_registry_in_the_wanted_form() -> None:
    registry = CollectorRegistry()
    Counter("mails", "Mails.", registry=registry).inc(3)
    served = Health(registry)
    await served.serve("127.0.0.1", 0)
    try:
        answer = await get(served, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    finally:
        await served.close()
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert "mails_total 3.0" in answer.text


async def test_other_paths_say_what_there_is(health: Health) -> None:
    answer = await get(health, "/")
    assert answer.status_code == 404
    assert "/healthz/ready" in answer.json()["error"]


async def test_head_has_the_headers_and_no_body(health: Health) -> None:
    answer = await ask_raw(health, b"HEAD /healthz/live HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 17" in head
    assert body == b""


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (b"POST /healthz/live HTTP/1.1\r\n\r\n", 405),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /healthz/live SMTP/1.1\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"\xff\xfe\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_of_ours_is_refused(health: Health, octets: bytes, status: int) -> None:
    answer = await ask_raw(health, octets)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


async def test_a_connection_that_never_asks_is_closed(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUEST_SECONDS", 0.05)
    assert await ask_raw(health, b"GET /healthz/live HTT") == b""


async def test_more_connections_than_the_limit_are_closed_at_once(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
    _, first = await asyncio.open_connection("127.0.0.1", health.port)
    refused, second = await asyncio.open_connection("127.0.0.1", health.port)
    assert await refused.read() == b""
    first.close()
    second.close()


async def test_a_closed_server_answers_nobody() -> None:
    served = Health()
    await served.serve("127.0.0.1", 0)
    port = served.port
    await served.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    with pytest.raises(RuntimeError):
        _ = served.port
