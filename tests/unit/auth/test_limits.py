"""Guessing is slow; nobody locks anybody else out; tables stay small."""

import pytest

from sternpost_auth.limits import FailureCounts, Limits, network_of

LIMITS = Limits(per_login=10, per_client=50, window=300.0, entries=100, trusted=5)
CLIENT, OTHER = "192.0.2.1", "198.51.100.7"


def fail(counts: FailureCounts, times: int, login: str = "alice", client: str = CLIENT, now: float = 0.0) -> None:
    for _ in range(times):
        counts.failed(client, login, now)


def test_after_ten_failures_the_eleventh_try_has_to_wait_half_a_minute() -> None:
    counts = FailureCounts(LIMITS)
    fail(counts, 9)
    assert counts.may_try(CLIENT, "alice", 0.0)
    fail(counts, 1)
    assert not counts.may_try(CLIENT, "alice", 0.001)
    assert not counts.may_try(CLIENT, "alice", 29.9)
    assert counts.may_try(CLIENT, "alice", 30.1)
    fail(counts, 1, now=30.1)
    assert not counts.may_try(CLIENT, "alice", 30.2)


def test_an_attacker_elsewhere_does_not_lock_the_user_out() -> None:
    counts = FailureCounts(LIMITS)
    fail(counts, 1000, client=OTHER)
    assert not counts.may_try(OTHER, "alice", 1.0)
    assert counts.may_try(CLIENT, "alice", 1.0)


def test_a_client_that_tries_many_logins_is_stopped_for_all_of_them() -> None:
    counts = FailureCounts(LIMITS)
    for number in range(50):
        fail(counts, 1, login=f"user{number}")
    assert not counts.may_try(CLIENT, "never-tried", 0.1)


def test_who_succeeded_before_is_not_stopped_by_a_neighbour_at_the_same_address() -> None:
    counts = FailureCounts(LIMITS)
    counts.succeeded(CLIENT, "good")
    for number in range(60):
        fail(counts, 1, login=f"bad{number}")
    assert counts.may_try(CLIENT, "good", 0.1)
    assert not counts.may_try(CLIENT, "other", 0.1)


def test_a_good_login_of_ones_own_does_not_reset_the_clients_total() -> None:
    counts = FailureCounts(LIMITS)
    for number in range(50):
        fail(counts, 1, login=f"user{number}")
    counts.succeeded(CLIENT, "mine")
    assert not counts.may_try(CLIENT, "theirs", 0.1)


def test_success_forgets_the_pairs_own_failures() -> None:
    counts = FailureCounts(LIMITS)
    fail(counts, 9)
    counts.succeeded(CLIENT, "alice")
    fail(counts, 9)
    assert counts.may_try(CLIENT, "alice", 0.0)


def test_api_keys_neither_count_towards_the_client_nor_are_stopped_by_it() -> None:
    counts = FailureCounts(LIMITS)
    for number in range(60):
        counts.failed(CLIENT, f"sp_{number}", 0.0, guessable=False)
    assert counts.may_try(CLIENT, "alice", 0.0)
    for number in range(60):
        fail(counts, 1, login=f"user{number}")
    assert counts.may_try(CLIENT, "sp_new", 0.0, guessable=False)
    for _ in range(10):
        counts.failed(CLIENT, "sp_old", 0.0, guessable=False)
    assert not counts.may_try(CLIENT, "sp_old", 0.1, guessable=False)


def test_the_wait_does_not_grow_with_attempts_that_ran_side_by_side() -> None:
    counts = FailureCounts(LIMITS)
    fail(counts, 500)
    assert counts.may_try(CLIENT, "alice", 31.0)


def test_tables_never_grow_beyond_their_limit_and_the_oldest_goes_first() -> None:
    counts = FailureCounts(LIMITS)
    fail(counts, 10, login="first")
    for number in range(1000):
        fail(counts, 1, client=f"10.0.{number // 250}.{number % 250}")
    assert len(counts) == LIMITS.entries
    assert counts.may_try(CLIENT, "first", 0.0)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("", "", True),
        ("unix", "unix", True),
    ],
)
def test_what_counts_as_one_client(one: str, two: str, same: bool) -> None:
    assert (network_of(one) == network_of(two)) is same
