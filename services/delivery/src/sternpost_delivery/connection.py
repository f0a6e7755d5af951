"""One connection: octets out, replies in, deadlines. It knows no SMTP verb and decides nothing.

A plain asyncio.Protocol: one future per wait, one timer per connection that is moved lazily, no stream objects. That,
with whole groups of commands in one write, is what keeps a delivered mail within its budget of CPU.
"""

import asyncio
import os
import ssl
from collections.abc import Sequence
from typing import cast

from sternpost_delivery.replies import ReplyError, ReplyReader
from sternpost_mail.reply import Reply

TIMER_SLACK = 1.0
"""Seconds by which a deadline may be late: it saves moving the timer on every wait."""
CLOSING_CODE = 421


class ConnectionFailed(Exception):
    """The connection is of no more use. `reason` is fit for a timeline; `reply` is the 421 that said so."""

    def __init__(self, reason: str, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply


class TlsFailed(ConnectionFailed):
    """The TLS handshake failed; the connection is closed."""


class Connection(asyncio.Protocol):
    """One TCP or TLS connection to an SMTP server."""

    __slots__ = (
        "_deadline",
        "_drained",
        "_expected",
        "_failure",
        "_goodbye",
        "_loop",
        "_patience",
        "_paused",
        "_reader",
        "_replies",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiter",
        "_wanted",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._reader = ReplyReader()
        self._replies: list[Reply] = []
        self._expected = 1  # the greeting
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = False
        self._failure = ""
        self._goodbye: Reply | None = None
        self._patience = 0.0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # -- what the owner calls

    @property
    def is_usable(self) -> bool:
        """Whether it is open and the server has not said goodbye."""
        return not self._failure and self._goodbye is None and self._transport is not None

    @property
    def has_early_reply(self) -> bool:
        """Whether the server answered, or hung up, before it was asked: content should stop flowing."""
        return bool(self._replies) or bool(self._failure)

    @property
    def last_lines(self) -> list[str]:
        """The lines of the latest reply that had several, unshortened."""
        return self._reader.last_lines

    def send(self, parts: Sequence[bytes], replies: int) -> None:
        """Write, and expect so many replies for it. Writing on a dead connection is silent: the wait will tell."""
        self._expected += replies
        if self._transport is not None and not self._failure:
            self._transport.writelines(parts)

    async def replies(self, count: int, patience: float, what: str) -> list[Reply]:
        """The next `count` replies; each may take `patience` seconds. `what` names the command in a failure's text.

        A 421 is returned like any reply when it completes the count. Raises ConnectionFailed when fewer will come.
        """
        if len(self._replies) < count and not self._failure and self._goodbye is None:
            self._wanted = count
            self._patience = patience
            self._set_deadline(patience)
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if len(self._replies) < count:
            reason = self._failure or f"the server said goodbye: {self._goodbye}"
            raise ConnectionFailed(f"{reason} (waiting for the reply to {what})", self._goodbye)
        taken = self._replies[:count]
        del self._replies[:count]
        self._expected -= count
        return taken

    async def drained(self, patience: float) -> None:
        """Until what was written has left, all but a small rest. Raises ConnectionFailed."""
        if self._paused and not self._failure:
            self._patience = patience
            self._set_deadline(patience)
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None
        if self._failure:
            raise ConnectionFailed(f"{self._failure} (while sending)", self._goodbye)

    async def start_tls(self, context: ssl.SSLContext, server_name: str, timeout: float) -> ssl.SSLObject:
        """Shake hands. Raises TlsFailed; also where the server sent anything after its reply to STARTTLS.

        Octets that came in clear before the handshake are an attacker's (CVE-2011-0411 and its kin), never to be read
        as if they had come through TLS.
        """
        transport = self._transport
        if transport is None or self._failure:
            raise TlsFailed(self._failure or "connection is closed", self._goodbye)
        if self._replies or not self._reader.is_empty:
            self.abort()
            raise TlsFailed("the server sent clear text after its reply to STARTTLS: response injection")
        try:
            secured = await self._loop.start_tls(
                transport, self, context, server_hostname=server_name, ssl_handshake_timeout=timeout
            )
        except (OSError, TimeoutError, ValueError) as error:
            self.abort()
            raise TlsFailed(tls_reason(error)) from error
        if secured is None or self._failure:
            self.abort()
            raise TlsFailed(self._failure or "the server hung up during the TLS handshake")
        self._transport = secured
        return cast(ssl.SSLObject, secured.get_extra_info("ssl_object"))

    @property
    def tls_object(self) -> ssl.SSLObject | None:
        """The TLS state of an implicit TLS connection."""
        return self._transport.get_extra_info("ssl_object") if self._transport else None

    def close(self) -> None:
        """Close once what was written has left."""
        self._failure = self._failure or "connection is closed"
        self._stop_timer()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once: nothing that is still in our buffer leaves."""
        self._failure = self._failure or "connection is closed"
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    # -- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        try:
            found = self._reader.feed(data)
        except ReplyError as error:
            self._fail(str(error))
            return
        if not found:
            return
        replies = self._replies
        replies += found
        for reply in found:
            if reply.code == CLOSING_CODE:
                self._goodbye = reply
        if len(replies) > self._expected:
            # an answer too many must never be taken for the answer to what is sent next
            del replies[self._expected :]
            if self._goodbye is None:
                self._fail("the server sent a reply to no command")
                return
        if self._drained is not None:
            self._wake(self._drained)
        if self._waiter is not None:
            if len(replies) >= self._wanted or self._goodbye is not None or self._failure:
                self._wake(self._waiter)
            else:
                self._set_deadline(self._patience)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        if exc is None:
            self._fail("the server closed the connection")
        else:
            self._fail(f"connection lost: {os_reason(exc)}")

    def pause_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self._paused = True

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self._paused = False
        if self._drained is not None:
            self._wake(self._drained)

    # -- inside

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()
        for waiter in (self._waiter, self._drained):
            if waiter is not None:
                self._wake(waiter)

    @staticmethod
    def _wake(waiter: asyncio.Future[None]) -> None:
        if not waiter.done():
            waiter.set_result(None)

    def _set_deadline(self, patience: float) -> None:
        self._deadline = self._loop.time() + patience
        if self._timer is None or self._timer_at > self._deadline + TIMER_SLACK:
            self._stop_timer()
            self._timer_at = self._deadline
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._waiter is None and self._drained is None:
            return
        if self._loop.time() >= self._deadline - 0.001:
            self._fail(f"no answer within {self._patience:g} s")
        else:
            self._timer_at = self._deadline
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def os_reason(error: BaseException) -> str:
    """A short text for an operating system error, without addresses or Python's decoration."""
    if isinstance(error, ssl.SSLError):
        return tls_reason(error)
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__


def tls_reason(error: BaseException) -> str:
    """A short text for a failed TLS handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {(error.reason or 'unknown error').lower().replace('_', ' ')}"
    if isinstance(error, TimeoutError):
        return "TLS handshake timed out"
    return f"TLS handshake failed: {os_reason(error)}"
