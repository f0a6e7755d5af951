"""An SMTP client that keeps up: greet, secure, authenticate, transmit mails back to back (RFC 5321, 2920, 3207, 4954).

Our own because no library does what the budget and the promises need. aiosmtplib, the usual choice, was read for it: it
sends one command at a time and waits for each reply (no PIPELINING), and it rewrites line endings, which breaks promise
P5.

It knows commands and their order. What a reply means for a recipient is `classify`'s, which host and how much TLS is
`policy`'s, and when a mail is given up is the session's business.
"""

import asyncio
import base64
import re
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from sternpost_delivery.classify import Stage
from sternpost_delivery.connection import CLOSING_CODE, Connection, ConnectionFailed, TlsFailed, os_reason, tls_reason
from sternpost_delivery.policy import Endpoint, TlsStep, auth_mechanism, needs_verified, tls_step
from sternpost_mail.dispatch import Job
from sternpost_mail.envelope import Notify
from sternpost_mail.reply import Reply

BULK_OCTETS = 256 * 1024
"""Content up to this size is handed to the kernel in one write; longer content flows in blocks of it, each with its own
patience, and stops when the server answers early."""

_XTEXT = re.compile(r"[!-~]{1,500}")
_NOTIFY_WORDS = ((Notify.SUCCESS, "SUCCESS"), (Notify.FAILURE, "FAILURE"), (Notify.DELAY, "DELAY"))


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each reply may take, in seconds (RFC 5321 §4.5.3.2)."""

    connect: float = 30.0
    greeting: float = 300.0
    ehlo: float = 300.0
    tls: float = 60.0
    auth: float = 120.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    dot: float = 600.0


class Refused(Exception):
    """The server answered, and will not have us: a site's trouble, before any mail was named."""

    def __init__(self, stage: Stage, reply: Reply) -> None:
        super().__init__(f"{stage}: {reply}")
        self.stage = stage
        self.reply = reply


class LeaseLost(Exception):
    """Whoever holds the mail is silent: the final dot was not sent, the mail is not delivered."""


class BadEnvelope(ValueError):
    """An address or parameter would break the command line; nothing was sent."""


@dataclass(slots=True)
class Transaction:
    """One mail in the form in which this server takes it."""

    job: Job
    group: bytes
    """MAIL, each RCPT, DATA: a line each."""
    replies: int
    """How many replies the group gets."""
    content: bytes
    """Dot-stuffed, ending in CRLF, without the final dot."""


@dataclass(slots=True)
class Answers:
    """What the server said to one mail. `data` is None where it was never sent, `final` where the content was not."""

    mail: Reply
    recipients: Sequence[Reply] = ()
    data: Reply | None = None
    final: Reply | None = None


class AfterDot(ConnectionFailed):
    """The connection ended after the final dot and before its reply: the mail may have arrived."""


class WhileSending(ConnectionFailed):
    """The connection ended inside the content: the mail did not arrive, and may itself be the reason."""


@dataclass(slots=True)
class Client:
    """An open SMTP session with one server."""

    connection: Connection
    endpoint: Endpoint
    address: str
    patience: Patience
    extensions: dict[str, str] = field(default_factory=dict)
    """EHLO keywords in upper case with their parameters."""
    tls: str = ""
    """`TLSv1.3 verified`, `TLSv1.3`, or empty for clear text."""
    is_verified: bool = False
    opened_at: float = 0.0
    mails: int = 0
    """Mails that got an answer to their final dot."""
    _begun: Transaction | None = None
    _is_open: bool = False
    """A MAIL was accepted and not ended: RSET comes first."""
    _resets: int = 0

    @property
    def remote(self) -> str:
        """Whom we speak to, as the timeline tells it."""
        return f"{self.endpoint.host} [{self.address}]:{self.endpoint.port}"

    @property
    def is_usable(self) -> bool:
        """Whether another mail may be sent."""
        return self.connection.is_usable

    def prepare(self, job: Job, content: bytes) -> Transaction:
        """The commands and content for a mail. Raises BadEnvelope."""
        return Transaction(job, _commands(job, self.extensions), len(job.recipients) + 2, stuff_dots(content))

    async def transmit(
        self,
        mail: Transaction,
        may_finish: Callable[[], bool],
        following: Callable[[], Transaction | None],
    ) -> Answers:
        """Send one mail and return what the server said, for better or worse.

        `may_finish` is asked immediately before the final dot is written, with no await between. `following` is asked
        at the same moment for a mail whose commands leave in the same write (RFC 2920 §3.1 lets content be the first of
        a group); that mail must then be the next one transmitted.

        Raises AfterDot, WhileSending or ConnectionFailed when the connection died after the dot, within the content, or
        before it; LeaseLost.
        """
        if "PIPELINING" in self.extensions:
            if self._begun is not mail:
                parts = self._begin(mail)
                self.connection.send(parts, self._resets + mail.replies)
            answers = await self._read_group(mail)
        else:
            answers = await self._lockstep(mail)
        data = answers.data
        if data is None or data.code != 354:
            self._is_open = answers.mail.code < 300
            if data is not None and data.code < 400:
                self.connection.abort()
                raise ConnectionFailed(f"the server answered DATA with {data}, which means nothing")
            return answers
        if not any(reply.code < 300 for reply in answers.recipients):
            await self._end_empty()
            return answers
        answers.final = await self._send_content(mail, may_finish, following)
        if answers.final is not None:
            return answers
        try:
            answers.final = (await self.connection.replies(1, self.patience.dot, "the final dot"))[0]
        except ConnectionFailed as error:
            raise AfterDot(f"connection lost after the final dot, the mail may have arrived: {error.reason}") from error
        self._is_open = False
        self.mails += 1
        return answers

    def quit(self) -> None:
        """Say goodbye and close, without waiting for the answer."""
        if self.connection.is_usable and self._begun is None:
            self.connection.send((b"QUIT\r\n",), 1)
        self.connection.close()

    def abort(self) -> None:
        """Close at once."""
        self.connection.abort()

    # -- a transaction

    def _begin(self, mail: Transaction) -> list[bytes]:
        self._resets = 1 if self._is_open else 0
        parts = [b"RSET\r\n", mail.group] if self._is_open else [mail.group]
        self._is_open = False
        self._begun = mail
        return parts

    async def _read_group(self, mail: Transaction) -> Answers:
        self._begun = None
        resets, self._resets = self._resets, 0
        connection = self.connection
        replies = await connection.replies(resets + mail.replies, self.patience.mail, "MAIL, RCPT and DATA")
        if not connection.is_usable:
            for reply in replies:
                if reply.code == CLOSING_CODE:
                    raise ConnectionFailed(f"the server said goodbye: {reply}", reply)
        return Answers(replies[resets], replies[resets + 1 : -1], replies[-1])

    async def _lockstep(self, mail: Transaction) -> Answers:
        if self._is_open:
            await self.command(b"RSET\r\n", self.patience.mail, "RSET")
        first, *recipients, data = mail.group.splitlines(keepends=True)
        answers = Answers(await self.command(first, self.patience.mail, "MAIL"))
        if answers.mail.code >= 300:
            return answers
        self._is_open = True
        answers.recipients = [await self.command(line, self.patience.rcpt, "RCPT") for line in recipients]
        if any(reply.code < 300 for reply in answers.recipients):
            answers.data = await self.command(data, self.patience.data, "DATA")
        return answers

    async def _end_empty(self) -> None:
        # RFC 2920 §3.1: a server may say 354 though it took no recipient; it is owed an end, and gets nothing else
        self.connection.send((b".\r\n",), 1)
        await self.connection.replies(1, self.patience.dot, "the final dot of no mail")
        self._is_open = True

    async def _send_content(
        self, mail: Transaction, may_finish: Callable[[], bool], following: Callable[[], Transaction | None]
    ) -> Reply | None:
        """Content and final dot. Returns the reply of a server that refused before the end, and hangs up on it then."""
        connection, content, replies = self.connection, mail.content, 1
        if len(content) > BULK_OCTETS:
            for start in range(0, len(content), BULK_OCTETS):
                connection.send((content[start : start + BULK_OCTETS],), replies)
                replies = 0
                with suppress(ConnectionFailed):  # what it said before it hung up is told below
                    await connection.drained(self.patience.block)
                if connection.has_early_reply:
                    return await self._read_early()
            content = b""
        if not connection.is_usable:
            connection.abort()
            raise WhileSending("the server hung up before the content ended")
        if not may_finish():
            connection.abort()
            raise LeaseLost
        parts = [content, b".\r\n"] if content else [b".\r\n"]
        if "PIPELINING" in self.extensions:
            after = following()
            if after is not None:
                self._is_open = False
                parts += self._begin(after)
                replies += self._resets + after.replies
        connection.send(parts, replies)
        return None

    async def _read_early(self) -> Reply:
        try:
            reply = (await self.connection.replies(1, self.patience.block, "the content"))[0]
        except ConnectionFailed as error:
            raise WhileSending(error.reason, error.reply) from error
        self.connection.abort()
        if reply.code < 400:
            raise WhileSending(f"the server answered {reply} before the content ended")
        return reply

    # -- opening

    async def command(self, line: bytes, patience: float, what: str) -> Reply:
        """One command, one reply. Raises ConnectionFailed, also for a 421."""
        self.connection.send((line,), 1)
        reply = (await self.connection.replies(1, patience, what))[0]
        if reply.code == CLOSING_CODE:
            raise ConnectionFailed(f"the server said goodbye: {reply}", reply)
        return reply

    async def greet(self, ehlo_name: str) -> None:
        """Read the greeting. Raises Refused, ConnectionFailed."""
        reply = (await self.connection.replies(1, self.patience.greeting, "the greeting"))[0]
        if reply.code != 220:
            raise Refused(Stage.GREETING, reply)
        await self.hello(ehlo_name)

    async def hello(self, ehlo_name: str) -> None:
        """EHLO, or HELO where the server knows no EHLO (RFC 5321 §3.2). Raises Refused, ConnectionFailed."""
        reply = await self.command(f"EHLO {ehlo_name}\r\n".encode(), self.patience.ehlo, "EHLO")
        if reply.code == 250:
            self.extensions = read_extensions(self.connection.last_lines) if "\n" in reply.text else {}
            return
        self.extensions = {}
        if 500 <= reply.code < 600:
            reply = await self.command(f"HELO {ehlo_name}\r\n".encode(), self.patience.ehlo, "HELO")
        if reply.code != 250:
            raise Refused(Stage.EHLO, reply)

    async def secure(self, context: ssl.SSLContext, ehlo_name: str, *, verified: bool) -> bool:
        """STARTTLS and EHLO again; False where the server refused the command. Raises TlsFailed, Refused."""
        reply = await self.command(b"STARTTLS\r\n", self.patience.ehlo, "STARTTLS")
        if reply.code != 220:
            return False
        tls = await self.connection.start_tls(context, self.endpoint.host, self.patience.tls)
        self.note_tls(tls, verified=verified)
        await self.hello(ehlo_name)
        return True

    def note_tls(self, tls: ssl.SSLObject | None, *, verified: bool) -> None:
        """Remember how the connection is protected."""
        self.is_verified = verified
        self.tls = f"{(tls.version() if tls else None) or 'TLS'}{' verified' if verified else ''}"

    async def authenticate(self, username: str, password: str) -> None:
        """AUTH PLAIN or LOGIN (RFC 4954, 4616). Raises Refused.

        The caller's endpoint demanded verified TLS; said here once more, because a password told in clear cannot be
        taken back (promise P6).
        """
        if not self.is_verified:
            raise Refused(Stage.AUTH, Reply(454, "4.7.0", "authentication needs TLS with a verified certificate"))
        mechanism = auth_mechanism(self.extensions.get("AUTH", ""))
        if not mechanism:
            raise Refused(Stage.AUTH, Reply(454, "4.7.0", "the server offers neither AUTH PLAIN nor AUTH LOGIN"))
        steps = (
            [b"AUTH PLAIN " + _base64(f"\0{username}\0{password}")]
            if mechanism == "PLAIN"
            else [b"AUTH LOGIN", _base64(username), _base64(password)]
        )
        for number, step in enumerate(steps, 1):
            reply = await self.command(step + b"\r\n", self.patience.auth, "AUTH")
            if reply.code != (235 if number == len(steps) else 334):
                raise Refused(Stage.AUTH, reply)


@dataclass(frozen=True, slots=True)
class TlsContexts:
    """How we shake hands: with any certificate, or with one that is valid for the host's name."""

    unverified: ssl.SSLContext
    verified: ssl.SSLContext


def make_tls_contexts(ca_file: str = "") -> TlsContexts:
    """TLS 1.2 or newer; the certificate authorities of the system, or of a PEM file."""
    unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE  # opportunistic (RFC 7435): never called verified
    return TlsContexts(unverified, ssl.create_default_context(cafile=ca_file or None))


async def open_client(
    endpoint: Endpoint,
    address: str,
    *,
    patience: Patience,
    ehlo_name: str,
    contexts: TlsContexts,
    password: str = "",
    clear_text_only: bool = False,
) -> Client:
    """A session with one address of a host, as secure as its endpoint demands.

    Raises ConnectionFailed (nobody there), TlsFailed (the caller may try again with `clear_text_only`, where policy
    lets it), Refused (the server, or we, said no).
    """
    loop = asyncio.get_running_loop()
    verified = needs_verified(endpoint)
    context = contexts.verified if verified else contexts.unverified
    connection = Connection(loop)
    try:
        async with asyncio.timeout(patience.connect):
            await loop.create_connection(
                lambda: connection,
                address,
                endpoint.port,
                ssl=context if endpoint.implicit_tls else None,
                server_hostname=endpoint.host if endpoint.implicit_tls else None,
            )
    except ssl.SSLError as error:
        raise TlsFailed(tls_reason(error)) from error
    except (OSError, TimeoutError, ValueError) as error:
        raise ConnectionFailed(f"connection failed: {os_reason(error)}") from error
    client = Client(connection, endpoint, address, patience, opened_at=loop.time())
    try:
        if endpoint.implicit_tls:
            client.note_tls(connection.tls_object, verified=verified)
        await client.greet(ehlo_name)
        if not endpoint.implicit_tls:
            await _secure(client, context, ehlo_name, verified=verified, clear_text_only=clear_text_only)
        if endpoint.username:
            await client.authenticate(endpoint.username, password)
    except BaseException:
        client.quit()
        raise
    return client


async def _secure(
    client: Client, context: ssl.SSLContext, ehlo_name: str, *, verified: bool, clear_text_only: bool
) -> None:
    demand = client.endpoint.tls
    step = tls_step(demand, offered="STARTTLS" in client.extensions, failed_before=clear_text_only)
    if step is TlsStep.START and not await client.secure(context, ehlo_name, verified=verified):
        step = tls_step(demand, offered=False)
    if step is TlsStep.REFUSE:
        raise Refused(Stage.STARTTLS, Reply(454, "4.7.10", "the next hop does not offer TLS, which the route demands"))


def read_extensions(lines: Sequence[str]) -> dict[str, str]:
    """The keywords of an EHLO reply's lines (the first is the greeting). `AUTH=LOGIN`, an old spelling, counts."""
    extensions: dict[str, str] = {}
    for line in lines[1:]:
        keyword, _, value = line.partition(" ")
        keyword, equals, old = keyword.upper().partition("=")
        if equals:
            value = f"{old} {value}"
        extensions[keyword] = f"{extensions[keyword]} {value.strip()}" if keyword in extensions else value.strip()
    return extensions


def stuff_dots(content: bytes) -> bytes:
    """Content as DATA takes it (RFC 5321 §4.5.2): dots doubled where a line begins with one, CRLF at the end."""
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    if content.startswith(b"."):
        content = b"." + content
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"


def _commands(job: Job, extensions: dict[str, str]) -> bytes:
    dsn = "DSN" in extensions
    mail = f"MAIL FROM:<{job.sender}>"
    if "SIZE" in extensions:
        mail += f" SIZE={job.size}"
    if job.eight_bit and "8BITMIME" in extensions:
        mail += " BODY=8BITMIME"
    if job.smtputf8 and "SMTPUTF8" in extensions:
        mail += " SMTPUTF8"
    if dsn and (job.ret or job.envid):
        mail += f" RET={job.ret}" if job.ret else ""
        mail += f" ENVID={job.envid}" if _XTEXT.fullmatch(job.envid) else ""
    lines = [mail]
    for recipient in job.recipients:
        line = f"RCPT TO:<{recipient.address}>"
        if dsn and (recipient.notify or recipient.orcpt):
            line += _dsn_parameters(recipient.notify, recipient.orcpt)
        lines.append(line)
    lines.append("DATA\r\n")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise BadEnvelope("an address has a control character")
    return text.encode()


def _dsn_parameters(notify: int, orcpt: str) -> str:
    words = ["NEVER"] if notify & Notify.NEVER else [word for bit, word in _NOTIFY_WORDS if notify & bit]
    text = f" NOTIFY={','.join(words)}" if words else ""
    return text + (f" ORCPT={orcpt}" if _XTEXT.fullmatch(orcpt) else "")


def _base64(text: str) -> bytes:
    return base64.b64encode(text.encode())
