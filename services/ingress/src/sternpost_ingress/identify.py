"""Who is this? Asks the auth service over the bus, and believes a granted login for some seconds.

The cache is keyed by an HMAC of the login under a key that this process made and keeps to itself, so that neither a
dump of the cache nor its timing tells a secret. Only granted logins are kept: a denied one is asked again, and the auth
service decides how often. When auth cannot be reached the answer is UNAVAILABLE, never GRANTED.
"""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import Protocol

import structlog
from cachetools import TTLCache

from sternpost_ingress.telemetry import auth_answered, auth_cache_asked
from sternpost_mail.identity import Verdict, VerifyReply, VerifyRequest
from sternpost_runtime.bus import BusError
from sternpost_runtime.codec import CodecError, decode_verify_reply, encode_verify_request
from sternpost_runtime.subjects import AUTH_VERIFY

log = structlog.get_logger()

UNAVAILABLE = VerifyReply(Verdict.UNAVAILABLE)
MAX_LOGIN_OCTETS = 1024
"""Octets of a user name; longer ones are denied unasked."""
MAX_SECRET_OCTETS = 8 * 1024
"""Octets of a secret: a ServiceAccount token is about 1.5 KiB, hashing megabytes is a way to keep auth busy."""


class Asks(Protocol):
    """The part of the bus that is needed here."""

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> bytes:
        """The answer to a request; raises BusError."""


class Identify:
    """Verifies logins. Calling it is asking: `await identify(login, secret, client)`."""

    def __init__(
        self,
        bus: Asks,
        *,
        timeout: float,
        cache_seconds: float,
        cache_entries: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._timeout = timeout
        self._key = secrets.token_bytes(32)
        self._granted: TTLCache[bytes, VerifyReply] = TTLCache(cache_entries, cache_seconds, timer=clock)
        self._asked: dict[bytes, asyncio.Task[VerifyReply]] = {}

    async def __call__(self, login: str, secret: str, client: str) -> VerifyReply:
        """The verdict on a login (SMTP user and password, or an empty login and an API key) from a client's address."""
        if len(login.encode()) > MAX_LOGIN_OCTETS or len(secret.encode()) > MAX_SECRET_OCTETS:
            auth_answered(Verdict.DENIED)
            return VerifyReply(Verdict.DENIED)
        key = self._key_of(login, secret)
        known = self._granted.get(key)
        auth_cache_asked(known is not None)
        if known is None:
            # Sessions that open together with one login ask once; the first may hang up, so the question is shielded.
            task = self._asked.get(key)
            if task is None:
                task = self._asked[key] = asyncio.ensure_future(self._ask(login, secret, client))
                task.add_done_callback(lambda _: self._asked.pop(key, None))
            known = await asyncio.shield(task)
            if known.verdict is Verdict.GRANTED:
                self._granted[key] = known
        auth_answered(known.verdict)
        return known

    def forget(self) -> None:
        """Believe nobody any longer: the configuration changed, and a credential may be gone."""
        self._granted.clear()

    def _key_of(self, login: str, secret: str) -> bytes:
        name = login.encode()
        return hmac.digest(self._key, len(name).to_bytes(2, "big") + name + secret.encode(), hashlib.sha256)

    async def _ask(self, login: str, secret: str, client: str) -> VerifyReply:
        try:
            answer = await self._bus.request(
                AUTH_VERIFY, encode_verify_request(VerifyRequest(login, secret, client)), timeout=self._timeout
            )
            reply = decode_verify_reply(answer)
        except (BusError, CodecError) as error:
            log.warning("auth_unavailable", error=str(error))
            return UNAVAILABLE
        if (reply.verdict is Verdict.GRANTED) != (reply.identity is not None):
            log.error("auth_reply_contradicts_itself", verdict=reply.verdict)
            return UNAVAILABLE
        return reply
