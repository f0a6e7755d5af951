"""Done, again later, never: the tables of what follows from an attempt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_mail.envelope import Notify
from sternpost_mail.events import OutcomeKind, Result
from sternpost_mail.retry import RetryPolicy
from sternpost_mail.states import State
from sternpost_queue.schedule import (
    LAST_CHANCE_MS,
    Next,
    SitePause,
    decide,
    expiry_ms,
    is_too_late,
    retry_moment_ms,
    wants_delay_report,
    wants_failure_report,
    wants_success_report,
)

END = 1_000_000


@pytest.mark.parametrize(
    ("outcome", "now_ms", "expected", "why"),
    [
        (OutcomeKind.DELIVERED, END - 1, Next.DONE, "taken"),
        (OutcomeKind.DELIVERED, END + 1, Next.DONE, "taken late is taken"),
        (OutcomeKind.PERMANENT, END - 1, Next.BOUNCE, "refused for good"),
        (OutcomeKind.PERMANENT, END + 1, Next.BOUNCE, "refused for good, late: the refusal is the better reason"),
        (OutcomeKind.TEMPORARY, END - 1, Next.RETRY, "in time"),
        (OutcomeKind.TEMPORARY, END, Next.EXPIRE, "its time is up"),
        (OutcomeKind.UNREACHED, END - 1, Next.RETRY, "in time"),
        (OutcomeKind.UNREACHED, END, Next.EXPIRE, "its time is up"),
        (OutcomeKind.NONE, END - 1, Next.RETRY, "unknown means temporary"),
        (None, END - 1, Next.RETRY, "the worker gave it back"),
        (None, END, Next.EXPIRE, "given back when its time is up"),
    ],
)
def test_what_follows_from_a_result(outcome: OutcomeKind | None, now_ms: int, expected: Next, why: str) -> None:
    result = Result(0, "b@there.example", State.DEFERRED, outcome) if outcome is not None else None
    assert decide(result, now_ms=now_ms, expires_ms=END) is expected, why


@pytest.mark.parametrize(
    ("attempts", "retry_after", "now_ms", "expires_ms", "expected", "why"),
    [
        (1, 0.0, 0, 10**9, 300_000, "the first wait"),
        (2, 0.0, 0, 10**9, 600_000, "doubles"),
        (1, 500.0, 0, 10**9, 500_000, "the server's wish where it is longer"),
        (2, 500.0, 0, 10**9, 600_000, "ours where that is longer"),
        (1, 10**6, 0, 10**9, 14_400_000, "a wish never beyond the longest wait"),
        (1, 0.0, 0, 200_000, 200_000, "not beyond the mail's life: a last attempt then"),
        (1, 0.0, 200_000, 200_000, 201_000, "at the very end, a second later: never at once"),
        (1, 0.0, 300_000, 200_000, 301_000, "past its end, a second later"),
    ],
)
def test_the_moment_of_the_next_attempt(
    attempts: int, retry_after: float, now_ms: int, expires_ms: int, expected: int, why: str
) -> None:
    moment = retry_moment_ms(
        RetryPolicy(jitter=0.0),
        attempts=attempts,
        random=0.5,
        retry_after=retry_after,
        now_ms=now_ms,
        expires_ms=expires_ms,
    )
    assert moment == expected, why


@given(
    attempts=st.integers(1, 10_000),
    random=st.floats(0, 1, exclude_max=True),
    retry_after=st.floats(0, 1e9),
    now_ms=st.integers(0, 2**42),
    left_ms=st.integers(-(10**9), 10**9),
)
def test_the_next_attempt_is_in_the_future_and_within_the_mails_life(
    attempts: int, random: float, retry_after: float, now_ms: int, left_ms: int
) -> None:
    moment = retry_moment_ms(
        RetryPolicy(),
        attempts=attempts,
        random=random,
        retry_after=retry_after,
        now_ms=now_ms,
        expires_ms=now_ms + left_ms,
    )
    assert now_ms < moment <= max(now_ms + left_ms, now_ms + 1000)


@pytest.mark.parametrize(
    ("accepted_ms", "expires_ms", "not_before_ms", "expected", "why"),
    [
        (0, 500_000, 0, 100_000, "the route's lifetime is shorter"),
        (0, 50_000, 0, 50_000, "the mail's own end is earlier"),
        (0, 500_000, 200_000, 300_000, "a scheduled mail's time on the route runs from its moment"),
        (250_000, 500_000, 200_000, 350_000, "a moment in the past counts for nothing"),
    ],
)
def test_the_end_of_a_mails_life(
    accepted_ms: int, expires_ms: int, not_before_ms: int, expected: int, why: str
) -> None:
    assert expiry_ms(RetryPolicy(lifetime=100), accepted_ms, expires_ms, not_before_ms) == expected, why


def test_a_mail_gets_its_last_attempt_at_its_end_and_none_long_after() -> None:
    assert not is_too_late(now_ms=END, expires_ms=END)
    assert not is_too_late(now_ms=END + LAST_CHANCE_MS - 1, expires_ms=END)
    assert is_too_late(now_ms=END + LAST_CHANCE_MS, expires_ms=END)


@pytest.mark.parametrize(
    ("strikes", "random", "expected"),
    [(1, 0.5, 15), (2, 0.5, 30), (6, 0.5, 480), (7, 0.5, 600), (1000, 0.5, 600), (1, 0.0, 12), (1, 1.0, 18)],
)
def test_a_site_rests_longer_with_each_refusal(strikes: int, random: float, expected: float) -> None:
    assert SitePause().after(strikes, random) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("notify", "failure", "success", "delay"),
    [
        (Notify.DEFAULT, True, False, False),
        (Notify.NEVER, False, False, False),
        (Notify.FAILURE, True, False, False),
        (Notify.SUCCESS, False, True, False),
        (Notify.DELAY, False, False, True),
        (Notify.SUCCESS | Notify.FAILURE, True, True, False),
        (Notify.SUCCESS | Notify.DELAY, False, True, True),
        (Notify.FAILURE | Notify.DELAY, True, False, True),
        (Notify.SUCCESS | Notify.FAILURE | Notify.DELAY, True, True, True),
    ],
)
def test_which_reports_a_notify_asks_for(notify: Notify, failure: bool, success: bool, delay: bool) -> None:
    """RFC 3461 §4.1 and §5.2."""
    assert wants_failure_report(notify) is failure
    assert wants_success_report(notify) is success
    assert wants_delay_report(notify) is delay
