"""The sink's SMTP side on aiosmtpd: takes every message, or fails as ordered. It relays nothing."""

import asyncio
import itertools
import ssl
import time
from collections.abc import Iterator

from aiosmtpd.smtp import SMTP
from aiosmtpd.smtp import Envelope as SmtpEnvelope
from aiosmtpd.smtp import Session as SmtpSession

from sternpost_cli.sink.faults import Action, Fault, Faults, Stage
from sternpost_cli.sink.store import Envelope, Store, split_options

MAX_MESSAGE_OCTETS = 64 * 1024 * 1024
"""Largest message taken, announced as SIZE."""
MAX_LINE_OCTETS = 1024 * 1024
"""Longest line taken: far above RFC 5321's 1,000, because what arrives is to be seen as it is."""
IDLE_SECONDS = 300.0
"""A session that says nothing this long is closed; it also ends a fault that hangs."""

_DSN_OPTIONS = ("RET=", "ENVID=", "NOTIFY=", "ORCPT=")


class SinkSession(SMTP):
    """One connection: aiosmtpd with PIPELINING and DSN, parameters kept as written, `faults` asked at each stage."""

    line_length_limit = MAX_LINE_OCTETS
    command_size_limit = 4096

    def __init__(
        self,
        store: Store,
        faults: Faults,
        numbers: Iterator[int],
        *,
        hostname: str,
        tls_context: ssl.SSLContext | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            _Handler(),
            hostname=hostname,
            ident="ESMTP Sternpost sink",
            data_size_limit=MAX_MESSAGE_OCTETS,
            enable_SMTPUTF8=True,
            tls_context=tls_context,
            timeout=IDLE_SECONDS,
            loop=loop,
        )
        self.store = store
        self.faults = faults
        self.number = next(numbers)
        self.mail_options: tuple[str, ...] = ()
        self.rcpt_options: list[tuple[str, ...]] = []
        self.offered: tuple[str, ...] = ()

    async def _handle_client(self) -> None:
        if fault := self.faults.take(Stage.CONNECT):
            await self.push(await self.strike(fault))
            self._close()
            return
        await super()._handle_client()

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 - aiosmtpd finds verbs by this name
        """MAIL FROM: DSN parameters are recorded here, because aiosmtpd refuses them."""
        plain, self.offered = _without_dsn(arg)
        await super().smtp_MAIL(plain)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - as above
        """RCPT TO, likewise."""
        plain, self.offered = _without_dsn(arg)
        await super().smtp_RCPT(plain)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - as above
        """DATA: a fault at this stage comes before the 354."""
        if self.envelope and self.envelope.rcpt_tos and (fault := self.fault_for(Stage.DATA, self.envelope.rcpt_tos)):
            await self.push(await self.strike(fault))
            return
        await super().smtp_DATA(arg)

    def fault_for(self, stage: Stage, recipients: list[str]) -> Fault | None:
        """The fault that strikes these recipients of the current mail."""
        sender = self.envelope.mail_from if self.envelope else None
        return self.faults.take(stage, "" if sender in (None, "<>") else str(sender), tuple(recipients))

    def tls_version(self) -> str:
        """Such as TLSv1.3, empty on a plain connection."""
        tls = self.transport.get_extra_info("ssl_object") if self.transport else None
        return (tls.version() or "") if tls else ""

    def _close(self) -> None:
        if self.transport:
            self.transport.close()

    async def strike(self, fault: Fault) -> str:
        """The reply of a fault, after its delay. One that closes or hangs ends with the connection (a cancellation)."""
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.action is Action.CLOSE:
            self._close()
        if fault.action is not Action.REPLY:
            await asyncio.Event().wait()
        return fault.reply


class _Handler:
    """aiosmtpd's hooks; what they share is on the session's own object."""

    async def handle_EHLO(  # noqa: N802 - aiosmtpd finds hooks by this name
        self, server: SinkSession, session: SmtpSession, envelope: SmtpEnvelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", "250-DSN", responses[-1]]

    async def handle_MAIL(  # noqa: N802 - as above
        self, server: SinkSession, session: SmtpSession, envelope: SmtpEnvelope, address: str, options: list[str]
    ) -> str:
        sender = "" if address == "<>" else address
        if fault := server.faults.take(Stage.MAIL, sender):
            reply = await server.strike(fault)
            if fault.code >= 300:
                return reply
        envelope.mail_from = address or "<>"
        server.mail_options, server.rcpt_options = server.offered, []
        return "250 2.1.0 Ok"

    async def handle_RCPT(  # noqa: N802 - as above
        self, server: SinkSession, session: SmtpSession, envelope: SmtpEnvelope, address: str, options: list[str]
    ) -> str:
        if fault := server.fault_for(Stage.RCPT, [address]):
            reply = await server.strike(fault)
            if fault.code >= 300:
                return reply
        envelope.rcpt_tos.append(address)
        server.rcpt_options.append(server.offered)
        return "250 2.1.5 Ok"

    async def handle_DATA(  # noqa: N802 - as above
        self, server: SinkSession, session: SmtpSession, envelope: SmtpEnvelope
    ) -> str:
        fault = server.fault_for(Stage.DOT, envelope.rcpt_tos)
        if fault and not fault.keep and (fault.action is not Action.REPLY or fault.code >= 300):
            return await server.strike(fault)
        received = server.store.add(
            Envelope(
                sender="" if envelope.mail_from == "<>" else str(envelope.mail_from),
                recipients=tuple(envelope.rcpt_tos),
                mail_options=server.mail_options,
                rcpt_options=tuple(server.rcpt_options),
                peer=":".join(str(part) for part in (session.peer or ())[:2]),
                helo=str(session.host_name or ""),
                session=server.number,
                tls=server.tls_version(),
                received_ms=time.time_ns() // 1_000_000,
            ),
            bytes(envelope.original_content or b""),
        )
        if fault:
            return await server.strike(fault)
        return f"250 2.0.0 Ok: kept as {received.number}"


def _without_dsn(argument: str | None) -> tuple[str | None, tuple[str, ...]]:
    """What aiosmtpd understands, and all parameters as they were written."""
    if argument is None:
        return None, ()
    address, options = split_options(argument)
    known = [option for option in options if not option.upper().startswith(_DSN_OPTIONS)]
    return " ".join([address, *known]), options


async def serve_smtp(
    store: Store, faults: Faults, host: str, port: int, *, hostname: str, tls_context: ssl.SSLContext | None = None
) -> asyncio.Server:
    """Listen. Raises OSError when the port cannot be had."""
    loop = asyncio.get_running_loop()
    numbers = itertools.count(1)
    return await loop.create_server(
        lambda: SinkSession(store, faults, numbers, hostname=hostname, tls_context=tls_context, loop=loop),
        host,
        port,
        backlog=1024,
    )
