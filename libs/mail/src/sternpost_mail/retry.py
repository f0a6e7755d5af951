"""When to try again: a value and a function of time, no clock, no randomness of its own."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retry by time, doubling, with jitter. All durations are seconds.

    The defaults follow RFC 5321 §4.5.4.1 (give up after four to five days) with a short first wait, because greylisting is
    the commonest reason for a first 4yz and asks for a few minutes.
    """

    first: float = 300.0
    """Wait after the first failure."""
    factor: float = 2.0
    longest: float = 4 * 3600.0
    """No wait is longer: a site that comes back is noticed within this."""
    jitter: float = 0.2
    """Each wait is spread by plus or minus this share, so that mails that failed together do not return together."""
    lifetime: float = 5 * 86400.0
    """From acceptance to expiry."""
    delay_notice: float = 4 * 3600.0
    """A delay report (RFC 3461 NOTIFY=DELAY) is due when the mail is this old."""

    def wait(self, attempts: int, random: float, retry_after: float = 0.0) -> float:
        """Seconds until the next attempt after `attempts` failed ones (1 or more); `random` is in [0, 1).

        A server's own wish (`retry_after`) is obeyed where it is longer, but never beyond the longest wait.
        """
        if attempts < 1:
            raise ValueError("a wait follows at least one attempt")
        steady = min(self.first * self.factor ** min(attempts - 1, 64), self.longest)
        spread = steady * (1.0 + self.jitter * (2.0 * random - 1.0))
        return max(spread, min(retry_after, self.longest))


DEFAULT_RETRY = RetryPolicy()
