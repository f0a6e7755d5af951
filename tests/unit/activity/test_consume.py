"""The projection's loop with a source and a sink of its own: what is acknowledged, when, and what trouble does."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from sternpost_activity import consume
from sternpost_activity.consume import Projection
from sternpost_activity.database import DatabaseDown, RowsRefused
from sternpost_activity.lag import LagWatch, Progress
from sternpost_activity.project import Changes
from sternpost_mail.events import Event, EventBatch
from sternpost_runtime.bus import NoAnswer
from sternpost_runtime.codec import encode_event_batch
from tests.unit.activity.build import DELIVERED, event


@dataclass
class FakeRecord:
    seq: int
    payload: bytes
    log: list[str]
    stored_ms: int = 0
    ack_fails: bool = False

    async def ack(self) -> None:
        if self.ack_fails:
            raise NoAnswer("no answer")
        self.log.append(f"ack {self.seq}")

    async def term(self) -> None:
        self.log.append(f"term {self.seq}")

    async def in_progress(self) -> None:
        self.log.append(f"beat {self.seq}")


@dataclass
class FakeSink:
    """Fails the first transactions, and refuses those that hold a mail of its list."""

    log: list[str]
    failures: int = 0
    refused: set[str] = field(default_factory=set)

    async def apply(self, batch: Sequence[Event], seq: int) -> Changes:
        if self.failures:
            self.failures -= 1
            raise DatabaseDown("gone")
        if any(one.id in self.refused for one in batch):
            raise RowsRefused("no")
        self.log.append(f"commit {len(batch)} to {seq}")
        return Changes()


class NoSource:
    async def fetch(self, count: int, timeout: float) -> Sequence[FakeRecord]:
        raise AssertionError("not used")


def projection(sink: FakeSink, progress: Progress, *, stopping: bool = False, transaction: int = 1000) -> Projection:
    return Projection(
        NoSource(), sink, progress, lambda: stopping, fetch_records=10, transaction_events=transaction, collect=0
    )


def record(seq: int, log: list[str], *, events: int = 1, poison: bool = False) -> FakeRecord:
    batch = EventBatch(tuple(event(f"{seq}-{n}", n, DELIVERED, mail=seq * 100 + n) for n in range(events)))
    return FakeRecord(seq, b"\xff\xff" if poison else encode_event_batch(batch), log)


async def test_records_are_acknowledged_after_one_common_commit() -> None:
    log: list[str] = []
    progress = Progress()
    await projection(FakeSink(log), progress).project([record(n, log, events=3) for n in (1, 2, 3)])
    assert log == ["commit 9 to 3", "ack 1", "ack 2", "ack 3"]
    assert progress.position == 3


async def test_a_transaction_is_closed_when_it_is_large_enough() -> None:
    log: list[str] = []
    await projection(FakeSink(log), Progress(), transaction=5).project([record(n, log, events=3) for n in (1, 2, 3)])
    assert log == ["commit 6 to 2", "ack 1", "ack 2", "commit 3 to 3", "ack 3"]


async def test_a_record_that_cannot_be_decoded_is_terminated_and_passed() -> None:
    log: list[str] = []
    progress = Progress()
    await projection(FakeSink(log), progress).project([record(1, log), record(2, log, poison=True)])
    assert log == ["commit 1 to 2", "ack 1", "term 2"]
    assert progress.position == 2


async def test_rows_that_the_database_refuses_cost_only_their_own_record() -> None:
    log: list[str] = []
    sink = FakeSink(log, refused={"2-0"})
    await projection(sink, Progress()).project([record(n, log) for n in (1, 2, 3)])
    assert log == ["commit 1 to 1", "commit 0 to 2", "commit 1 to 3", "ack 1", "term 2", "ack 3"]


async def test_records_wait_with_beats_while_the_database_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consume, "FIRST_RETRY", 0.0)
    log: list[str] = []
    runner = projection(FakeSink(log, failures=2), Progress())
    await runner.project([record(1, log)])
    assert log == ["beat 1", "beat 1", "commit 1 to 1", "ack 1"]
    assert runner.database_answers


async def test_a_stop_while_the_database_is_down_leaves_the_records_to_the_broker() -> None:
    log: list[str] = []
    with pytest.raises(consume._Stopping):
        await projection(FakeSink(log, failures=9), Progress(), stopping=True).project([record(1, log)])
    assert log == ["beat 1"]


async def test_an_unconfirmed_acknowledgement_stops_nothing() -> None:
    log: list[str] = []
    first, second = record(1, log), record(2, log)
    first.ack_fails = True
    await projection(FakeSink(log), Progress()).project([first, second])
    assert log == ["commit 2 to 2", "ack 2"]


async def test_waiting_for_a_position_ends_when_it_is_reached_and_not_before() -> None:
    progress = Progress(5)
    assert await progress.reached(5, 0)
    waiter = asyncio.create_task(progress.reached(7, 30))
    await asyncio.sleep(0)  # the waiter is inside now
    await progress.advance(6)
    assert not waiter.done()
    await progress.advance(7)
    assert await waiter
    await progress.advance(3)
    assert progress.position == 7
    assert not await progress.reached(8, 0.01)


def test_lag_grows_only_while_the_projection_does_not_come_to_what_was_there() -> None:
    lag = LagWatch()
    steps = [  # now, last_seq, position, seconds behind
        (0.0, 100, 100, 0.0),
        (5.0, 200, 150, 0.0),  # the mark is set now
        (10.0, 300, 190, 5.0),
        (15.0, 400, 200, 0.0),  # reached: what came since is the new mark
        (20.0, 500, 399, 5.0),
        (25.0, 500, 500, 0.0),
        (30.0, 3, 0, 0.0),  # the stream was made anew
    ]
    assert [lag.observe(now, last, position) for now, last, position, _ in steps] == [step[3] for step in steps]
