"""The SMTP doors: sockets, clocks and TLS around the engine, and the way of a complete mail into the spool.

The engine speaks SMTP, `accept` decides who may, `spool` makes durable; this file carries between them and watches the
time. AUTH is led by aiosmtpd's coroutines (`smtp_auth`), PROXY headers are parsed by it (`smtp_proxy`).
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import structlog

from sternpost_ingress import telemetry
from sternpost_ingress.accept import (
    Client,
    Refusal,
    check_content,
    check_recipient,
    check_sender,
    make_mail,
    refuse_header,
)
from sternpost_ingress.engine import Engine
from sternpost_ingress.engine_types import (
    Authenticate,
    AuthLine,
    Budget,
    EngineLimits,
    Settle,
    StartTls,
    State,
    Traits,
)
from sternpost_ingress.settings import Settings
from sternpost_ingress.smtp_auth import AuthExchange, Login
from sternpost_ingress.smtp_limits import ClientLimits
from sternpost_ingress.smtp_tls import Certificates
from sternpost_ingress.spool import SpoolRefused, Why
from sternpost_mail.address import Address
from sternpost_mail.config import Config
from sternpost_mail.envelope import Door, Envelope, Mail
from sternpost_mail.headers import HeaderError, HeaderFacts, read_header
from sternpost_mail.identity import Verdict, VerifyReply
from sternpost_mail.ids import RANDOM_OCTETS, make_id
from sternpost_mail.reply import Reply
from sternpost_runtime.bus import OutcomeUnknown
from sternpost_runtime.telemetry import new_traceparent

log = structlog.get_logger()

LINGER_SECONDS = 3.0
"""How long a session that we ended may still talk before its connection is cut: closing at once, with input unread,
would reset the connection and take our last reply from the client."""
LINGER_OCTETS = 256 * 1024
"""Octets thrown away in that time."""

SPOOL_REFUSALS = {
    Why.DOWN: Reply(451, "4.3.0", "The mail cannot be stored now, try again"),
    Why.FENCED: Reply(451, "4.3.0", "The mail cannot be stored now, try again"),
    Why.FULL: Reply(452, "4.3.1", "The mail store is full, try again"),
    Why.OVERLOADED: Reply(452, "4.3.1", "Too much mail waits to be stored, try again"),
}
LOCAL_FAULT = Reply(451, "4.3.0", "A fault of ours, try again")
GRANTED = Reply(235, "2.7.0", "Authentication succeeded")
DENIED = Reply(535, "5.7.8", "Authentication credentials invalid")
AUTH_UNAVAILABLE = Reply(454, "4.7.0", "Temporary authentication failure")
TOO_MANY_MAILS = Reply(450, "4.7.1", "Too many mails from your address in this minute")


class Store(Protocol):
    """Where accepted mail goes (`spool.Spool`)."""

    async def put(self, mail: Mail) -> None:
        """Make it durable, or raise SpoolRefused or OutcomeUnknown."""


@dataclass(slots=True)
class Reception:
    """What all SMTP sessions of a process share."""

    settings: Settings
    spool: Store
    identify: Callable[[str, str, str], Awaitable[VerifyReply]]
    config: Callable[[], Config]
    certificates: Certificates
    clients: ClientLimits
    budget: Budget
    limits: EngineLimits
    leaving: bool = False
    sessions: "set[Session]" = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    empty: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while the process shuts down, when the last session is gone."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a session's work; the task is kept alive until it is done."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class Session(asyncio.Protocol):
    """One connection. It is the engine's `Host`: the policy's answers in the form of replies."""

    def __init__(self, reception: Reception, door: Door, *, address: str = "", counted: bool = False) -> None:
        """`address` is the client's where a PROXY header told it; `counted`: `ClientLimits.enter` was asked already."""
        self._reception = reception
        self._door = door
        self._counted = counted
        self._address = address
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        submits = door is not Door.MX
        hostname = reception.settings.hostname
        self._engine = Engine(Traits(hostname, submits, submits), reception.limits, reception.budget, self)
        self._client: Client | None = None
        self._admitted = False
        self._exchange: AuthExchange | None = None
        self._cold: asyncio.Task[None] | None = None
        self._reading = True
        self._at_eof = False
        self._securing = False
        self._decrypted = b""
        self._dropped = 0
        self._closing_since = 0.0
        self._began = self._progress_at = self._window_at = self._loop.time()
        self._progress = self._window_progress = 0

    # --- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the client in, or turn it away."""
        self._transport = cast(asyncio.Transport, transport)
        if not self._address:
            self._address = plain_address(transport.get_extra_info("peername"))
        reception = self._reception
        reason = ""
        if reception.leaving:
            reason = "leaving"
        elif len(reception.sessions) >= reception.settings.max_sessions:
            reason = "sessions"
        elif not self._counted:
            reason = reception.clients.enter(self._address, self._loop.time())
        if reason:
            telemetry.connection_refused(reason)
            self._turn_away(reason)
            return
        self._admitted = True
        reception.sessions.add(self)
        telemetry.connection_opened(self._door)
        if transport.get_extra_info("ssl_object") is not None:
            self._engine.tls_started()
        else:
            self._engine.tls_offered = reception.certificates.default is not None
        delay = reception.settings.banner_delay_seconds
        if delay:
            self._loop.call_later(delay, self._greet)
        else:
            self._greet()

    def data_received(self, data: bytes) -> None:
        """Feed the engine and carry out what it says."""
        engine = self._engine
        if self._securing:
            self._decrypted += data  # TLS is up already, and `_start_tls` has not heard of it yet
            return
        if engine.state is State.CLOSED:
            self._dropped += len(data)
            if self._dropped > LINGER_OCTETS and self._transport is not None:
                self._transport.abort()
            return
        try:
            engine.receive(data)
        except Exception:
            self._fault("engine")
        self._carry_out()

    def eof_received(self) -> bool:
        """The client has said all it will say; a reply that is due still goes out."""
        self._at_eof = True
        return self._engine.state is State.SETTLING and not self._engine.tls

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up; a mail that is being settled goes on to its end."""
        self._transport = None
        self._engine.lost()
        if self._cold is not None and self._engine.state is State.CLOSED:
            self._cold.cancel()
        if self._counted and not self._admitted:
            self._reception.clients.leave(self._address)
        if self._admitted:
            self._admitted = False
            self._reception.sessions.discard(self)
            if self._reception.leaving and not self._reception.sessions:
                self._reception.empty.set()
            self._reception.clients.leave(self._address)
            telemetry.connection_closed(self._door)

    def pause_writing(self) -> None:
        """The client does not read our replies: do not read its commands."""
        if self._transport is not None and self._reading:
            self._reading = False
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        self._read_on()

    def _read_on(self) -> None:
        if not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def _greet(self) -> None:
        self._engine.greet()
        self._carry_out()

    def _turn_away(self, reason: str) -> None:
        assert self._transport is not None  # noqa: S101 - called from connection_made only
        self._engine.state = State.CLOSED
        text = "Shutting down, try again" if reason == "leaving" else "Too many connections, try again later"
        enhanced = "4.7.0" if reason.startswith("connection") else "4.3.2"
        self._transport.write(f"421 {enhanced} {text}\r\n".encode())
        self._transport.close()

    def _carry_out(self) -> None:
        """Write what the engine says, do what it wants."""
        engine, transport = self._engine, self._transport
        output = engine.take_output()
        if transport is None:
            return
        if output:
            transport.write(output)
        action = engine.take_action()
        if action is not None:
            if type(action) is Settle:
                self._reception.spawn(self._settle(action))
            elif type(action) is StartTls:
                transport.pause_reading()  # nothing may come between our 220 and the handshake
                self._cold = self._reception.spawn(self._start_tls())
            elif type(action) is Authenticate:
                self._cold = self._reception.spawn(self._authenticate(action))
            elif type(action) is AuthLine and self._exchange is not None:
                self._exchange.feed(action.line)
        if engine.state is State.CLOSED:
            self._hang_up(transport)
        elif engine.is_full and self._reading:
            self._reading = False
            transport.pause_reading()

    def _hang_up(self, transport: asyncio.Transport) -> None:
        if self._closing_since or transport.is_closing():
            return
        self._closing_since = self._loop.time()
        if self._engine.ended_well or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()  # and wait for the client to hang up: see LINGER_SECONDS
            self._read_on()

    def _fault(self, where: str) -> None:
        log.exception("smtp_fault", where=where)
        telemetry.fault(where)
        self._engine.cut(421, "4.3.0", "A fault of ours, try again")

    # --- time ---------------------------------------------------------------------------------------------------------

    def check_time(self, now: float) -> None:
        """End the session where it is idle, slow or old. Called about once a second."""
        engine, settings, transport = self._engine, self._reception.settings, self._transport
        if transport is None:
            return
        state = engine.state
        if state is State.CLOSED:
            if now - self._closing_since > LINGER_SECONDS:
                transport.abort()
            return
        if state in (State.SETTLING, State.HANDSHAKE, State.AUTH):
            self._progress_at = self._window_at = now
            return
        reason = ""
        if now - self._began > settings.session_seconds and state not in (State.DATA, State.CHUNK):
            reason = "session-time"
        elif engine.progress != self._progress:
            self._progress, self._progress_at = engine.progress, now
        elif now - self._progress_at > settings.idle_seconds:
            reason = "idle"
        if state in (State.DATA, State.CHUNK):
            window = now - self._window_at
            if window >= settings.data_rate_window_seconds:
                if engine.progress - self._window_progress < settings.min_data_rate * window:
                    reason = "slow"
                self._window_at, self._window_progress = now, engine.progress
        else:
            self._window_at, self._window_progress = now, engine.progress
        if reason:
            telemetry.session_ended(reason)
            engine.cut(421, "4.4.2", _TIME_TEXTS[reason])
            self._carry_out()

    def leave(self) -> None:
        """The process shuts down."""
        self._engine.leave()
        self._carry_out()

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self._transport is not None:
            self._transport.abort()

    # --- the engine's host --------------------------------------------------------------------------------------------

    def check_sender(self, sender: Address | None) -> Reply | None:
        """See `Host`."""
        engine = self._engine
        if not self._reception.clients.take_mail(self._address, self._loop.time()):
            return TOO_MANY_MAILS
        self._client = Client(self._door, self._address, engine.identity, engine.tls, engine.helo, engine.esmtp)
        return self._guarded(lambda client, config: check_sender(client, sender, config))

    def check_recipient(self, sender: Address | None, recipient: Address) -> Reply | None:
        """See `Host`."""
        return self._guarded(lambda client, config: check_recipient(client, sender, recipient, config))

    def check_content(self, sender: Address | None, envelope: Envelope, content: bytes) -> Reply | HeaderFacts:
        """See `Host`."""
        try:
            header = read_header(content)
        except HeaderError as error:
            return _reply(refuse_header(error))
        except Exception:
            return self._policy_fault()
        return self._guarded(lambda client, config: check_content(client, sender, header, config, envelope)) or header

    def refused(self, reply: Reply) -> None:
        """See `Host`."""
        telemetry.mail_refused(self._door, reply.code, reply.enhanced)

    def _guarded(self, decide: Callable[[Client, Config], Refusal | None]) -> Reply | None:
        assert self._client is not None  # noqa: S101 - the engine asks for the sender first
        try:
            refusal = decide(self._client, self._reception.config())
        except Exception:
            return self._policy_fault()
        return _reply(refusal) if refusal is not None else None

    def _policy_fault(self) -> Reply:
        log.exception("smtp_fault", where="policy")
        telemetry.fault("policy")
        return LOCAL_FAULT

    # --- what takes time ----------------------------------------------------------------------------------------------

    async def _settle(self, action: Settle) -> None:
        began = self._loop.time()
        reply: Reply | None = None
        reception = self._reception
        try:
            now_ms = time.time_ns() // 1_000_000
            mail = make_mail(
                cast(Client, self._client),
                action.envelope,
                action.content,
                action.header,
                reception.config(),
                mail_id=make_id(now_ms, os.urandom(RANDOM_OCTETS)),
                now_ms=now_ms,
                hostname=reception.settings.hostname,
                traceparent=new_traceparent(),
            )
        except Exception:
            log.exception("smtp_fault", where="make_mail")
            telemetry.fault("make_mail")
            self._settled(LOCAL_FAULT)
            return
        try:
            await reception.spool.put(mail)
            reply = Reply(250, "2.0.0", f"Accepted as {mail.id}")
            telemetry.mail_accepted(self._door, len(action.content), self._loop.time() - began)
        except SpoolRefused as refused:
            reply = SPOOL_REFUSALS[refused.reason]
        except OutcomeUnknown:
            telemetry.outcome_unknown(self._door)
        except Exception:
            # What raised this may have come after the mail was stored: nobody can tell, so nothing is said (P3).
            log.exception("smtp_fault", where="spool")
            telemetry.fault("spool")
        self._settled(reply)

    def _settled(self, reply: Reply | None) -> None:
        engine = self._engine
        if reply is None:
            engine.abandon()
            self.abort()
            return
        try:
            engine.settled(reply)
        except Exception:
            self._fault("engine")
        self._carry_out()
        if self._at_eof and engine.state is not State.SETTLING and self._transport is not None:
            self._transport.close()
        elif not engine.is_full:
            self._read_on()

    async def _start_tls(self) -> None:
        context = self._reception.certificates.default
        transport = self._transport
        if context is None or transport is None:
            self.abort()
            return
        self._securing = True  # from here on the transport gives clear text to TLS alone
        try:
            secured = await self._loop.start_tls(
                transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=self._reception.settings.tls_handshake_seconds,
            )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError; the connection is closed already
            telemetry.tls_started(False)
            transport.abort()
            return
        telemetry.tls_started(True)
        if secured is None:
            transport.abort()
            return
        self._transport = secured
        self._engine.tls_started()
        self._securing = False
        if self._decrypted:
            data, self._decrypted = self._decrypted, b""
            self.data_received(data)

    async def _authenticate(self, action: Authenticate) -> None:
        exchange = self._exchange = AuthExchange(self._challenge)
        engine = self._engine
        try:
            login = await exchange.run(action.arguments[0], action.arguments)
            if isinstance(login, Login):
                verified = await self._reception.identify(login.name, login.secret, self._address)
                if engine.state is State.CLOSED:
                    return
                if verified.verdict is Verdict.GRANTED and verified.identity is not None:
                    engine.authenticated(verified.identity, GRANTED)
                else:
                    engine.auth_failed(DENIED if verified.verdict is Verdict.DENIED else AUTH_UNAVAILABLE)
            else:
                engine.auth_failed(login)
        except Exception:
            log.exception("smtp_fault", where="auth")
            telemetry.fault("auth")
            engine.auth_failed(AUTH_UNAVAILABLE)
        finally:
            self._exchange = None
        self._carry_out()

    def _challenge(self, text: str) -> None:
        self._engine.challenge(text)
        self._carry_out()


_TIME_TEXTS = {
    "idle": "You were silent for too long",
    "slow": "Your data comes too slowly",
    "session-time": "This session is too old, connect again",
}


def _reply(refusal: Refusal) -> Reply:
    return Reply(refusal.code, refusal.enhanced, refusal.text)


def plain_address(peer: object) -> str:
    """The IP address of a peer name, as IPv4 where it is mapped into IPv6, without a zone; empty where none is."""
    address = str(peer[0]) if isinstance(peer, tuple) and peer else ""
    if address.startswith("::ffff:") and "." in address:
        return address[7:]
    return address.partition("%")[0]
