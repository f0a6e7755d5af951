"""How long a mail waits: doubling, bounded, jittered, obliging to the server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_mail.retry import RetryPolicy

STEADY = RetryPolicy(jitter=0.0)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [(1, 300), (2, 600), (3, 1200), (4, 2400), (5, 4800), (6, 9600), (7, 14400), (8, 14400), (100_000, 14400)],
)
def test_waits_double_up_to_the_longest(attempts: int, expected: float) -> None:
    assert STEADY.wait(attempts, 0.5) == expected


@pytest.mark.parametrize(("random", "expected"), [(0.0, 240.0), (0.25, 270.0), (0.5, 300.0), (0.75, 330.0)])
def test_jitter_spreads_by_its_share_both_ways(random: float, expected: float) -> None:
    assert RetryPolicy().wait(1, random) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("retry_after", "expected", "why"),
    [
        (0.0, 300, "no wish"),
        (60.0, 300, "shorter than ours"),
        (900.0, 900, "longer than ours"),
        (10**6, 14400, "never beyond the longest"),
        (-5.0, 300, "nonsense"),
    ],
)
def test_a_servers_wish(retry_after: float, expected: float, why: str) -> None:
    assert STEADY.wait(1, 0.5, retry_after) == expected, why


@pytest.mark.parametrize("attempts", [0, -1])
def test_nothing_waits_before_its_first_attempt(attempts: int) -> None:
    with pytest.raises(ValueError, match="at least one attempt"):
        STEADY.wait(attempts, 0.5)


@given(
    st.integers(1, 10**9),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1e12),
    st.floats(1, 1e5),
    st.floats(1, 10),
    st.floats(0, 0.9),
)
def test_every_wait_is_within_the_spread_of_its_bounds(
    attempts: int, random: float, retry_after: float, first: float, factor: float, jitter: float
) -> None:
    policy = RetryPolicy(first=first, factor=factor, jitter=jitter)
    wait = policy.wait(attempts, random, retry_after)
    shortest = min(first, policy.longest)
    assert shortest * (1 - jitter) * 0.999 <= wait <= policy.longest * (1 + jitter) * 1.001
