"""Natural batching: nobody waits on a timer, but while one flush is in flight whatever else is ready goes into the next.

One item alone leaves at once; fifty concurrent producers share one durable write. This file knows nothing of brokers: the
flush function is given.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Overloaded(Exception):
    """More items wait than the batcher may hold: the caller tells its own client to come again later."""


class Batcher(Generic[T, R]):
    """Collects items while a flush is in flight and hands them on together.

    `flush` gets a list of items and returns one result per item, in order; what it raises is raised to each producer of that
    batch. `max_bytes` and `max_count` bound one batch (a single item larger than `max_bytes` goes alone), `max_waiting`
    bounds the items that wait (promise P8), `in_flight` is how many flushes may run at once.
    """

    def __init__(
        self,
        flush: Callable[[list[T]], Awaitable[Sequence[R]]],
        *,
        size: Callable[[T], int],
        max_bytes: int,
        max_count: int,
        max_waiting: int,
        in_flight: int = 1,
    ) -> None:
        self._flush = flush
        self._size = size
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._max_waiting = max_waiting
        self._room = in_flight
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._wakeup_scheduled = False

    def __len__(self) -> int:
        """How many items wait for their flush to begin."""
        return len(self._waiting)

    async def put(self, item: T) -> R:
        """Hand over one item; returns its result when its batch is through. Raises Overloaded, or what flush raised."""
        return await self.submit(item)

    def submit(self, item: T) -> "asyncio.Future[R]":
        """Like `put` without a coroutine: the future of the item's result. Raises Overloaded at once."""
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} items wait already")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if self._room > 0 and not self._wakeup_scheduled:
            # After the loop's other ready callbacks: producers that are ready in this very iteration share the batch.
            self._wakeup_scheduled = True
            loop.call_soon(self._start)
        return future

    async def close(self) -> None:
        """Flush what waits and return when nothing is in flight. Items put later start a new flush."""
        while self._running or self._waiting:
            if self._running:
                await asyncio.wait(self._running)
            else:
                self._start()

    def _start(self) -> None:
        self._wakeup_scheduled = False
        while self._room > 0 and self._waiting:
            batch = self._take()
            self._room -= 1
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._room += 1
        self._start()

    def _take(self) -> list[tuple[T, "asyncio.Future[R]"]]:
        batch = [self._waiting.popleft()]
        total = self._size(batch[0][0])
        while self._waiting and len(batch) < self._max_count:
            total += self._size(self._waiting[0][0])
            if total > self._max_bytes:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _run(self, batch: list[tuple[T, "asyncio.Future[R]"]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"flush returned {len(results)} results for {len(batch)} items")
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
