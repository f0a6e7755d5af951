"""What happened to a mail: the events that EVENTS keeps, activity projects and a person reads as the timeline."""

from dataclasses import dataclass, field
from enum import StrEnum

from sternpost_mail.states import State


class EventKind(StrEnum):
    """The kinds of event. An attempt is told by delivery, everything else by the queue."""

    ATTEMPT = "attempt"
    """A site session tried some recipients; each result has its outcome."""
    DECISION = "decision"
    """The queue decided without an attempt of its own: deferred until, bounced, expired, cancelled, held, discarded."""
    CANCEL_REQUESTED = "cancel_requested"
    """Somebody asked to take the mail back; the decision follows when it would have been sent."""


class OutcomeKind(StrEnum):
    """The outcome vocabulary of `sternpost_mail.outcome` as a word for tables and metrics."""

    NONE = ""
    DELIVERED = "delivered"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"
    UNREACHED = "unreached"


@dataclass(frozen=True, slots=True)
class Result:
    """What one event says of one recipient.

    `state` is the state that the recipient is in after the event. `reply` is the remote's reply as one line, or the reason
    where nobody answered.
    """

    recipient: int
    """Index into the envelope's recipients."""
    address: str
    state: State
    outcome: OutcomeKind = OutcomeKind.NONE
    reply: str = ""
    next_attempt_ms: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One fact about one mail. `id` is unique, so a projection that sees it twice keeps it once."""

    id: str
    kind: EventKind
    at_ms: int
    mail_id: str
    record_id: str
    tenant: str
    sender: str
    accepted_ms: int
    size: int
    results: tuple[Result, ...]
    attempt: int = 0
    site: str = ""
    remote: str = ""
    """Host name and address that answered, such as `mx1.example.com [192.0.2.1]:25`."""
    tls: str = ""
    """TLS version and whether the certificate was verified, such as `TLSv1.3 verified`; empty for clear text."""
    duration_ms: int = 0
    identity: str = ""
    tags: tuple[str, ...] = ()
    facts: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events of one spool record, written together."""

    events: tuple[Event, ...]
