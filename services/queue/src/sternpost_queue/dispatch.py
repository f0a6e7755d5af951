"""Hands jobs to delivery workers, a site session at a time, and takes their results.

Decides by `active` (which jobs) and `workers` (to whom); `settle` carries out what follows. Never talks SMTP.
"""

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from sternpost_mail.dispatch import Answer, Job, JobRecipient, JobResult, SiteSession
from sternpost_mail.events import EventKind, Result
from sternpost_queue import telemetry
from sternpost_queue.active import ActiveJob, ActiveSet, Site
from sternpost_queue.control import Control
from sternpost_queue.journal import new_id, now_ms
from sternpost_queue.recover import Recovery, remember
from sternpost_queue.schedule import SitePause
from sternpost_queue.settings import Settings
from sternpost_queue.settle import PARK_POLICY, Settler
from sternpost_queue.workers import Worker, Workers
from sternpost_runtime.bus import Bus, BusError, NoAnswer
from sternpost_runtime.codec import (
    decode_beat,
    decode_session_answer,
    decode_session_result,
    encode_session,
)
from sternpost_runtime.subjects import BEATS, lease_subject, result_subject, session_subject

log = structlog.get_logger()

ANSWER_TIMEOUT = 3.0
"""Seconds for a worker to say taken or busy."""
LEASE_PERIOD = 2.0
"""Seconds between lease messages."""
TICK = 1.0
"""Seconds between looks at rates, blocked sites and silent workers."""
PARK_MS = 15_000
"""How long the surplus of a slow site stays with the broker before it asks for room again."""
REST_IN_MEMORY = 30.0
"""Seconds; jobs of a site that rests longer wait with the broker instead."""
MIB = 1024 * 1024


@dataclass(slots=True)
class _Session:
    id: str
    site: Site
    worker: Worker
    jobs: dict[str, ActiveJob]
    octets: int
    began: float
    ended: int = 0
    """Jobs with a result."""


class Dispatcher:
    """The sessions in flight."""

    def __init__(
        self, bus: Bus, active: ActiveSet, settler: Settler, control: Control, recovery: Recovery, settings: Settings
    ) -> None:
        self._bus = bus
        self._active = active
        self._settler = settler
        self._control = control
        self._recovery = recovery
        self._settings = settings
        self._pause = SitePause()
        self._workers = Workers()
        self._sessions: dict[str, _Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._suspects: set[str] = set()
        self._scheduled = False
        self._stopping = False
        self.id = new_id()

    @property
    def in_flight(self) -> int:
        """Sessions that workers hold."""
        return len(self._sessions)

    @property
    def workers(self) -> int:
        """Workers that are heard."""
        return len(self._workers)

    async def start(self) -> None:
        """Listen to beats and results."""
        await self._bus.subscribe(BEATS, self._hear_beat)
        await self._bus.serve(result_subject(self.id), self._hear_result, concurrency=256)

    async def run_leases(self) -> None:
        """Tell the workers that we live; a task of the process."""
        while True:
            await self._bus.publish(lease_subject(self.id), str(now_ms()).encode())
            await asyncio.sleep(LEASE_PERIOD)

    async def run_ticks(self) -> None:
        """Look at what only time changes; a task of the process."""
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            self._active.tick(now, TICK)
            for worker in self._workers.lost(now):
                self._lose(worker)
            for job in self._active.surplus(now):
                telemetry.PARKED.inc()
                self._spawn(self._park(job, PARK_MS))
            telemetry.ACTIVE.set(self._active.jobs)
            telemetry.ACTIVE_OCTETS.set(self._active.octets)
            telemetry.SITES.set(len(self._active.sites))
            telemetry.IN_FLIGHT.set(len(self._sessions))
            telemetry.WORKERS.set(len(self._workers))
            self.look()

    async def drain(self, seconds: float) -> None:
        """Start nothing more and wait for running sessions, at most so long."""
        self._stopping = True
        deadline = time.monotonic() + seconds
        while (self._sessions or self._tasks) and time.monotonic() < deadline:  # noqa: ASYNC110 - at shutdown only, against a deadline
            await asyncio.sleep(0.05)

    def admit(self, job: ActiveJob) -> None:
        """A job joins the active set."""
        self._active.add(job)
        self.look()

    def look(self) -> None:
        """See to it soon whether sessions can start; many calls in one iteration of the loop are one look."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._scheduled = False
        if self._stopping or not self._bus.connected:
            return
        now = time.monotonic()
        for site in self._active.startable(now):
            while site.may_start(now):
                worker = self._workers.choose(site.worker, now)
                if worker is None:
                    return  # a beat or a result brings us back; the sites stay ready
                if not self._begin(site, worker, now):
                    break

    def _begin(self, site: Site, worker: Worker, now: float) -> bool:
        jobs = site.pop(site.session_size(self._settings.session_mails), self._settings.session_mib * MIB)
        if self._control.cancelled:
            jobs = self._without_cancelled(jobs)
        if not jobs:
            return site.count > 0
        session = _Session(
            new_id(), site, worker, {job.mail.mail.id: job for job in jobs}, sum(j.size for j in jobs), now
        )
        for job in jobs[:]:
            if session.jobs[job.mail.mail.id] is not job:  # one mail twice for one site goes in turn
                jobs.remove(job)
                self._active.put_back([job])
        site.running += 1
        site.worker = worker.id
        worker.sessions.add(session.id)
        worker.octets += session.octets
        self._sessions[session.id] = session
        telemetry.SESSION_MAILS.observe(len(jobs))
        self._spawn(self._send(session))
        return True

    def _without_cancelled(self, jobs: list[ActiveJob]) -> list[ActiveJob]:
        kept = []
        for job in jobs:
            if self._control.is_cancelled(job.mail.mail):
                self._active.remove(job)
                self._spawn(self._cancel(job))
            else:
                kept.append(job)
        return kept

    async def _cancel(self, job: ActiveJob) -> None:
        await self._settler.cancel(job.mail, job.recipients)
        self._settler.close_step(job.mail)

    async def _send(self, session: _Session) -> None:
        request = SiteSession(
            session.id,
            self.id,
            session.site.name,
            session.site.route,
            tuple(_wire(job) for job in session.jobs.values()),
        )
        try:
            payload = await self._bus.request(
                session_subject(session.worker.id), encode_session(request), timeout=ANSWER_TIMEOUT
            )
            answer = decode_session_answer(payload)
        except NoAnswer:
            # It may have been taken: the worker's next beat, its result or its silence tells. Nothing is sent twice.
            await self._settle_unanswered(session)
            return
        if answer is Answer.BUSY:
            self._workers.mark_busy(session.worker)
            self._take_back(session)

    async def _settle_unanswered(self, session: _Session) -> None:
        log.warning("session_unanswered", worker=session.worker.id, site=session.site.name)
        session.worker.heard = min(session.worker.heard, time.monotonic() - 5.0)  # doubt it sooner

    def _take_back(self, session: _Session) -> None:
        if self._forget(session):
            self._active.put_back(list(session.jobs.values()))
            self.look()

    def _forget(self, session: _Session) -> bool:
        if self._sessions.pop(session.id, None) is None:
            return False
        self._suspects.discard(session.id)
        session.site.running -= 1
        session.worker.sessions.discard(session.id)
        session.worker.octets -= session.octets
        self._active.wake(session.site)
        return True

    # --- what workers tell -------------------------------------------------------------------------------------------

    async def _hear_beat(self, _subject: str, payload: bytes) -> None:
        beat = decode_beat(payload)
        new = self._workers.hear(beat, time.monotonic())
        if new:
            log.info("worker_heard", worker=beat.worker, capacity=beat.capacity)
        worker = self._workers.get(beat.worker)
        if worker is not None:
            held = set(beat.sessions)
            self._suspects -= held
            for identifier in [s for s in worker.sessions if s not in held]:
                self._suspect(self._sessions.get(identifier))
        self.look()

    def _suspect(self, session: _Session | None) -> None:
        """A session that its living worker does not hold: its result was lost, or it never came. Twice seen is so."""
        if session is None:
            return
        if session.id not in self._suspects:
            self._suspects.add(session.id)
            return
        log.warning("session_vanished", worker=session.worker.id, site=session.site.name)
        if self._forget(session):
            self._spawn(self._look_up(list(session.jobs.values())))

    async def _hear_result(self, payload: bytes) -> bytes:
        result = decode_session_result(payload)
        session = self._sessions.get(result.session)
        if session is None:
            return b""  # told before, or ours no more: EVENTS has it
        for part in result.results:
            job = session.jobs.pop(part.mail_id, None)
            if job is not None:
                session.octets -= job.size
                session.worker.octets -= job.size
                session.ended += 1
                self._end(job, part)
        if result.done:
            self._close_session(session, site_down=result.site_down)
        return b""

    def _end(self, job: ActiveJob, part: JobResult) -> None:
        self._active.remove(job)
        results: Mapping[int, Result] = {result.recipient: result for result in part.results}
        if not self._settler.delivered(job, results):
            self._spawn(
                self._settler.settle(job, results, retry_after=part.retry_after, dsn_passed_on=part.dsn_passed_on)
            )

    def _close_session(self, session: _Session, *, site_down: bool) -> None:
        site = session.site
        left = list(session.jobs.values())
        if not self._forget(session):
            return
        site.learn(session.ended, time.monotonic() - session.began)
        if site_down:
            site.strikes += 1
            rest = self._pause.after(site.strikes, random.random())  # noqa: S311 - jitter, no secret
            site.blocked_until = time.monotonic() + rest
            self._active.put_back(left)
            if rest > REST_IN_MEMORY:
                for job in site.pop_newest(site.count):
                    self._spawn(self._park(job, int(rest * 1000)))
        else:
            site.strikes = 0
            self._active.put_back(left)
        self.look()

    # --- when a worker is gone ---------------------------------------------------------------------------------------

    def _lose(self, worker: Worker) -> None:
        if not worker.sessions:
            return
        telemetry.WORKERS_LOST.inc()
        log.warning("worker_lost", worker=worker.id, sessions=len(worker.sessions))
        jobs: list[ActiveJob] = []
        for identifier in list(worker.sessions):
            session = self._sessions.get(identifier)
            if session is not None and self._forget(session):
                jobs += session.jobs.values()
        self._spawn(self._look_up(jobs))

    async def _look_up(self, jobs: list[ActiveJob]) -> None:
        """Jobs whose worker told nothing: what EVENTS has of them is so, the rest is tried again."""
        if not jobs:
            return
        records = {job.mail.record_id for job in jobs}
        since = min(job.mail.mail.accepted_ms for job in jobs)
        while True:
            try:
                events = await self._recovery.events_of(records, since)
                break
            except BusError:
                await asyncio.sleep(0.5)
        told: dict[tuple[str, int, int], Result] = {}
        for event in events:
            if event.kind is EventKind.ATTEMPT:
                told.update({(event.mail_id, result.recipient, event.attempt): result for result in event.results})
        known = remember(events, {job.mail.mail.id: job.mail.attempts for job in jobs})
        again = []
        for job in jobs:
            attempt = job.mail.attempts + 1
            results = {
                index: told[job.mail.mail.id, index, attempt]
                for index in job.recipients
                if (job.mail.mail.id, index, attempt) in told
            }
            finished = known[job.mail.mail.id].finished
            open_ones = [
                (index, address)
                for index, address in zip(job.recipients, job.addresses, strict=True)
                if index in results or index not in finished
            ]
            job.recipients = tuple([index for index, _ in open_ones])
            job.addresses = tuple([address for _, address in open_ones])
            if results or not open_ones:
                self._active.remove(job)
                await self._settler.settle(job, results)
            else:
                again.append(job)
        self._active.put_back(again)
        self.look()

    async def _park(self, job: ActiveJob, wait_ms: int) -> None:
        mail = job.mail
        jitter = random.randrange(max(wait_ms // 4, 1))  # noqa: S311 - jitter, no secret
        await self._settler.retry(
            mail,
            dict.fromkeys(job.recipients, mail.last_reply),
            job.site.name,
            PARK_POLICY,
            0.0,
            mail.mail.expires_ms,
            tried=False,
            moment_ms=now_ms() + wait_ms + jitter,
        )
        self._active.remove(job)
        self._settler.close_step(mail)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A job whose end could not be carried out stays with its record: the record comes again after the restart.
            log.error("job_failed", error=repr(error))
            raise error


def _wire(job: ActiveJob) -> Job:
    mail = job.mail.mail
    envelope = mail.envelope
    known = envelope.recipients
    return Job(
        mail_id=mail.id,
        record_id=job.mail.record_id,
        tenant=mail.tenant,
        sender=envelope.sender,
        recipients=tuple(
            [
                JobRecipient(index, address, int(known[index].notify), known[index].orcpt)
                for index, address in zip(job.recipients, job.addresses, strict=True)
            ]
        ),
        content=mail.content,
        content_ref=mail.content_ref,
        size=mail.size,
        accepted_ms=mail.accepted_ms,
        attempt=job.mail.attempts + 1,
        ret=envelope.ret,
        envid=envelope.envid,
        eight_bit=envelope.eight_bit,
        smtputf8=envelope.smtputf8,
        identity=mail.identity,
        tags=mail.tags,
        traceparent=mail.traceparent,
        facts=mail.facts,
    )
