"""Delivery's metrics and spans, and one function per business event. It decides nothing."""

from prometheus_client import Counter, Gauge, Histogram

from sternpost_delivery.session import Settled
from sternpost_mail.events import OutcomeKind
from sternpost_runtime.telemetry import MESSAGING_MESSAGE_ID, MESSAGING_SYSTEM, link_from, tracer, tracing_enabled

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0)

_attempts = Counter("sternpost_delivery_attempts_total", "recipients tried, by outcome", ["outcome"])
_seconds = Histogram("sternpost_delivery_attempt_seconds", "one mail, from its commands to its end", buckets=_LATENCY)
_octets = Counter("sternpost_delivery_octets_total", "octets of the mails that a next hop took")
_sessions = Gauge("sternpost_delivery_sessions", "site sessions in hand")
_answers = Counter("sternpost_delivery_session_requests_total", "session requests, by answer", ["answer"])
_site_down = Counter("sternpost_delivery_sites_down_total", "sessions that found their site down")
_reused = Counter(
    "sternpost_delivery_connections_reused_total", "mails sent over a connection that had carried another"
)
_idle = Gauge("sternpost_delivery_idle_connections", "open connections that wait for their site's next session")
_lease_lost = Counter("sternpost_delivery_leases_lost_total", "sessions that ended because their queue fell silent")
_faults = Counter("sternpost_delivery_faults_total", "faults of our own that left mail for a later attempt", ["where"])
_event_batches = Histogram(
    "sternpost_delivery_event_batch_mails", "attempts in one record of EVENTS", buckets=(1, 2, 5, 10, 20, 50, 100)
)
_unheard = Counter("sternpost_delivery_results_unheard_total", "results that their queue did not confirm")

_attempt_of: dict[OutcomeKind, Counter] = {
    kind: _attempts.labels(kind.value) for kind in OutcomeKind if kind is not OutcomeKind.NONE
}
_answer_of = {answer: _answers.labels(answer) for answer in ("taken", "busy")}


def attempted(settled: Settled, kinds: list[OutcomeKind], site: str) -> None:
    """One mail's attempt ended with these outcomes, one per recipient."""
    delivered = False
    for kind in kinds:
        _attempt_of[kind].inc()
        delivered = delivered or kind is OutcomeKind.DELIVERED
    if delivered:
        _octets.inc(settled.job.size)
    _seconds.observe(settled.duration)
    if settled.reused:
        _reused.inc()
    if tracing_enabled():
        _trace(settled, kinds, site)


def _trace(settled: Settled, kinds: list[OutcomeKind], site: str) -> None:
    link = link_from(settled.job.traceparent)
    end = settled.at_ms * 1_000_000
    span = tracer("sternpost").start_span(
        "deliver mail",
        links=[link] if link is not None else [],
        attributes={
            MESSAGING_SYSTEM: "smtp",
            MESSAGING_MESSAGE_ID: settled.job.mail_id,
            "sternpost.attempt": settled.job.attempt,
            "sternpost.outcomes": ",".join(sorted({kind.value for kind in kinds})),
            "sternpost.site": site,
            "server.address": settled.remote,
        },
        start_time=end - int(settled.duration * 1e9),
    )
    span.end(end)


def session_answered(answer: str, held: int) -> None:
    """A queue asked to take a session; `held` are in hand now."""
    _answer_of[answer].inc()
    _sessions.set(held)


def session_ended(held: int, idle: int, *, site_down: bool, lease_lost: bool) -> None:
    """A session is over and told; `idle` connections wait."""
    _sessions.set(held)
    _idle.set(idle)
    if site_down:
        _site_down.inc()
    if lease_lost:
        _lease_lost.inc()


def events_stored(mails: int) -> None:
    """A record of attempts is durable in EVENTS."""
    _event_batches.observe(mails)


def result_unheard() -> None:
    """A queue did not confirm results: it finds them in EVENTS."""
    _unheard.inc()


def fault(where: str) -> None:
    """Our own fault; nothing is lost, it is tried again."""
    _faults.labels(where).inc()
