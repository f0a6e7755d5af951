"""Natural batching: nobody waits on a timer, nobody is lost, and every bound holds."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_runtime.batch import Batcher, Overloaded


class Flushes:
    """A flush that records its batches and waits at a gate until it is let through."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.begun = asyncio.Condition()
        self.gate = asyncio.Event()
        self.at_once = 0
        self.most_at_once = 0
        if is_open:
            self.gate.set()

    async def __call__(self, items: list[int]) -> Sequence[str]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        async with self.begun:
            self.batches.append(list(items))
            self.begun.notify_all()
        await self.gate.wait()
        self.at_once -= 1
        return [f"done {item}" for item in items]

    async def wait_for(self, count: int) -> None:
        async with self.begun, asyncio.timeout(5):
            await self.begun.wait_for(lambda: len(self.batches) >= count)


def make_batcher(
    flush: Flushes, *, max_bytes: int = 1000, max_count: int = 100, max_waiting: int = 1000, in_flight: int = 1
) -> Batcher[int, str]:
    return Batcher(
        flush,
        size=lambda item: item,
        max_bytes=max_bytes,
        max_count=max_count,
        max_waiting=max_waiting,
        in_flight=in_flight,
    )


async def test_one_item_alone_leaves_at_once() -> None:
    flush = Flushes(is_open=True)
    assert await make_batcher(flush).put(7) == "done 7"
    assert flush.batches == [[7]]


async def test_producers_that_are_ready_together_share_a_batch() -> None:
    flush = Flushes(is_open=True)
    batcher = make_batcher(flush)
    assert await asyncio.gather(*(batcher.put(n) for n in range(5))) == [f"done {n}" for n in range(5)]
    assert flush.batches == [[0, 1, 2, 3, 4]]


async def test_what_comes_while_a_flush_is_in_flight_goes_into_the_next() -> None:
    flush = Flushes()
    batcher = make_batcher(flush)
    first = batcher.submit(1)
    await flush.wait_for(1)
    rest = [batcher.submit(n) for n in range(2, 6)]
    assert (flush.batches, len(batcher)) == ([[1]], 4)
    flush.gate.set()
    assert await first == "done 1"
    await asyncio.gather(*rest)
    assert flush.batches == [[1], [2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("items", "max_bytes", "max_count", "expected", "why"),
    [
        ([1, 1, 1, 1, 1], 1000, 2, [[1, 1], [1, 1], [1]], "count"),
        ([400, 400, 400], 1000, 100, [[400, 400], [400]], "octets"),
        ([500, 500, 1], 1000, 100, [[500, 500], [1]], "exactly full"),
        ([5000, 1, 1], 1000, 100, [[5000], [1, 1]], "one that is too large goes alone"),
        ([1, 5000, 1], 1000, 100, [[1], [5000], [1]], "wherever it stands"),
    ],
)
async def test_a_batch_is_bounded(
    items: list[int], max_bytes: int, max_count: int, expected: list[list[int]], why: str
) -> None:
    flush = Flushes(is_open=True)
    batcher = make_batcher(flush, max_bytes=max_bytes, max_count=max_count)
    await asyncio.gather(*(batcher.put(item) for item in items))
    assert flush.batches == expected, why


async def test_more_than_may_wait_are_told_so_at_once_and_the_others_are_not_harmed() -> None:
    flush = Flushes()
    batcher = make_batcher(flush, max_waiting=3)
    first = batcher.submit(1)
    await flush.wait_for(1)
    waiting = [batcher.submit(n) for n in (2, 3, 4)]
    with pytest.raises(Overloaded, match="3 items"):
        batcher.submit(5)
    with pytest.raises(Overloaded):
        await batcher.put(6)
    flush.gate.set()
    assert await asyncio.gather(first, *waiting) == ["done 1", "done 2", "done 3", "done 4"]
    assert await batcher.put(7) == "done 7"


async def test_a_failure_reaches_every_producer_of_its_batch_and_no_other() -> None:
    async def flush(items: list[int]) -> Sequence[int]:
        if 13 in items:
            raise ConnectionError("broker down")
        return items

    batcher: Batcher[int, int] = Batcher(flush, size=lambda _: 1, max_bytes=2, max_count=2, max_waiting=10)
    outcomes = await asyncio.gather(*(batcher.put(n) for n in (1, 2, 13, 4, 5)), return_exceptions=True)
    assert [type(o) for o in outcomes] == [int, int, ConnectionError, ConnectionError, int]


async def test_a_flush_that_returns_too_few_results_is_an_error_not_a_shift() -> None:
    async def flush(items: list[int]) -> Sequence[int]:
        return items[1:]

    batcher: Batcher[int, int] = Batcher(flush, size=lambda _: 1, max_bytes=9, max_count=9, max_waiting=9)
    outcomes = await asyncio.gather(batcher.put(1), batcher.put(2), return_exceptions=True)
    assert all(isinstance(o, RuntimeError) for o in outcomes)


async def test_a_producer_that_went_away_takes_nobody_with_it() -> None:
    flush = Flushes()
    batcher = make_batcher(flush)
    impatient, patient = asyncio.ensure_future(batcher.put(1)), asyncio.ensure_future(batcher.put(2))
    await flush.wait_for(1)
    impatient.cancel()
    flush.gate.set()
    assert await patient == "done 2"
    assert flush.batches == [[1, 2]], "what was handed over is written"


@pytest.mark.parametrize("in_flight", [1, 2, 3])
async def test_no_more_flushes_run_at_once_than_may(in_flight: int) -> None:
    flush = Flushes()
    batcher = make_batcher(flush, max_count=1, in_flight=in_flight)
    futures = [batcher.submit(n) for n in range(6)]
    await flush.wait_for(in_flight)
    assert len(flush.batches) == in_flight
    flush.gate.set()
    await asyncio.gather(*futures)
    assert flush.most_at_once == in_flight


async def test_close_waits_for_what_is_in_flight_and_for_what_waits() -> None:
    flush = Flushes()
    batcher = make_batcher(flush, max_count=1)
    futures = [batcher.submit(n) for n in range(4)]
    await flush.wait_for(1)
    closing = asyncio.ensure_future(batcher.close())
    flush.gate.set()
    await asyncio.wait_for(closing, 5)
    assert all(future.done() for future in futures)
    assert await batcher.put(9) == "done 9", "a late item starts a new flush"


async def test_close_of_an_idle_batcher_returns() -> None:
    await asyncio.wait_for(make_batcher(Flushes()).close(), 1)


@given(
    sizes=st.lists(st.integers(1, 60), max_size=60),
    max_bytes=st.integers(1, 100),
    max_count=st.integers(1, 10),
    in_flight=st.integers(1, 3),
    pauses=st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_every_item_is_flushed_once_in_order_within_the_bounds(
    sizes: list[int], max_bytes: int, max_count: int, in_flight: int, pauses: list[bool]
) -> None:
    batches: list[list[tuple[int, int]]] = []

    async def flush(items: list[tuple[int, int]]) -> Sequence[int]:
        batches.append(items)
        await asyncio.sleep(0)
        return [number for number, _ in items]

    async def run() -> list[int]:
        batcher: Batcher[tuple[int, int], int] = Batcher(
            flush,
            size=lambda item: item[1],
            max_bytes=max_bytes,
            max_count=max_count,
            max_waiting=1000,
            in_flight=in_flight,
        )
        futures = []
        for number, size in enumerate(sizes):
            futures.append(batcher.submit((number, size)))
            if pauses[number]:
                await asyncio.sleep(0)
        return list(await asyncio.gather(*futures))

    assert asyncio.run(run()) == list(range(len(sizes)))
    assert [number for batch in batches for number, _ in batch] == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) <= max_count
        assert len(batch) == 1 or sum(size for _, size in batch) <= max_bytes
