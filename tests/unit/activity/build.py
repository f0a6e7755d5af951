"""Events for the tests of activity, with every field that a test does not care about filled in."""

from sternpost_mail.envelope import Door, Facts
from sternpost_mail.events import Event, EventKind, OutcomeKind, Result
from sternpost_mail.ids import make_id
from sternpost_mail.states import State
from sternpost_runtime.codec import encode_facts

BASE_MS = 1_764_000_000_000
"""The moment at which the tests' mails were accepted."""


def mail_id(number: int) -> str:
    """The id of the mail accepted `number` milliseconds after the first."""
    return make_id(BASE_MS + number, bytes(10))


def facts(*recipients: str, subject: str = "Hello") -> bytes:
    """Encoded facts."""
    return encode_facts(
        Facts(
            Door.SUBMISSION,
            "192.0.2.1",
            "Shop <shop@example.com>",
            "<1@example.com>",
            subject,
            (("order", "42"),),
            recipients,
        )
    )


def result(
    state: State,
    *,
    recipient: int = 0,
    outcome: OutcomeKind = OutcomeKind.NONE,
    reply: str = "",
    next_attempt_ms: int = 0,
    address: str = "",
) -> Result:
    """What an event says of one recipient."""
    return Result(recipient, address or f"user{recipient}@example.net", state, outcome, reply, next_attempt_ms)


def event(
    name: str,
    at: int,
    *results: Result,
    mail: int = 0,
    kind: EventKind = EventKind.ATTEMPT,
    tenant: str = "shop",
    sender: str = "noreply@example.com",
    attempt: int = 1,
    tags: tuple[str, ...] = (),
    with_facts: bytes = b"",
) -> Event:
    """An event `at` milliseconds after the first mail's acceptance. `name` is its id, so it also orders ties."""
    return Event(
        id=name,
        kind=kind,
        at_ms=BASE_MS + at,
        mail_id=mail_id(mail),
        record_id=mail_id(mail),
        tenant=tenant,
        sender=sender,
        accepted_ms=BASE_MS + mail,
        size=10_240,
        results=results,
        attempt=attempt,
        remote="mx.example.net [192.0.2.9]:25",
        tls="TLSv1.3 verified",
        duration_ms=12,
        identity="app",
        tags=tags,
        facts=with_facts,
    )


DELIVERED = result(State.DELIVERED, outcome=OutcomeKind.DELIVERED, reply="250 2.0.0 Ok")
DEFERRED = result(State.DEFERRED, outcome=OutcomeKind.TEMPORARY, reply="451 4.3.0 Later")
