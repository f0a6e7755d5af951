"""What the auth service tells of itself: metrics, and one function per business event. No login is ever a label."""

import structlog
from prometheus_client import Counter, Histogram

from sternpost_mail.config import CredentialKind
from sternpost_runtime.telemetry import sampled

_answers = Counter("sternpost_auth_answers_total", "Logins answered", ["kind", "verdict", "reason"])
_seconds = Histogram(
    "sternpost_auth_verify_seconds",
    "From question to answer",
    ["kind"],
    buckets=(0.0005, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
_seconds_of = {kind: _seconds.labels(kind) for kind in CredentialKind}
_log_hash = sampled(structlog.get_logger("sternpost.auth"), every=100, level="error")


def verified(kind: CredentialKind, seconds: float) -> None:
    """A secret was right."""
    _answers.labels(kind, "granted", "").inc()
    _seconds_of[kind].observe(seconds)


def denied(kind: CredentialKind, seconds: float) -> None:
    """A secret was wrong or its login unknown; which of them is not told apart."""
    _answers.labels(kind, "denied", "wrong").inc()
    _seconds_of[kind].observe(seconds)


def limited(kind: CredentialKind) -> None:
    """A client that failed too often was denied without a look at the secret."""
    _answers.labels(kind, "denied", "limited").inc()


def malformed() -> None:
    """What was asked cannot be any login."""
    _answers.labels("", "denied", "malformed").inc()


def not_ready() -> None:
    """There is no complete configuration yet."""
    _answers.labels("", "unavailable", "configuration").inc()


def overloaded(kind: CredentialKind) -> None:
    """Too many passwords wait already."""
    _answers.labels(kind, "unavailable", "overloaded").inc()


def hash_unreadable(tenant: str, name: str) -> None:
    """The configuration holds a hash that cannot be verified; the credential needs to be compiled anew."""
    _answers.labels(CredentialKind.SMTP_PASSWORD, "unavailable", "hash").inc()
    _log_hash("credential_hash_unreadable", tenant=tenant, credential=name)
