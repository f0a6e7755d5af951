"""What activity counts: one function per business event, over prometheus_client. No names of people, tenants or
mails."""

import structlog
from prometheus_client import Counter, Gauge, Histogram

from sternpost_activity.project import Changes
from sternpost_runtime.telemetry import sampled

log = structlog.get_logger("sternpost.activity")

_EVENTS = Counter("sternpost_activity_events_projected", "events that were applied to the tables")
_MESSAGES = Counter("sternpost_activity_messages_added", "messages that were new to the tables")
_REFUSED = Counter(
    "sternpost_activity_steps_refused", "results that the states table forbids, kept in the timeline only"
)
_FOREIGN = Counter("sternpost_activity_events_foreign", "events left out because their mail belongs to another tenant")
_BAD_FACTS = Counter("sternpost_activity_facts_unreadable", "mails whose facts could not be opened")
_POISON = Counter("sternpost_activity_poison", "records of EVENTS that were given up", ["reason"])
_LOST_ACKS = Counter(
    "sternpost_activity_acks_unconfirmed", "acknowledgements without an answer; the record may come again"
)
_DOWN = Counter("sternpost_activity_database_failures", "transactions that failed because the database did not answer")
_TRANSACTION_EVENTS = Histogram(
    "sternpost_activity_transaction_events",
    "events in one transaction",
    buckets=(1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000),
)
_TRANSACTION_SECONDS = Histogram(
    "sternpost_activity_transaction_seconds",
    "seconds of one transaction",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
)
_LAG = Gauge("sternpost_activity_lag_records", "records of EVENTS that are not in the tables yet")
_BEHIND = Gauge("sternpost_activity_behind_seconds", "seconds for which the projection has not kept up")
_EVENT_AGE = Gauge(
    "sternpost_activity_event_age_seconds", "age of the newest event of the last transaction when applied"
)
_ALARM = Gauge("sternpost_activity_lag_alarm", "1 while the projection is behind for longer than the alarm setting")
_QUESTIONS = Counter("sternpost_activity_questions", "questions answered", ["subject", "source"])
_DELETED = Counter("sternpost_activity_messages_deleted", "messages that retention deleted")

_poison_log = sampled(log, every=100, level="error")


def applied(changes: Changes, events: int, seconds: float, age_seconds: float) -> None:
    """One transaction was committed."""
    _EVENTS.inc(events)
    _MESSAGES.inc(len(changes.messages))
    _TRANSACTION_EVENTS.observe(events)
    _TRANSACTION_SECONDS.observe(seconds)
    _EVENT_AGE.set(age_seconds)
    if changes.refused:
        _REFUSED.inc(changes.refused)
    if changes.foreign:
        _FOREIGN.inc(changes.foreign)
    if changes.bad_facts:
        _BAD_FACTS.inc(changes.bad_facts)


def record_given_up(reason: str, seq: int, detail: str) -> None:
    """A record of EVENTS was terminated: `reason` is `undecodable` or `refused`."""
    _POISON.labels(reason).inc()
    _poison_log("event_record_given_up", reason=reason, seq=seq, detail=detail)


def acks_unconfirmed(count: int) -> None:
    """Acknowledgements that the broker did not confirm."""
    _LOST_ACKS.inc(count)


def database_down(detail: str, wait: float) -> None:
    """The database did not answer; the next try is in `wait` seconds."""
    _DOWN.inc()
    log.warning("database_down", detail=detail, retry_in=wait)


def broker_down(detail: str, wait: float) -> None:
    """EVENTS could not be asked at start; the next try is in `wait` seconds."""
    log.warning("broker_down", detail=detail, retry_in=wait)


def events_restarted(position: int, last_seq: int) -> None:
    """EVENTS counts from the beginning again, so the position is taken back."""
    log.warning("events_restarted", position=position, last_seq=last_seq)


def lag_observed(records: int, behind_seconds: float, alarm: bool) -> None:
    """How far the projection is behind."""
    _LAG.set(records)
    _BEHIND.set(behind_seconds)
    _ALARM.set(alarm)


def question_answered(subject: str, source: str) -> None:
    """A question was answered from `sql`, `spool`, `sql_after_wait`, or by `nobody`."""
    _QUESTIONS.labels(subject, source).inc()


def messages_deleted(count: int) -> None:
    """Retention deleted messages."""
    _DELETED.inc(count)
