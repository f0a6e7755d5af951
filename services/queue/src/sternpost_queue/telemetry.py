"""The queue's metrics, and one function per business event."""

from prometheus_client import Counter, Gauge, Histogram

QUEUED = Counter("sternpost_queue_jobs_total", "Jobs taken into the active set", ["source"])
DECIDED = Counter("sternpost_queue_recipients_total", "Recipients by what followed", ["next"])
ACTIVE = Gauge("sternpost_queue_active_jobs", "Jobs in memory, waiting or in a worker's hands")
ACTIVE_OCTETS = Gauge("sternpost_queue_active_octets", "Content octets in memory")
SITES = Gauge("sternpost_queue_sites", "Sites with waiting or running jobs")
IN_FLIGHT = Gauge("sternpost_queue_sessions_in_flight", "Site sessions in workers' hands")
OLDEST = Gauge("sternpost_queue_oldest_seconds", "Age of the oldest mail in the active set")
SESSION_MAILS = Histogram("sternpost_queue_session_mails", "Mails per site session", buckets=(1, 2, 5, 10, 20, 50))
DEFER_BATCH = Histogram(
    "sternpost_queue_defer_batch_mails", "Mails per deferred record", buckets=(1, 2, 5, 10, 20, 50, 100)
)
REPORTS = Counter("sternpost_queue_reports_total", "Delivery status notifications written", ["action"])
HELD = Counter("sternpost_queue_held_total", "Records and mails set aside", ["reason"])
RECOVERED = Counter("sternpost_queue_recovered_total", "Records that were looked up in EVENTS before use")
SKIPPED = Counter("sternpost_queue_skipped_recipients_total", "Recipients of such records that were already finished")
WORKERS = Gauge("sternpost_queue_workers", "Delivery workers that are heard")
WORKERS_LOST = Counter("sternpost_queue_workers_lost_total", "Workers that fell silent with jobs in their hands")
PARKED = Counter("sternpost_queue_parked_total", "Jobs of slow sites that went back to the broker for others' sake")

_queued = {source: QUEUED.labels(source) for source in ("spool", "due")}
_decided = {
    word: DECIDED.labels(word) for word in ("delivered", "retry", "bounce", "expire", "cancel", "hold", "discard")
}


def jobs_taken(source: str, count: int) -> None:
    """Mails came in from the spool, or because their time had come."""
    _queued[source].inc(count)


def recipients_decided(word: str, count: int = 1) -> None:
    """What follows for some recipients was decided."""
    _decided[word].inc(count)
