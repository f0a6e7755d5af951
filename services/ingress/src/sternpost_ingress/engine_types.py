"""What goes into the SMTP engine and comes out of it, apart from octets: states, limits, actions, and who it asks."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from sternpost_mail.address import Address
from sternpost_mail.envelope import Envelope
from sternpost_mail.headers import HeaderFacts
from sternpost_mail.reply import Reply


class State(IntEnum):
    """Where a session stands."""

    GREETING = 0
    """The banner was not sent yet: whoever talks now does not speak SMTP."""
    START = 1
    """Greeted; no HELO or EHLO since (or since TLS began)."""
    READY = 2
    MAIL = 3
    """A sender was accepted."""
    RCPT = 4
    """At least one recipient was accepted."""
    DATA = 5
    """The text arrives."""
    CHUNK = 6
    """The octets of a BDAT chunk arrive."""
    CHUNKED = 7
    """Between BDAT chunks."""
    SETTLING = 8
    """The mail is complete and the door makes it durable: input waits."""
    HANDSHAKE = 9
    """220 was said to STARTTLS: the next octets belong to TLS, none of them to us."""
    AUTH = 10
    """The door verifies a login: input waits."""
    AUTH_LINE = 11
    """A line of an AUTH exchange is awaited."""
    CLOSED = 12


@dataclass(frozen=True, slots=True)
class Traits:
    """What a door is. `hostname` is what it calls itself."""

    hostname: str
    auth: bool = False
    """AUTH is offered, over TLS only."""
    auth_required: bool = False
    """No MAIL without AUTH."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Octets and counts; `settings.py` gives the reasons of those that can be set."""

    message: int = 50 * 1024 * 1024
    recipients: int = 1000
    errors: int = 10
    auth_failures: int = 3
    text_line: int = 2048
    """Octets of one line of the text, without its CR LF."""
    command: int = 512
    """Octets of a command line with its CR LF (RFC 5321 §4.5.3.1.4)."""
    extended_command: int = 512 + 640
    """MAIL and RCPT may be longer by their parameters: ORCPT 507, NOTIFY 29, ENVID 107, SIZE 26, BODY 16, SMTPUTF8 9
    (RFC 3461 §4, RFC 1870, 6152, 6531)."""
    auth_line: int = 12_288
    """RFC 4954 §4."""
    backlog: int = 64 * 1024
    """Input that waits while a mail is settled; past it the door stops reading."""
    forbid_unauthorized_pipelining: bool = True
    """Octets behind a command whose answer must be awaited (RFC 2920 §3.1) end the session."""


class Budget:
    """Octets of content that all sessions of a process hold together (promise P8)."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def is_spent(self) -> bool:
        """Whether no new mail may begin."""
        return self.used >= self.limit

    def take(self, octets: int) -> bool:
        """Charge so many octets; False, and nothing charged, where they are not there."""
        if self.used + octets > self.limit:
            return False
        self.used += octets
        return True

    def give(self, octets: int) -> None:
        """Give charged octets back."""
        self.used -= octets


class Host(Protocol):
    """Who the engine asks. All answers are immediate; a Reply refuses."""

    def check_sender(self, sender: Address | None) -> Reply | None:
        """At MAIL FROM; None is the null reverse-path."""

    def check_recipient(self, sender: Address | None, recipient: Address) -> Reply | None:
        """At RCPT TO."""

    def check_content(self, sender: Address | None, envelope: Envelope, content: bytes) -> Reply | HeaderFacts:
        """At the final dot, before the mail is made durable."""

    def refused(self, reply: Reply) -> None:
        """Something was answered 4xx or 5xx: for the metrics."""


@dataclass(frozen=True, slots=True)
class Settle:
    """Make this mail durable, then call `Engine.settled` or `Engine.abandon`."""

    envelope: Envelope
    content: bytes
    header: HeaderFacts


@dataclass(frozen=True, slots=True)
class StartTls:
    """Start TLS on the connection, then call `Engine.tls_started`."""


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Carry out an AUTH exchange, then call `Engine.authenticated` or `Engine.auth_failed`.

    `arguments` are the mechanism in capitals and, where the client sent one, its initial response.
    """

    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuthLine:
    """The client's line in an AUTH exchange, without CR LF."""

    line: bytes

    def __repr__(self) -> str:
        return "AuthLine(...)"


Action = Settle | StartTls | Authenticate | AuthLine
