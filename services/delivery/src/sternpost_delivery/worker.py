"""Takes site sessions from the queues, holds them under their leases, and tells results once they are durable.

It speaks with the broker; of SMTP it knows nothing (`session`), of what an event holds neither (`report`).
"""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from sternpost_delivery import telemetry
from sternpost_delivery.budget import Budget
from sternpost_delivery.report import attempt_event, job_result
from sternpost_delivery.session import Hands, SessionRun, Settled
from sternpost_mail.dispatch import Answer, Beat, Job, JobResult, SessionResult, SiteAnswer, SiteSession
from sternpost_mail.events import Event, EventBatch
from sternpost_mail.ids import RANDOM_OCTETS, make_id
from sternpost_mail.outcome import Unreached
from sternpost_runtime.batch import Batcher
from sternpost_runtime.bus import Bus, BusError
from sternpost_runtime.codec import (
    decode_session,
    decode_site_question,
    encode_beat,
    encode_event_batch,
    encode_session_answer,
    encode_session_result,
    encode_site_answer,
)
from sternpost_runtime.lifecycle import spawn
from sternpost_runtime.subjects import (
    BEATS,
    DELIVERY_HOLDS,
    DELIVERY_SITE,
    LEASES,
    event_subject,
    result_subject,
    session_subject,
)

log = structlog.get_logger()

LEASE_SECONDS = 15.0
"""How long we go on for a queue that is silent: seven missed lease messages. The queue waits longer before it gives the
mail to another worker."""
BEAT_SECONDS = 2.0
"""Between beats; a queue gives a worker up after five."""
PARTIAL_SECONDS = 1.0
"""A session that lasts longer tells what is settled so far, so that one slow mail does not hide nineteen quick ones."""
RESULT_TRIES = 3
RESULT_TIMEOUT = 2.0
"""Seconds for a queue to confirm a result, three times; then EVENTS has to tell it."""
STORE_PAUSE = 0.2
"""Seconds before an event that the broker did not take is offered again; doubles up to STORE_PAUSE_MAX."""
STORE_PAUSE_MAX = 2.0
RECORD_OCTETS = 1024 * 1024
"""Octets of events in one record (the broker takes four times as much); an estimate, so with room."""
BATCH_OCTETS = 4 * 1024 * 1024
BATCH_REPORTS = 256
"""Reports that share one flush."""
ABORT_SECONDS = 2.0
"""What is left of a shutdown for telling what became of the mails in hand."""


@dataclass(slots=True)
class _Lease:
    """A queue's word that it holds what it gave us. One that ran out stays so: by then the mail may be another's."""

    until: float

    @property
    def is_alive(self) -> bool:
        return time.monotonic() < self.until


@dataclass(slots=True)
class _Held:
    session: SiteSession
    octets: int
    lease: _Lease
    open: dict[str, Job]
    """Jobs that were not told yet, by mail id."""
    settled: list[Settled] = field(default_factory=list)
    run: SessionRun | None = None
    task: asyncio.Task[None] | None = None
    telling: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None


class Worker:
    """One per process; `id` is new at each start, so a queue never mistakes a new process for the one it lost."""

    def __init__(self, bus: Bus, hands: Hands, *, sessions: int, inline_octets: int) -> None:
        self.id = _new_id()
        self._bus = bus
        self._hands = hands
        self._capacity = sessions
        self._inline = Budget(inline_octets)
        self._held: dict[str, _Held] = {}
        self._leases: dict[str, _Lease] = {}
        self._draining = False
        self._emptied = asyncio.Event()
        self._events: Batcher[tuple[Event, ...], None] = Batcher(
            self._store,
            size=_size_of,
            max_bytes=BATCH_OCTETS,
            max_count=BATCH_REPORTS,
            max_waiting=2 * sessions + 1,  # each session has at most one report under way
        )

    @property
    def held(self) -> int:
        """Sessions in hand."""
        return len(self._held)

    async def start(self) -> None:
        """Listen to queues; the first beat tells them that we live."""
        await self._bus.subscribe(LEASES, self._hear_lease)
        await self._bus.serve(session_subject(self.id), self._take, concurrency=self._capacity)
        await self._bus.serve(DELIVERY_HOLDS, self._tell_held)
        await self._bus.serve(DELIVERY_SITE, self._tell_site, group="delivery", concurrency=256)

    async def run_beats(self) -> None:
        """Beat for the life of the process."""
        while True:
            await self.beat()
            await asyncio.sleep(BEAT_SECONDS)

    async def beat(self) -> None:
        """Tell every queue that we live and what we hold."""
        now = time.monotonic()
        self._leases = {queue: lease for queue, lease in self._leases.items() if lease.until > now}
        capacity = 0 if self._draining else self._capacity
        try:
            await self._bus.publish(BEATS, encode_beat(Beat(self.id, capacity, tuple(self._held))))
        except BusError:
            telemetry.fault("beat")  # the broker is away; queues hear us again when it is back

    async def drain(self, seconds: float) -> None:
        """Take nothing more, finish the mails in hand, give back those not begun; after `seconds` cut what is left."""
        self._draining = True
        for held in self._held.values():
            if held.run is not None:
                held.run.stop()
        await self.beat()
        await self._wait_empty(seconds)
        for held in self._held.values():
            if held.run is not None:
                held.run.abort()
        await self._wait_empty(ABORT_SECONDS)
        tasks = [held.task for held in self._held.values() if held.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._hands.pool.close()

    # -- what queues say

    async def _take(self, payload: bytes) -> bytes:
        session = decode_session(payload)
        if session.id in self._held:
            return _TAKEN  # asked twice
        octets = len(payload)
        if self._draining or len(self._held) >= self._capacity or not self._inline.take(octets):
            telemetry.session_answered("busy", len(self._held))
            return _BUSY
        lease = self._renew(session.queue)
        held = _Held(session, octets, lease, {job.mail_id: job for job in session.jobs})
        self._held[session.id] = held
        self._emptied.clear()
        held.task = spawn(self._run(held), f"session {session.id}")
        telemetry.session_answered("taken", len(self._held))
        return _TAKEN

    async def _hear_lease(self, subject: str, _payload: bytes) -> None:
        queue = subject.rpartition(".")[2]
        if queue in self._leases:  # only of queues that gave us something: the table grows no further
            self._renew(queue)

    def _renew(self, queue: str) -> _Lease:
        until = time.monotonic() + LEASE_SECONDS
        lease = self._leases.get(queue)
        if lease is None or not lease.is_alive:
            lease = self._leases[queue] = _Lease(until)
        lease.until = until
        return lease

    async def _tell_held(self, _payload: bytes) -> bytes:
        mails = tuple(f"{mail}/{held.session.site}" for held in self._held.values() for mail in held.open)
        return encode_beat(Beat(self.id, self._capacity, tuple(self._held), mails))

    async def _tell_site(self, payload: bytes) -> bytes:
        domain = decode_site_question(payload)
        answer: SiteAnswer = await self._hands.resolver.site(domain)
        return encode_site_answer(answer)

    # -- a session

    async def _run(self, held: _Held) -> None:
        loop = asyncio.get_running_loop()
        run = held.run = SessionRun(
            held.session, self._hands, has_lease=lambda: held.lease.is_alive, settle=held.settled.append
        )
        if self._draining:
            run.stop()
        held.timer = loop.call_later(PARTIAL_SECONDS, self._tick, held)
        try:
            try:
                await run.run()
            except Exception:
                log.exception("session_failed", session=held.session.id, site=held.session.site)
                telemetry.fault("session")
                self._settle_rest(held)
            if held.telling is not None:
                await held.telling
            await self._tell(held, done=True, site_down=run.site_down)
        finally:
            held.timer.cancel()
            del self._held[held.session.id]
            self._inline.release(held.octets)
            if not self._held:
                self._emptied.set()
            telemetry.session_ended(
                len(self._held),
                len(self._hands.pool),
                site_down=run.site_down,
                lease_lost=bool(held.open) and not held.lease.is_alive,
            )

    def _settle_rest(self, held: _Held) -> None:
        """Our own fault is temporary (promise P3); to give the mails back at once would only repeat it."""
        known = {settled.job.mail_id for settled in held.settled}
        now = time.time_ns() // 1_000_000
        for job in held.open.values():
            if job.mail_id not in known:
                fault = Unreached("internal fault while delivering, see the log of the delivery service")
                held.settled.append(Settled(job, (fault,) * len(job.recipients), now, 0.0))

    def _tick(self, held: _Held) -> None:
        if held.settled and (held.telling is None or held.telling.done()):
            held.telling = spawn(self._tell(held, done=False), f"partial result {held.session.id}")
        held.timer = asyncio.get_running_loop().call_later(PARTIAL_SECONDS, self._tick, held)

    async def _tell(self, held: _Held, *, done: bool, site_down: bool = False) -> None:
        """Make what is settled durable, then tell the queue."""
        session = held.session
        settled, held.settled[:] = held.settled[:], []
        results: list[JobResult] = []
        events: list[Event] = []
        for one in settled:
            result = job_result(one)
            results.append(result)
            events.append(attempt_event(one, result.results, session.site, _new_id()))
            telemetry.attempted(one, [part.outcome for part in result.results], session.site)
        if events:
            await self._events.submit(tuple(events))
        payload = encode_session_result(SessionResult(session.id, self.id, tuple(results), done, site_down))
        await self._send(session.queue, payload)
        for one in settled:
            held.open.pop(one.job.mail_id, None)

    async def _send(self, queue: str, payload: bytes) -> None:
        for _ in range(RESULT_TRIES):
            try:
                await self._bus.request(result_subject(queue), payload, timeout=RESULT_TIMEOUT)
                return
            except BusError:
                continue
        telemetry.result_unheard()

    # -- events

    async def _store(self, reports: list[tuple[Event, ...]]) -> Sequence[None]:
        """Store every event of these reports, one record per spool record; returns when all are durable."""
        by_record: dict[str, list[Event]] = {}
        for events in reports:
            for event in events:
                by_record.setdefault(event.record_id, []).append(event)
        batches = [(record, part) for record, events in by_record.items() for part in _split(events)]
        if len(batches) == 1:
            await self._store_batch(*batches[0])
        else:
            await asyncio.gather(*(self._store_batch(record, part) for record, part in batches))
        return [None] * len(reports)

    async def _store_batch(self, record: str, events: list[Event]) -> None:
        """Until the broker has it: the mail may be delivered, and nobody else knows. The id makes a repeat harmless."""
        payload = encode_event_batch(EventBatch(tuple(events)))
        pause = STORE_PAUSE
        while True:
            try:
                await self._bus.store(event_subject(record), payload, msg_id=events[0].id)
                telemetry.events_stored(len(events))
                return
            except BusError as error:
                telemetry.fault("events")
                log.warning("events_not_stored", record=record, error=str(error))
            await asyncio.sleep(pause)
            pause = min(pause * 2, STORE_PAUSE_MAX)

    async def _wait_empty(self, seconds: float) -> None:
        if self._held:
            try:
                async with asyncio.timeout(seconds):
                    await self._emptied.wait()
            except TimeoutError:
                pass


_TAKEN = encode_session_answer(Answer.TAKEN)
_BUSY = encode_session_answer(Answer.BUSY)


def _new_id() -> str:
    return make_id(time.time_ns() // 1_000_000, os.urandom(RANDOM_OCTETS))


def _size_of(events: tuple[Event, ...]) -> int:
    return sum([_octets(event) for event in events])


def _octets(event: Event) -> int:
    return 400 + len(event.facts) + sum([80 + len(result.reply) for result in event.results])


def _split(events: list[Event]) -> list[list[Event]]:
    """Events in parts that a record can hold."""
    parts: list[list[Event]] = [[]]
    size = 0
    for event in events:
        octets = _octets(event)
        if parts[-1] and size + octets > RECORD_OCTETS:
            parts.append([])
            size = 0
        parts[-1].append(event)
        size += octets
    return parts
