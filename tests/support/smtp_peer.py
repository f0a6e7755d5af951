"""An SMTP server that does what a test's script says: replies per verb, delays, disconnects, STARTTLS.

It is raw on purpose (octets as given, no rules), so that a test can say what no decent server would. For a decent
server use the sink.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trustme

EHLO = b"250-peer.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN\r\n"
DEFAULTS: dict[str, bytes] = {
    "GREETING": b"220 peer.test ESMTP\r\n",
    "EHLO": EHLO,
    "HELO": b"250 peer.test\r\n",
    "MAIL": b"250 2.1.0 Ok\r\n",
    "RCPT": b"250 2.1.5 Ok\r\n",
    "DATA": b"354 Go ahead\r\n",
    "DOT": b"250 2.0.0 Ok: queued\r\n",
    "RSET": b"250 2.0.0 Ok\r\n",
    "STARTTLS": b"220 2.0.0 Go ahead\r\n",
    "AUTH": b"235 2.7.0 Welcome\r\n",
    "QUIT": b"221 2.0.0 Bye\r\n",
    "": b"500 5.5.2 What?\r\n",
}


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection, after these octets."""

    say: bytes = b""


@dataclass(frozen=True, slots=True)
class Wait:
    """Say nothing until the event is set, then do the other action."""

    until: asyncio.Event
    then: "Action" = b""


Action = bytes | Drop | Wait
"""What to do where a verb came: say octets, hang up, or wait."""


@dataclass(slots=True)
class ReceivedMail:
    """One mail that came in whole: the command lines and the content as it was on the wire, without the final dot."""

    mail: str
    rcpts: list[str]
    wire: bytes
    tls: bool
    connection: int

    @property
    def content(self) -> bytes:
        """The content with dots unstuffed."""
        lines = self.wire.split(b"\r\n")
        return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


@dataclass(slots=True)
class SmtpPeer:
    """The running peer. `script` maps a verb (or GREETING, DOT) to its actions, used up in order; the last is kept."""

    script: dict[str, list[Action]]
    tls: ssl.SSLContext | None = None
    inject_after_starttls: bytes = b""
    host: str = "127.0.0.1"
    port: int = 0
    lines: list[str] = field(default_factory=list)
    """Every command line of every connection."""
    chunks: list[bytes] = field(default_factory=list)
    """What each read returned, in order: shows what left in one write."""
    mails: list[ReceivedMail] = field(default_factory=list)
    connections: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set whenever a connection has ended."""
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    on_dot: Callable[[], None] | None = None
    """Called when a final dot came, before it is answered."""

    def action(self, verb: str) -> Action:
        """The next action of a verb."""
        actions = self.script.get(verb)
        if not actions:
            return DEFAULTS.get(verb, DEFAULTS[""])
        return actions.pop(0) if len(actions) > 1 else actions[0]

    async def wait_for(self, verb: str, count: int = 1) -> None:
        """Until so many lines of a verb came."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: sum(line.upper().startswith(verb) for line in self.lines) >= count)


class _Ended(Exception):
    pass


class _Session:
    def __init__(self, peer: SmtpPeer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.peer, self.reader, self.writer, self.number = peer, reader, writer, number
        self.buffer = b""
        self.secure = writer.get_extra_info("ssl_object") is not None
        self.mail, self.rcpts = "", list[str]()
        self.accepted = False

    async def act(self, action: Action) -> bytes:
        if isinstance(action, Wait):
            await action.until.wait()
            return await self.act(action.then)
        said = action.say if isinstance(action, Drop) else action
        if said:
            self.writer.write(said)
            await self.writer.drain()
        if isinstance(action, Drop):
            raise _Ended
        return said

    async def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            data = await self.reader.read(1 << 16)
            if not data:
                raise _Ended
            self.peer.chunks.append(data)
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    async def run(self) -> None:
        await self.act(self.peer.action("GREETING"))
        while True:
            text = (await self.line()).decode()
            verb = text[:8].upper() if text.upper().startswith("STARTTLS") else text[:4].upper()
            async with self.peer.arrived:
                self.peer.lines.append(text)
                self.peer.arrived.notify_all()
            said = await self.act(self.peer.action(verb))
            match verb:
                case "MAIL":
                    self.mail, self.rcpts = text, []
                case "RCPT" if said.startswith(b"2"):
                    self.rcpts.append(text)
                case "DATA" if said.startswith(b"354"):
                    await self.content()
                case "STARTTLS" if said.startswith(b"220"):
                    await self.start_tls()
                case "AUTH":
                    while said.startswith(b"334"):
                        self.peer.lines.append((await self.line()).decode())
                        said = await self.act(self.peer.action("AUTH"))
                case "QUIT":
                    raise _Ended

    async def content(self) -> None:
        lines: list[bytes] = []
        while (line := await self.line()) != b".":
            lines.append(line)
        if self.peer.on_dot:
            self.peer.on_dot()
        said = await self.act(self.peer.action("DOT"))
        if said.startswith(b"2"):
            wire = b"".join(line + b"\r\n" for line in lines)
            self.peer.mails.append(ReceivedMail(self.mail, self.rcpts, wire, self.secure, self.number))
        self.mail, self.rcpts = "", []

    async def start_tls(self) -> None:
        if self.peer.inject_after_starttls:
            self.writer.write(self.peer.inject_after_starttls)
            await self.writer.drain()
        if self.peer.tls is None:
            return
        await self.writer.start_tls(self.peer.tls)
        self.secure = True


@asynccontextmanager
async def running_peer(
    script: Mapping[str, Action | Sequence[Action]] | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    implicit_tls: bool = False,
    inject_after_starttls: bytes = b"",
    host: str = "127.0.0.1",
) -> AsyncIterator[SmtpPeer]:
    """A peer on a free port. A verb's value is one action or a list of them, for its first, second, ... use.

    `tls` answers STARTTLS (offer it in the script's EHLO) or, with `implicit_tls`, wraps the port.
    """
    single = (bytes, Drop, Wait)
    actions: dict[str, list[Action]] = {
        verb: [value] if isinstance(value, single) else list(value) for verb, value in (script or {}).items()
    }
    peer = SmtpPeer(actions, None if implicit_tls else tls, inject_after_starttls, host)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _Session(peer, reader, writer, peer.connections).run()
        except (_Ended, OSError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()
            peer.closed.set()

    server = await asyncio.start_server(serve, host, 0, ssl=tls if implicit_tls else None)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class TestAuthority:
    """A certificate authority of the test's own."""

    __test__ = False
    authority: trustme.CA

    def server_context(self, *names: str) -> ssl.SSLContext:
        """A server's TLS with a certificate for these names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names).configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A client's TLS that trusts this authority alone."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        return context


def make_authority() -> TestAuthority:
    """A new authority."""
    return TestAuthority(trustme.CA())


def ehlo(*keywords: str) -> bytes:
    """An EHLO reply that offers these keywords."""
    lines = ["peer.test", *keywords]
    return "".join(f"250{'-' if n < len(lines) else ' '}{text}\r\n" for n, text in enumerate(lines, 1)).encode()
