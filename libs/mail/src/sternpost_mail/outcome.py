"""The outcome of one attempt for one recipient. One vocabulary, from the SMTP client to the timeline."""

from dataclasses import dataclass

from sternpost_mail.reply import Reply


@dataclass(frozen=True, slots=True)
class Delivered:
    """The remote took responsibility: 2yz after the final dot."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class TemporaryFailure:
    """A server answered, and it may work later. `retry_after` is the server's or our own wish in seconds, 0 for none."""

    reply: Reply
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class PermanentFailure:
    """It will never work: a DSN is due (5yz, null MX, a name that does not exist, an address the hop cannot carry)."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Unreached:
    """No server ever answered, so there is no reply to show; `reason` says what happened. Always temporary."""

    reason: str
    retry_after: float = 0.0


Outcome = Delivered | TemporaryFailure | PermanentFailure | Unreached
