"""What activity answers when somebody asks for a message: views, not decisions. They are the JSON of the HTTP API and CLI."""

from dataclasses import dataclass, field

from sternpost_mail.states import State


@dataclass(frozen=True, slots=True)
class RecipientView:
    """One recipient as it stands. Times are milliseconds since the epoch, 0 for none."""

    address: str
    state: State
    attempts: int = 0
    last_reply: str = ""
    remote: str = ""
    next_attempt_ms: int = 0


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One line of the timeline. `recipient` is empty where it speaks of the whole message."""

    at_ms: int
    kind: str
    """`accepted`, `attempt`, `decision` or `cancel_requested`."""
    recipient: str = ""
    state: str = ""
    outcome: str = ""
    reply: str = ""
    remote: str = ""
    tls: str = ""
    attempt: int = 0
    duration_ms: int = 0
    next_attempt_ms: int = 0


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message with its recipients and, when asked for one message, its timeline."""

    id: str
    tenant: str
    state: State
    sender: str
    accepted_ms: int
    size: int
    header_from: str = ""
    subject: str = ""
    message_id: str = ""
    door: str = ""
    client: str = ""
    identity: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    recipients: tuple[RecipientView, ...] = ()
    timeline: tuple[TimelineEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageQuestion:
    """One message by id. `tenant` empty asks across tenants (the administrator's own tools only)."""

    id: str
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class MessageAnswer:
    """The message, or None where nobody knows it (or it belongs to another tenant, which sounds the same)."""

    message: MessageView | None


@dataclass(frozen=True, slots=True)
class ListQuestion:
    """A page of messages, newest first. Empty fields do not restrict. `before` is the id that ended the last page."""

    tenant: str = ""
    state: str = ""
    sender: str = ""
    recipient: str = ""
    tag: str = ""
    before: str = ""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """Messages without timelines; `next_before` continues, empty at the end."""

    messages: tuple[MessageView, ...]
    next_before: str = ""
