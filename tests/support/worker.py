"""A scripted delivery worker: it speaks the bus protocol of a real one and sends no mail.

It takes site sessions, answers each recipient by a script, makes the attempt events durable, then tells the queue, and
beats. It can be made busy, slow (gates) or gone (`vanish`).
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sternpost_mail.dispatch import Answer, Beat, Job, JobResult, SessionResult, SiteAnswer, SiteSession
from sternpost_mail.events import Event, EventBatch, EventKind, OutcomeKind, Result
from sternpost_mail.ids import make_id
from sternpost_mail.states import State
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
from sternpost_runtime.subjects import (
    BEATS,
    DELIVERY_HOLDS,
    DELIVERY_SITE,
    Service,
    event_subject,
    result_subject,
    session_subject,
)
from tests.support.broker import Broker

OK = "250 2.0.0 taken"


@dataclass(frozen=True)
class Tried:
    """One recipient of one job, as the worker answered it."""

    address: str
    reply: str
    job: Job
    at_ms: int


@dataclass
class ScriptedWorker:
    """One worker. Change its fields at any time."""

    bus: Bus
    capacity: int = 8
    beat_seconds: float = 0.1
    script: dict[str, list[str]] = field(default_factory=dict)
    """Replies by address, for its first, second, ... attempt; the last repeats. Nobody here: taken with 250.
    A reply that does not begin with 2, 4 or 5 is the reason why no server was reached."""
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """By address: nothing is answered before this is set."""
    busy: int = 0
    """Sessions that are still to be refused."""
    is_mute: bool = False
    """Makes its events durable and tells no queue: it keeps its sessions until it vanishes."""
    id: str = field(default_factory=lambda: make_id(time.time_ns() // 1_000_000, os.urandom(10)))
    tried: list[Tried] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    """Addresses whose job is or was in hand."""
    asked: int = 0
    """Sessions that queues asked for, refused ones too."""
    asked_holds: int = 0
    _sessions: dict[str, tuple[SiteSession, asyncio.Task[None]]] = field(default_factory=dict)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _beating: asyncio.Task[None] | None = None

    @property
    def delivered(self) -> Counter[str]:
        """How often each address was given a mail that it took."""
        return Counter(one.address for one in self.tried if one.reply.startswith("2"))

    def tries(self, address: str) -> list[Tried]:
        """Every attempt for an address."""
        return [one for one in self.tried if one.address == address]

    async def until(self, *, tried: int = 0, begun: str = "", asked: int = 0, asked_holds: int = 0) -> None:
        """Wait until so much happened; fails after ten seconds."""
        async with self._changed, asyncio.timeout(10):
            await self._changed.wait_for(
                lambda: (
                    len(self.tried) >= tried
                    and (not begun or begun in self.begun)
                    and self.asked >= asked
                    and self.asked_holds >= asked_holds
                )
            )

    async def start(self) -> None:
        """Listen and begin to beat."""
        await self.bus.serve(session_subject(self.id), self._take)
        await self.bus.serve(DELIVERY_HOLDS, self._tell_held)
        await self.bus.serve(DELIVERY_SITE, self._tell_site, group="delivery")
        self._beating = asyncio.ensure_future(self._beat())

    async def abandon(self) -> None:
        """Give up what is in hand without a word, as when the lease of its queue ran out before the final dot."""
        tasks = [task for _, task in self._sessions.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def vanish(self) -> None:
        """Be gone from one moment to the next, with everything in hand."""
        if self._beating is not None:
            self._beating.cancel()
        await self.abandon()
        await self.bus.close()

    async def _note(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _beat(self) -> None:
        while True:
            await self.bus.publish(BEATS, encode_beat(Beat(self.id, self.capacity, tuple(self._sessions))))
            await asyncio.sleep(self.beat_seconds)

    async def _take(self, payload: bytes) -> bytes:
        session = decode_session(payload)
        self.asked += 1
        if self.busy or len(self._sessions) >= self.capacity:
            self.busy = max(self.busy - 1, 0)
            await self._note()
            return encode_session_answer(Answer.BUSY)
        self._sessions[session.id] = (session, asyncio.ensure_future(self._run(session)))
        await self._note()
        return encode_session_answer(Answer.TAKEN)

    async def _tell_held(self, _payload: bytes) -> bytes:
        self.asked_holds += 1
        await self._note()
        mails = tuple(f"{job.mail_id}/{session.site}" for session, _ in self._sessions.values() for job in session.jobs)
        return encode_beat(Beat(self.id, self.capacity, tuple(self._sessions), mails))

    async def _tell_site(self, payload: bytes) -> bytes:
        domain = decode_site_question(payload)
        return encode_site_answer(SiteAnswer(domain, f"mx.{domain}", 60.0))

    async def _run(self, session: SiteSession) -> None:
        try:
            for number, job in enumerate(session.jobs, 1):
                results = await self._transmit(session, job)
                part = SessionResult(
                    session.id, self.id, (JobResult(job.mail_id, results),), number == len(session.jobs)
                )
                await self._tell(session.queue, encode_session_result(part))
        finally:
            del self._sessions[session.id]

    async def _transmit(self, session: SiteSession, job: Job) -> tuple[Result, ...]:
        self.begun += [recipient.address for recipient in job.recipients]
        await self._note()
        results = []
        said = []
        for recipient in job.recipients:
            gate = self.gates.get(recipient.address)
            if gate is not None:
                await gate.wait()
            replies = self.script.get(recipient.address, [OK])
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
            outcome = _OUTCOMES.get(reply[:1], OutcomeKind.UNREACHED)
            state = State.DELIVERED if outcome is OutcomeKind.DELIVERED else State.DEFERRED
            results.append(Result(recipient.index, recipient.address, state, outcome, reply))
            said.append(Tried(recipient.address, reply, job, time.time_ns() // 1_000_000))
        await self._store(session, job, tuple(results))
        self.tried += said
        await self._note()
        return tuple(results)

    async def _store(self, session: SiteSession, job: Job, results: tuple[Result, ...]) -> None:
        now = time.time_ns() // 1_000_000
        event = Event(
            id=make_id(now, os.urandom(10)),
            kind=EventKind.ATTEMPT,
            at_ms=now,
            mail_id=job.mail_id,
            record_id=job.record_id,
            tenant=job.tenant,
            sender=job.sender,
            accepted_ms=job.accepted_ms,
            size=job.size,
            results=results,
            attempt=job.attempt,
            site=session.site,
        )
        await self.bus.store(event_subject(job.record_id), encode_event_batch(EventBatch((event,))), msg_id=event.id)

    async def _tell(self, queue: str, payload: bytes) -> None:
        if self.is_mute:
            await asyncio.Event().wait()
        for _ in range(3):
            try:
                await self.bus.request(result_subject(queue), payload, timeout=2.0)
                return
            except BusError:
                continue  # EVENTS is the truth


_OUTCOMES = {"2": OutcomeKind.DELIVERED, "4": OutcomeKind.TEMPORARY, "5": OutcomeKind.PERMANENT}


@asynccontextmanager
async def running_worker(broker: Broker, script: dict[str, list[str]] | None = None) -> AsyncIterator[ScriptedWorker]:
    """A worker with this script."""
    worker = ScriptedWorker(await broker.connect(Service.DELIVERY), script=script or {})
    await worker.start()
    try:
        yield worker
    finally:
        await worker.vanish()
