"""The loop that moves records of EVENTS into the tables: fetch, one transaction, then acknowledge.

A record is acknowledged only after its rows are committed. Where the database is down, the records in hand wait here
(and the others in EVENTS); where the rows of a record will never fit, that record alone is given up, counted and
logged.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sternpost_activity import telemetry
from sternpost_activity.database import DatabaseDown, RowsRefused
from sternpost_activity.lag import Progress
from sternpost_activity.project import Changes
from sternpost_mail.events import Event
from sternpost_runtime.bus import BusError
from sternpost_runtime.codec import CodecError, decode_event_batch

FETCH_SECONDS = 0.5
"""How long one pull waits for records; a stop is seen after this."""
FIRST_RETRY = 0.5
"""Seconds before the first new try of a transaction that the database did not take."""
LONGEST_RETRY = 8.0
"""Seconds between later ones: less than the 30 s after which the broker would hand the records to somebody else."""


class Record(Protocol):
    """A delivery of the bus."""

    payload: bytes
    seq: int
    stored_ms: int

    async def ack(self) -> None:
        """Done with it."""

    async def term(self) -> None:
        """Never again."""

    async def in_progress(self) -> None:
        """Still working on it."""


class Source(Protocol):
    """A puller of the bus."""

    async def fetch(self, count: int, timeout: float) -> Sequence[Record]:
        """At most `count` records, none after `timeout` seconds."""


class Sink(Protocol):
    """The store."""

    async def apply(self, batch: Sequence[Event], seq: int) -> Changes:
        """One transaction."""


class Projection:
    """Runs until it is told to stop. `collect` (seconds) is the least time between transactions of a trickle."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        progress: Progress,
        is_stopping: Callable[[], bool],
        *,
        fetch_records: int,
        transaction_events: int,
        collect: float,
    ) -> None:
        self._source = source
        self._sink = sink
        self._progress = progress
        self._is_stopping = is_stopping
        self._fetch_records = fetch_records
        self._transaction_events = transaction_events
        self._collect = collect
        self.database_answers = True
        self.last_age = 0.0
        """Seconds between the newest record of the last transaction and its commit."""

    async def run(self) -> None:
        """Fetch and project until the service stops."""
        while not self._is_stopping():
            records = await self._source.fetch(self._fetch_records, FETCH_SECONDS)
            if not records:
                continue
            fetched = time.monotonic()
            try:
                await self.project(records)
            except _Stopping:
                return
            if len(records) < self._fetch_records:
                # A trickle: the first is projected at once, what follows comes together.
                await asyncio.sleep(max(0.0, fetched + self._collect - time.monotonic()))

    async def project(self, records: Sequence[Record]) -> None:
        """Move these records into the tables and acknowledge them."""
        group: list[tuple[Record, tuple[Event, ...]]] = []
        poison: list[Record] = []
        count = 0
        for record in records:
            try:
                events = decode_event_batch(record.payload).events
            except CodecError as error:
                telemetry.record_given_up("undecodable", record.seq, str(error))
                poison.append(record)
                events = ()
            group.append((record, events))
            count += len(events)
            if count >= self._transaction_events:
                await self._finish(group, poison)
                group, poison, count = [], [], 0
        if group:
            await self._finish(group, poison)

    async def _finish(self, group: list[tuple[Record, tuple[Event, ...]]], poison: list[Record]) -> None:
        try:
            await self._apply(group)
        except RowsRefused:
            # One of them has rows that the database will never take: find it, keep the others.
            for pair in group:
                try:
                    await self._apply([pair])
                except RowsRefused as error:
                    telemetry.record_given_up("refused", pair[0].seq, str(error))
                    poison.append(pair[0])
                    await self._apply([(pair[0], ())])
        bad = {record.seq for record in poison}
        ends = [record.term() if record.seq in bad else record.ack() for record, _ in group]
        results = await asyncio.gather(*ends, return_exceptions=True)
        lost = 0
        for result in results:
            if isinstance(result, BusError):
                lost += 1  # it comes again and changes nothing
            elif isinstance(result, BaseException):
                raise result
        if lost:
            telemetry.acks_unconfirmed(lost)

    async def _apply(self, group: list[tuple[Record, tuple[Event, ...]]]) -> None:
        """One transaction, tried until the database answers. Raises RowsRefused, or _Stopping when the service ends."""
        events = [event for _, batch in group for event in batch]
        seq = max(record.seq for record, _ in group)
        wait = FIRST_RETRY
        while True:
            began = time.monotonic()
            try:
                changes = await self._sink.apply(events, seq)
            except DatabaseDown as error:
                self.database_answers = False
                telemetry.database_down(str(error), wait)
            else:
                self.database_answers = True
                await self._progress.advance(seq)
                newest = max(record.stored_ms for record, _ in group)
                self.last_age = max(0.0, time.time() - newest / 1000)
                telemetry.applied(changes, len(events), time.monotonic() - began, self.last_age)
                return
            for record, _ in group:
                await record.in_progress()
            if self._is_stopping():
                raise _Stopping
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_RETRY)


class _Stopping(Exception):
    """The service ends while the database is down: the records go back to the broker by themselves."""
