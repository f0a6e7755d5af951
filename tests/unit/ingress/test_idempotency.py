"""Idempotency keys: replay, in flight, mismatch, and never twice."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from sternpost_ingress.idempotency import (
    BUCKETS,
    KEPT_MS,
    LEASE_MS,
    MAX_ENTRIES,
    MAX_TRIES,
    BucketLike,
    Claim,
    Idempotency,
    KeyInFlight,
    KeyMismatch,
    KeysUnavailable,
    Look,
    Replay,
    Use,
    bucket_of,
    decide,
    hash_key,
)
from sternpost_runtime.bus import Bus, Conflict
from sternpost_runtime.subjects import BUCKET_IDEMPOTENCY
from tests.support.broker import Broker
from tests.unit.ingress.fake_bucket import FakeBucket

NOW = 1_700_000_000_000
KEY = hash_key("shop", "app", "order-1")
USE = Use(KEY, "print", NOW, NOW + LEASE_MS, "mail1", "record1")
WANTED = Use(KEY, "print", NOW, NOW + LEASE_MS, "mail2", "record2")


def look(*uses: Use) -> Look:
    return Look("0001", 1, uses)


def test_an_unknown_key_is_claimed() -> None:
    other = replace(USE, key="other")
    decided = decide(look(other), WANTED, NOW)
    assert decided == (look(other, WANTED), WANTED, False)


def test_an_answer_is_replayed_for_a_day() -> None:
    done = replace(USE, answer="{}")
    assert decide(look(done), WANTED, NOW + KEPT_MS - 1) == Replay("{}")
    assert decide(look(done), WANTED, NOW + KEPT_MS) == (look(WANTED), WANTED, False)


def test_another_request_with_the_key_is_a_mismatch_in_flight_or_not() -> None:
    for use in (USE, replace(USE, answer="{}"), replace(USE, lease_until_ms=0)):
        with pytest.raises(KeyMismatch):
            decide(look(use), replace(WANTED, fingerprint="else"), NOW)


def test_a_claim_is_in_flight_until_its_lease_ends() -> None:
    with pytest.raises(KeyInFlight) as caught:
        decide(look(USE), WANTED, NOW + LEASE_MS - 2500)
    assert caught.value.retry_after == 2
    decided = decide(look(USE), WANTED, NOW + LEASE_MS)
    assert decided == (look(USE), USE, True)  # under the first holder's ids


def test_a_full_bucket_refuses_and_forgets_what_is_too_old() -> None:
    old = [replace(USE, key=str(number)) for number in range(MAX_ENTRIES)]
    with pytest.raises(KeysUnavailable):
        decide(look(*old), WANTED, NOW)
    assert decide(look(*old), WANTED, NOW + KEPT_MS) == (look(WANTED), WANTED, False)


def test_keys_are_told_apart_by_tenant_and_credential() -> None:
    hashes = {
        hash_key(*parts)
        for parts in [("a", "b", "c"), ("a", "x", "c"), ("x", "b", "c"), ("a,b", "", "c"), ("a", "b", "d")]
    }
    assert len(hashes) == 5
    assert all(int(bucket_of(hashed), 16) < BUCKETS for hashed in hashes)


# --- the store -------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bucket() -> FakeBucket:
    return FakeBucket()


@pytest.fixture
def store(bucket: FakeBucket, clock: Clock) -> Idempotency:
    return Idempotency(bucket, clock)


async def claim(store: Idempotency, mail: str = "m1", record: str = "r1", fingerprint: str = "print") -> Claim:
    seen = await store.look(KEY, fingerprint)
    assert isinstance(seen, Look)
    claimed = await store.claim(seen, KEY, fingerprint, mail, record)
    assert isinstance(claimed, Claim)
    return claimed


async def test_claim_finish_replay(store: Idempotency) -> None:
    await store.finish(await claim(store), '{"id":"m1"}')
    assert await store.look(KEY, "print") == Replay('{"id":"m1"}')
    with pytest.raises(KeyMismatch):
        await store.look(KEY, "else")


async def test_of_two_that_looked_together_one_gets_the_claim(store: Idempotency) -> None:
    first, second = await store.look(KEY, "print"), await store.look(KEY, "print")
    assert isinstance(first, Look)
    assert isinstance(second, Look)
    await store.claim(first, KEY, "print", "m1", "r1")
    with pytest.raises(KeyInFlight):
        await store.claim(second, KEY, "print", "m2", "r2")


async def test_a_released_claim_is_forgotten(store: Idempotency) -> None:
    await store.release(await claim(store))
    again = await claim(store, "m2", "r2", "another body")
    assert (again.use.record_id, again.is_repeat) == ("r2", False)


async def test_a_suspended_claim_is_taken_over_at_once_under_its_ids(store: Idempotency) -> None:
    await store.suspend(await claim(store))
    again = await claim(store, "m2", "r2")
    assert (again.use.mail_id, again.use.record_id, again.is_repeat) == ("m1", "r1", True)


async def test_a_claim_that_was_taken_over_is_never_released(store: Idempotency) -> None:
    await store.suspend(await claim(store))
    await store.release(await claim(store, "m2", "r2"))
    again = await claim(store, "m3", "r3")
    assert (again.use.record_id, again.is_repeat) == ("r1", True)


async def test_a_holder_that_crashed_is_followed_by_the_repeat(store: Idempotency, clock: Clock) -> None:
    await claim(store)
    with pytest.raises(KeyInFlight):
        await store.look(KEY, "print")
    clock.now += LEASE_MS
    again = await claim(store, "m2", "r2")
    assert (again.use.record_id, again.is_repeat) == ("r1", True)
    await store.finish(again, "{}")
    assert await store.look(KEY, "print") == Replay("{}")


async def test_a_slow_holder_does_not_undo_what_its_follower_finished(store: Idempotency, clock: Clock) -> None:
    slow = await claim(store)
    clock.now += LEASE_MS
    await store.finish(await claim(store, "m2", "r2"), "{}")
    await store.release(slow)
    assert await store.look(KEY, "print") == Replay("{}")


async def test_a_lost_answer_to_the_claim_is_found_out(store: Idempotency, bucket: FakeBucket) -> None:
    bucket.lose_answers = 1
    held = await claim(store)
    assert (held.use.record_id, held.is_repeat) == ("r1", False)
    bucket.lose_answers = 1
    await store.finish(held, "{}")
    assert await store.look(KEY, "print") == Replay("{}")


async def test_another_key_in_the_bucket_survives_a_race(store: Idempotency, bucket: FakeBucket, clock: Clock) -> None:
    held = await claim(store)
    other = replace(USE, key="neighbour")

    def neighbour() -> None:
        entry = bucket.entries[bucket_of(KEY)]
        row = [other.key, other.fingerprint, NOW, NOW, "m", "r", "answer"]
        bucket.revision += 1
        value = json.dumps([*json.loads(entry.value), row]).encode()
        bucket.entries[bucket_of(KEY)] = replace(entry, value=value, revision=bucket.revision)

    bucket.before_write = neighbour
    await store.finish(held, "{}")
    value = bucket.entries[bucket_of(KEY)].value
    assert b"neighbour" in value
    assert await store.look(KEY, "print") == Replay("{}")


async def test_a_broker_that_is_down_is_said_so(store: Idempotency, bucket: FakeBucket) -> None:
    held = await claim(store)
    bucket.down = True
    with pytest.raises(KeysUnavailable):
        await store.look(KEY, "print")
    with pytest.raises(KeysUnavailable):
        await store.claim(Look(bucket_of(KEY), 0, ()), KEY, "print", "m2", "r2")
    await store.finish(held, "{}")  # the mail is stored; the answer just is not
    bucket.down = False
    with pytest.raises(KeyInFlight):
        await store.look(KEY, "print")


async def test_a_damaged_bucket_is_not_taken_for_empty(store: Idempotency, bucket: FakeBucket) -> None:
    await bucket.create(bucket_of(KEY), b"{")
    with pytest.raises(KeysUnavailable):
        await store.look(KEY, "print")


async def test_the_rounds_are_bounded(clock: Clock) -> None:
    class Contested(FakeBucket):
        writes = 0

        async def create(self, key: str, value: bytes) -> int:
            self.writes += 1
            raise Conflict("always")

    contested = Contested()
    with pytest.raises(KeysUnavailable):
        await Idempotency(contested, clock).claim(Look(bucket_of(KEY), 0, ()), KEY, "print", "m", "r")
    assert contested.writes == MAX_TRIES


# --- the fake is like the real one -----------------------------------------------------------------------------------


@pytest.fixture(params=["fake", "broker"])
async def any_bucket(request: pytest.FixtureRequest, broker: Broker) -> AsyncIterator[BucketLike]:
    if request.param == "fake":
        yield FakeBucket()
        return
    bus = await Bus.connect(broker.settings("ingress"), "ingress")
    try:
        yield bus.bucket(BUCKET_IDEMPOTENCY)
    finally:
        await bus.close()


async def test_a_bucket_compares_and_sets(any_bucket: BucketLike, request: pytest.FixtureRequest) -> None:
    key = f"conformance-{id(request)}"
    assert await any_bucket.get(key) is None
    first = await any_bucket.create(key, b"one")
    with pytest.raises(Conflict):
        await any_bucket.create(key, b"two")
    second = await any_bucket.update(key, b"two", first)
    assert second > first
    with pytest.raises(Conflict):
        await any_bucket.update(key, b"three", first)
    found = await any_bucket.get(key)
    assert found is not None
    assert (found.value, found.revision) == (b"two", second)


async def test_a_key_lives_through_the_store(
    any_bucket: BucketLike, request: pytest.FixtureRequest, clock: Clock
) -> None:
    store = Idempotency(any_bucket, clock)
    key = hash_key("tenant", "credential", f"{id(request)}")
    seen = await store.look(key, "print")
    assert isinstance(seen, Look)
    claimed = await store.claim(seen, key, "print", "m", "r")
    assert isinstance(claimed, Claim)
    await store.finish(claimed, "answer")
    assert await store.look(key, "print") == Replay("answer")
