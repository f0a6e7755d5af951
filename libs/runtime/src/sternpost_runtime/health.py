"""Health and metrics of a process over HTTP: `/healthz/live`, `/healthz/ready` and `/metrics`.

Live says that the event loop turns, and depends on nothing else: a broker that is down must not make Kubernetes kill
pods. Ready says that every named check holds. A small server of its own rather than uvicorn, which wakes ten times a
second when idle and takes the process's signals.

This file knows no service: checks are given to it.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import choose_encoder

MAX_REQUEST_OCTETS = 8192
"""Octets of a request's head; probes and scrapers send a few hundred."""
MAX_CONNECTIONS = 32
"""Connections at once; the next is closed at once. A kubelet and a few scrapers need less than ten."""
REQUEST_SECONDS = 5.0
"""Seconds from connection to the end of the answer: nobody holds a connection for nothing."""

_JSON = "application/json"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}

_log = structlog.get_logger("sternpost.health")


class Health:
    """The checks of a process and the server that tells them. `registry` is what `/metrics` shows."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._checks: dict[str, Callable[[], bool]] = {}
        self._server: asyncio.Server | None = None
        self._connections = 0

    def add(self, name: str, check: Callable[[], bool]) -> None:
        """A condition of readiness. `check` is called on every probe: it must be quick and not block.

        Raises ValueError for a name that is taken.
        """
        if name in self._checks:
            raise ValueError(f"a check named {name!r} exists already")
        self._checks[name] = check

    def failing(self) -> list[str]:
        """The names of the checks that do not hold; one that raises does not hold."""
        names = []
        for name, check in self._checks.items():
            try:
                holds = check()
            except Exception:
                _log.exception("health_check_raised", check=name)
                holds = False
            if not holds:
                names.append(name)
        return names

    async def serve(self, host: str, port: int) -> None:
        """Start answering; returns as soon as the port listens. Raises OSError where the port is taken."""
        self._server = await asyncio.start_server(self._connection, host, port, limit=MAX_REQUEST_OCTETS)

    @property
    def port(self) -> int:
        """The port that listens: of use where 0 asked for any free one. Raises RuntimeError before `serve`."""
        if self._server is None:
            raise RuntimeError("health is not being served")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop listening. Answers under way are not waited for."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                writer.write(self._answer(await _read_head(reader)))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # the client went away, or never asked
        finally:
            self._connections -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: str) -> bytes:
        lines = head.split("\r\n")
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(400, _JSON, b'{"error":"not an HTTP/1.1 request of at most 8192 octets"}')
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return _response(405, _JSON, b'{"error":"only GET and HEAD"}')
        status, kind, body = self._page(target.partition("?")[0], lines[1:])
        return _response(status, kind, body, send_body=method == "GET")

    def _page(self, path: str, headers: list[str]) -> tuple[int, str, bytes]:
        match path:
            case "/healthz/live":
                return 200, _JSON, b'{"status":"live"}'
            case "/healthz/ready":
                failing = self.failing()
                if failing:
                    return 503, _JSON, json.dumps({"status": "not ready", "failing": failing}).encode()
                return 200, _JSON, b'{"status":"ready"}'
            case "/metrics":
                accept = next((line[7:].strip() for line in headers if line.lower().startswith("accept:")), "")
                encode, kind = choose_encoder(accept)
                return 200, kind, encode(self._registry)
        return 404, _JSON, b'{"error":"here are /healthz/live, /healthz/ready and /metrics"}'


async def _read_head(reader: asyncio.StreamReader) -> str:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.LimitOverrunError:
        return ""


def _response(status: int, kind: str, body: bytes, *, send_body: bool = True) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if send_body else b"")
