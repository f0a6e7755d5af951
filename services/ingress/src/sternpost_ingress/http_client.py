"""Who is asking, how often, and what they sent: API keys, rates and bodies of HTTP requests, each within its bound."""

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cachetools import LRUCache
from fastapi import Request
from starlette.requests import ClientDisconnect

from sternpost_ingress.accept import Client
from sternpost_ingress.http_settings import HttpSettings
from sternpost_ingress.problems import Problem
from sternpost_mail.envelope import Door
from sternpost_mail.identity import Verdict, VerifyReply

Identify = Callable[[str, str, str], Awaitable[VerifyReply]]
"""`identify(login, secret, client address)`; an API key comes with an empty login."""


class Rates:
    """Token buckets by client, as many as the limit says; the longest unseen is forgotten (and starts full again)."""

    def __init__(self, per_second: float, burst: int, entries: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._known: LRUCache[str, tuple[float, float]] = LRUCache(entries)

    def take(self, client: str) -> float:
        """Seconds to wait before the client may come again; 0 lets it in."""
        now = self._clock()
        tokens, at = self._known.get(client, (float(self._burst), now))
        tokens = min(tokens + (now - at) * self._per_second, self._burst)
        if tokens < 1:
            self._known[client] = (tokens, now)
            return (1 - tokens) / self._per_second
        self._known[client] = (tokens - 1, now)
        return 0.0


class Gate:
    """Lets in whoever has a valid API key and comes at a bearable rate."""

    def __init__(
        self, identify: Identify, settings: HttpSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._identify = identify
        self._rates = Rates(settings.requests_per_second, settings.request_burst, settings.max_tracked_clients, clock)

    async def admit(self, request: Request) -> Client:
        """The client of a request; its identity is set. Raises Problem (401, 429, 503)."""
        address = _address(request)
        secret = _bearer(request)
        reply = await self._identify("", secret, address) if secret else VerifyReply(Verdict.DENIED)
        if reply.verdict is Verdict.UNAVAILABLE:
            raise Problem("auth-unavailable", "The key cannot be verified now; try again.")
        identity = reply.identity
        who = f"{identity.tenant}/{identity.name}" if identity else f"@{address}"
        if wait := self._rates.take(who):
            raise Problem("rate-limited", "Too many requests in a short time.", retry_after=int(wait) + 1)
        if identity is None:
            detail = "The API key is not valid." if secret else "Send `Authorization: Bearer <API key>`."
            raise Problem("unauthenticated", detail, headers={"WWW-Authenticate": 'Bearer realm="sternpost"'})
        return Client(Door.HTTP, address, identity, request.url.scheme == "https", "")


def _address(request: Request) -> str:
    try:
        return str(ipaddress.ip_address(request.client.host)) if request.client else ""
    except ValueError:
        return ""  # a Unix socket has none


def _bearer(request: Request) -> str:
    given = request.headers.getlist("authorization")
    if len(given) != 1:
        return ""
    scheme, _, secret = given[0].partition(" ")
    secret = secret.strip()
    return secret if scheme.lower() == "bearer" and secret.isascii() and secret.isprintable() else ""


class Bodies:
    """Reads request bodies as they arrive, and bounds each of them and all together (promise P8)."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self.held = 0
        """Octets of bodies that are held now."""

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The whole body, held while the context lasts. Raises Problem (400, 408, 413, 415, 503)."""
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem("unsupported-media-type", "A compressed body is not taken.")
        limit = self._settings.max_body_octets
        announced = request.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > limit:
            raise _too_large(limit)
        mine = 0
        chunks: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(self._settings.body_seconds):
                    async for chunk in request.stream():
                        mine += len(chunk)
                        self.held += len(chunk)
                        if mine > limit:
                            raise _too_large(limit)
                        if self.held > self._settings.max_in_flight_octets:
                            raise Problem("overloaded", "Too many large requests at once; try again.")
                        chunks.append(chunk)
            except TimeoutError:
                raise Problem("body-timeout", "The body did not arrive in time.") from None
            except ClientDisconnect:
                raise Problem("invalid-request", "The body was not sent to its end.") from None
            yield b"".join(chunks) if len(chunks) != 1 else chunks[0]
        finally:
            self.held -= mine


def _too_large(limit: int) -> Problem:
    return Problem("too-large", f"The body is larger than {limit} octets.", headers={"Connection": "close"})
