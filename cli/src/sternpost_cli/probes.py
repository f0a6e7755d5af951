"""Looks once whether something answers: an HTTP page with 200, or the broker's greeting. Never raises."""

import asyncio
import contextlib
import json

PROBE_SECONDS = 2.0
"""How long one look may take; loopback answers in a millisecond."""
MAX_GREETING_OCTETS = 64 * 1024
"""The broker's greeting is a few hundred octets of JSON."""


async def http_ok(host: str, port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    line = await _first_line(host, port, request.encode("ascii"))
    return line.split(b" ")[1:2] == [b"200"]


async def broker_ok(host: str, port: int) -> bool:
    """Whether a nats-server with JetStream greets."""
    line = await _first_line(host, port, b"")
    if not line.startswith(b"INFO "):
        return False
    with contextlib.suppress(ValueError):
        return bool(json.loads(line[5:]).get("jetstream"))
    return False


async def _first_line(host: str, port: int, request: bytes) -> bytes:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, limit=MAX_GREETING_OCTETS)
            try:
                writer.write(request)
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, ValueError, TimeoutError):
        return b""
