"""What is told of a settled job: the event that EVENTS keeps and the result that the queue hears. Pure."""

from sternpost_delivery.session import Settled
from sternpost_mail.dispatch import JobResult
from sternpost_mail.events import Event, EventKind, OutcomeKind, Result
from sternpost_mail.outcome import Delivered, Outcome, PermanentFailure, TemporaryFailure, Unreached
from sternpost_mail.states import State

_KINDS: dict[type[Outcome], OutcomeKind] = {
    Delivered: OutcomeKind.DELIVERED,
    TemporaryFailure: OutcomeKind.TEMPORARY,
    PermanentFailure: OutcomeKind.PERMANENT,
    Unreached: OutcomeKind.UNREACHED,
}


def kind_of(outcome: Outcome) -> OutcomeKind:
    """The outcome's word."""
    return _KINDS[type(outcome)]


def job_result(settled: Settled) -> JobResult:
    """The result per recipient. Only Delivered is final here: what becomes of a permanent failure the queue decides."""
    results: list[Result] = []
    wish = 0.0
    last: Outcome | None = None
    text = ""
    for recipient, outcome in zip(settled.job.recipients, settled.outcomes, strict=True):
        if outcome is not last:
            last, text = outcome, outcome.reason if isinstance(outcome, Unreached) else str(outcome.reply)
        if isinstance(outcome, TemporaryFailure | Unreached):
            wish = max(wish, outcome.retry_after)
        kind = _KINDS[type(outcome)]
        state = State.DELIVERED if kind is OutcomeKind.DELIVERED else State.DEFERRED
        results.append(Result(recipient.index, recipient.address, state, kind, text))
    return JobResult(settled.job.mail_id, tuple(results), wish, settled.dsn_passed_on)


def attempt_event(settled: Settled, results: tuple[Result, ...], site: str, event_id: str) -> Event:
    """The fact that the timeline tells."""
    job = settled.job
    return Event(
        event_id,
        EventKind.ATTEMPT,
        settled.at_ms,
        job.mail_id,
        job.record_id,
        job.tenant,
        job.sender,
        job.accepted_ms,
        job.size,
        results,
        job.attempt,
        site,
        settled.remote,
        settled.tls,
        int(settled.duration * 1000),
        job.identity,
        job.tags,
        job.facts,
    )
