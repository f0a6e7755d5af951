"""What the doors tell of themselves: Prometheus metrics, and one function per business event.

Labels have few values on purpose: no address, no domain and no identity is ever one. Per-mail facts are events in the
broker; nothing here writes a log line per mail.
"""

from prometheus_client import Counter, Gauge, Histogram

_LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)

_connections = Counter("sternpost_ingress_connections_total", "SMTP connections taken", ["door"])
_connections_refused = Counter("sternpost_ingress_connections_refused_total", "SMTP connections refused", ["reason"])
_sessions = Gauge("sternpost_ingress_sessions", "SMTP sessions that are open", ["door"])
_sessions_ended = Counter(
    "sternpost_ingress_sessions_ended_total", "SMTP sessions that the door ended itself", ["reason"]
)
_accepted = Counter("sternpost_ingress_mails_accepted_total", "mails answered 250 or 202", ["door"])
_accepted_octets = Counter("sternpost_ingress_mails_accepted_octets_total", "octets of the mails accepted", ["door"])
_refused = Counter("sternpost_ingress_refused_total", "commands and mails refused", ["door", "code", "reason"])
_unknown = Counter("sternpost_ingress_outcome_unknown_total", "final dots that nobody could answer", ["door"])
_auth = Counter("sternpost_ingress_auth_total", "answers to AUTH and to API keys", ["verdict"])
_auth_cache = Counter("sternpost_ingress_auth_cache_total", "looks into the cache of granted logins", ["result"])
_tls = Counter("sternpost_ingress_tls_handshakes_total", "TLS handshakes", ["result"])
_in_flight = Gauge("sternpost_ingress_content_octets", "octets of mail that are held in memory now")
_faults = Counter("sternpost_ingress_faults_total", "faults of our own that a client was answered 4xx for", ["where"])
_settle = Histogram("sternpost_ingress_settle_seconds", "from the final dot to its answer", buckets=_LATENCY)
_batches = Histogram("sternpost_ingress_spool_batch_mails", "mails in one spool record", buckets=(1, 2, 5, 10, 20, 50))
_store = Histogram("sternpost_ingress_spool_store_seconds", "publish to PubAck of a spool record", buckets=_LATENCY)
_spool_refused = Counter("sternpost_ingress_spool_refused_total", "mails that the spool refused", ["reason"])
_fenced = Counter("sternpost_ingress_spool_fenced_total", "records settled by a fence, by its outcome", ["outcome"])
_duplicates = Counter("sternpost_ingress_spool_unexpected_duplicates_total", "fresh record ids that the broker knew")

_DOORS = ("mx", "submission", "submissions", "http")
_accepted_of = {door: _accepted.labels(door) for door in _DOORS}  # looking a label up costs more than counting
_octets_of = {door: _accepted_octets.labels(door) for door in _DOORS}
_connections_of = {door: _connections.labels(door) for door in _DOORS}
_sessions_of = {door: _sessions.labels(door) for door in _DOORS}


def connection_opened(door: str) -> None:
    """A client connected and was let in."""
    _connections_of[door].inc()
    _sessions_of[door].inc()


def connection_closed(door: str) -> None:
    """A session that was let in is over."""
    _sessions_of[door].dec()


def connection_refused(reason: str) -> None:
    """A client was turned away before a session began."""
    _connections_refused.labels(reason).inc()


def session_ended(reason: str) -> None:
    """The door ended a session: idle, slow, too many errors, shutting down."""
    _sessions_ended.labels(reason).inc()


def mail_accepted(door: str, octets: int, seconds: float = 0.0) -> None:
    """A mail is durable and was answered 250 or 202; `seconds` from its final dot."""
    _accepted_of[door].inc()
    _octets_of[door].inc(octets)
    _settle.observe(seconds)


def mail_refused(door: str, code: int, reason: str) -> None:
    """A mail, sender or recipient was refused; `reason` is a short token (a problem type or an enhanced code)."""
    _refused.labels(door, str(code), reason).inc()


def outcome_unknown(door: str) -> None:
    """Nobody can tell whether a mail is stored: the connection was closed without a reply (promise P3)."""
    _unknown.labels(door).inc()


def auth_answered(verdict: str) -> None:
    """A login was granted, denied, or could not be verified (unavailable)."""
    _auth.labels(verdict).inc()


def auth_cache_asked(hit: bool) -> None:
    """The cache of granted logins was asked."""
    _auth_cache.labels("hit" if hit else "miss").inc()


def tls_started(succeeded: bool) -> None:
    """A TLS handshake came to its end."""
    _tls.labels("done" if succeeded else "failed").inc()


def content_in_flight(octets: int) -> None:
    """So many octets of content are held now, over all sessions."""
    _in_flight.set(octets)


def fault(where: str) -> None:
    """Our own fault was answered 4xx."""
    _faults.labels(where).inc()


def spool_batch_stored(mails: int, seconds: float) -> None:
    """A spool record of so many mails is durable."""
    _batches.observe(mails)
    _store.observe(seconds)


def spool_refused(reason: str) -> None:
    """The spool refused a mail: down, full, overloaded or fenced."""
    _spool_refused.labels(reason).inc()


def spool_fenced(outcome: str) -> None:
    """A fence settled a record: stored, refused, or unknown when even the fence was not answered."""
    _fenced.labels(outcome).inc()


def spool_unexpected_duplicate() -> None:
    """A record id made a moment ago was already known to the broker: something is wrong."""
    _duplicates.inc()
