"""What follows from the results of an attempt: done, again later, never. Pure: `decide(facts, now) -> decision`."""

from dataclasses import dataclass
from enum import StrEnum

from sternpost_mail.envelope import Notify
from sternpost_mail.events import OutcomeKind, Result
from sternpost_mail.retry import RetryPolicy


class Next(StrEnum):
    """What follows for one recipient."""

    DONE = "done"
    RETRY = "retry"
    BOUNCE = "bounce"
    EXPIRE = "expire"


def decide(result: Result | None, *, now_ms: int, expires_ms: int) -> Next:
    """What follows from one recipient's result; None (the worker gave the job back) means try again."""
    if result is not None:
        if result.outcome is OutcomeKind.DELIVERED:
            return Next.DONE
        if result.outcome is OutcomeKind.PERMANENT:
            return Next.BOUNCE
    return Next.EXPIRE if now_ms >= expires_ms else Next.RETRY


def retry_moment_ms(
    policy: RetryPolicy, *, attempts: int, random: float, retry_after: float, now_ms: int, expires_ms: int
) -> int:
    """When to try again, milliseconds since the epoch. A wait that would outlive the mail ends with its lifetime: the
    last attempt is made then, so nothing expires untried for its last hours."""
    moment = now_ms + int(policy.wait(attempts, random, retry_after) * 1000)
    return min(moment, max(expires_ms, now_ms + 1000))


def expiry_ms(policy: RetryPolicy, accepted_ms: int, expires_ms: int, not_before_ms: int = 0) -> int:
    """The end of a mail's life: its own, or the route's when that is earlier, which runs from when it may be sent."""
    return min(expires_ms, max(accepted_ms, not_before_ms) + int(policy.lifetime * 1000))


LAST_CHANCE_MS = 15 * 60_000
"""A mail whose time is up gets one last attempt; one that comes back later than this after its end gets none."""


def is_too_late(*, now_ms: int, expires_ms: int) -> bool:
    """Whether a mail that comes back is not tried once more. Parking can keep it away from its last moment for long."""
    return now_ms >= expires_ms + LAST_CHANCE_MS


@dataclass(frozen=True, slots=True)
class SitePause:
    """How long a site rests after it refused as a whole. Seconds."""

    first: float = 15.0
    longest: float = 600.0

    def after(self, strikes: int, random: float) -> float:
        """The rest after so many refusals in a row (1 or more), spread by a fifth."""
        return float(min(self.first * 2.0 ** min(strikes - 1, 16), self.longest) * (0.8 + 0.4 * random))


def wants_failure_report(notify: Notify) -> bool:
    """RFC 3461 §5.2.1: a report on failure by default, or where FAILURE is named; never with NEVER."""
    return notify is Notify.DEFAULT or Notify.FAILURE in notify


def wants_success_report(notify: Notify) -> bool:
    """Only where SUCCESS is named."""
    return Notify.SUCCESS in notify


def wants_delay_report(notify: Notify) -> bool:
    """Only where DELAY is named: an unasked notice is noise."""
    return Notify.DELAY in notify
