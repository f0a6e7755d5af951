"""The envelope and the mail: what a door accepted and everybody after it carries."""

from dataclasses import dataclass
from enum import IntFlag, StrEnum


class Notify(IntFlag):
    """RFC 3461 §4.1 NOTIFY. DEFAULT (no parameter) means a report on failure and none on success."""

    DEFAULT = 0
    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8


class Ret(StrEnum):
    """RFC 3461 §4.3 RET: how much of the mail a failure report returns."""

    DEFAULT = ""
    FULL = "FULL"
    HDRS = "HDRS"


class Lane(StrEnum):
    """Priority classes: each has its own subject in the spool, so a backlog in one never delays another."""

    EXPRESS = "express"
    NORMAL = "normal"
    BULK = "bulk"


class Door(StrEnum):
    """By which door a mail came in."""

    MX = "mx"
    SUBMISSION = "submission"
    SUBMISSIONS = "submissions"
    HTTP = "http"
    BOUNCE = "bounce"
    """Not a door: a report that the queue service wrote itself."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One RCPT TO. `orcpt` is the RFC 3461 §4.2 parameter as received (`rfc822;user@example.com`) or empty."""

    address: str
    notify: Notify = Notify.DEFAULT
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """MAIL FROM and RCPT TO with their parameters. `sender` is empty for the null reverse-path."""

    sender: str
    recipients: tuple[Recipient, ...]
    ret: Ret = Ret.DEFAULT
    envid: str = ""
    eight_bit: bool = False
    """BODY=8BITMIME was declared, or the content has octets above 127."""
    smtputf8: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What the timeline and the metrics tell of a mail, fixed at acceptance and never decided upon later."""

    door: Door
    client: str
    """The client's IP address as the door saw it (after PROXY), empty for our own reports."""
    header_from: str
    message_id: str
    subject: str
    metadata: tuple[tuple[str, str], ...] = ()
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mail:
    """One accepted mail. `content` are the octets to relay; above the inline limit they are in the object store and
    `content_ref` names them. Times are milliseconds since the epoch."""

    id: str
    tenant: str
    lane: Lane
    envelope: Envelope
    size: int
    """Octets of the content, wherever it is."""
    content: bytes
    accepted_ms: int
    expires_ms: int
    content_ref: str = ""
    not_before_ms: int = 0
    """Not to be sent before this moment (`send_at`); 0 means at once."""
    identity: str = ""
    """The credential that submitted it, `name` in the tenant's namespace; empty where a network was trusted."""
    tags: tuple[str, ...] = ()
    traceparent: str = ""
    """W3C trace context of the submission (its span is linked from every attempt)."""
    facts: bytes = b""
    """The encoded Facts: written once by the door, carried unopened, read by activity."""


@dataclass(frozen=True, slots=True)
class SpoolRecord:
    """A batch of mails that one publish made durable together. Frozen once sent: an id always means the same mails.

    An empty record is a fence (design P3): it only occupies the id.
    """

    id: str
    mails: tuple[Mail, ...]


@dataclass(frozen=True, slots=True)
class DeferredMail:
    """A mail that waits: which of its recipients are still open, and how often they were tried.

    `record_id` is the spool record that it came from; its events are found under that id.
    """

    mail: Mail
    record_id: str
    open_recipients: tuple[int, ...]
    """Indexes into `mail.envelope.recipients`."""
    attempts: int
    delay_reported: bool = False
    last_reply: str = ""
    """The latest reply or reason, for the report that expiry writes."""


@dataclass(frozen=True, slots=True)
class DeferRecord:
    """Mails of one site that wait for the same moment, with their content."""

    id: str
    site: str
    mails: tuple[DeferredMail, ...]


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """A record that was set aside: suspended mail, or one that could not be processed, with the reason for a person.

    `record` is the original payload, unchanged, so that releasing it is publishing it again on `origin_subject`.
    """

    id: str
    reason: str
    origin_subject: str
    held_ms: int
    """When it was set aside, milliseconds since the epoch."""
    record: bytes
