"""Takes records from SPOOL and DEFER, keeps them ours while work on them goes on, acknowledges them when all is done.

Decides nothing about mail: `expand` says what each recipient needs, `dispatch` and `settle` do it.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterable
from typing import Any, cast

import structlog
from cachetools import TTLCache

from sternpost_mail.dispatch import SiteAnswer
from sternpost_mail.envelope import DeferredMail, Mail, SpoolRecord
from sternpost_mail.route import Action
from sternpost_queue import telemetry
from sternpost_queue.active import ActiveJob, ActiveMail, ActiveSet, Site
from sternpost_queue.control import Control
from sternpost_queue.dispatch import Dispatcher
from sternpost_queue.expand import Fate, Step, expand, route_of, smart_site
from sternpost_queue.journal import Journal, now_ms
from sternpost_queue.recover import Known, Recovery, remember
from sternpost_queue.schedule import expiry_ms, is_too_late
from sternpost_queue.settings import Settings
from sternpost_queue.settle import PARK_POLICY, Settler
from sternpost_runtime.bus import Bus, BusError, Delivery, NoAnswer, Puller
from sternpost_runtime.codec import (
    CodecError,
    decode_beat,
    decode_defer_record,
    decode_facts,
    decode_site_answer,
    decode_spool_record,
    encode_site_question,
)
from sternpost_runtime.config import ConfigWatch
from sternpost_runtime.subjects import (
    CONSUMER_DUE,
    DELIVERY_HOLDS,
    DELIVERY_SITE,
    HEADER_RETRY,
    STREAM_DEFER,
    STREAM_SPOOL,
    spool_consumer,
)

log = structlog.get_logger()

BEAT_PERIOD = 10.0
"""Seconds between in-progress beats of what we hold; the broker gives it to another after 30."""
PULL_WAIT = 2.0
"""Seconds that one pull waits for a record."""
FULL_WAIT = 0.02
"""Seconds between looks whether the active set has room again."""
DOUBT_MS = 120_000
"""Records stored up to this long before we, or the broker, started may have been in hands: they are looked up."""
HOLDS_WAIT = 1.0
"""Seconds for workers to say what they hold."""
SITE_TIMEOUT = 20.0
"""Seconds for an answer about a recipient domain's site; delivery gives up on DNS before."""
DEFER_LEVEL = 0.8
"""Share of DEFER's limit past which no more new mail is taken: what is in memory must still find room there."""


class Ticket:
    """One record in our hands."""

    __slots__ = ("delivery", "key", "oldest_ms", "open", "returned", "stored_ms")

    def __init__(self, key: str, delivery: Delivery) -> None:
        self.key = key
        self.delivery = delivery
        self.returned = delivery.subject.startswith("due.")
        """It waited with the broker before."""
        self.stored_ms = delivery.stored_ms
        self.open = 0
        """Mails that are not through; not kept here, for a finished mail's content must not wait for the last one."""
        self.oldest_ms = delivery.stored_ms
        """When the oldest of its mails was accepted."""
        delivery.payload = b""  # read; it would double what the mails hold


class Consumer:
    """The way from the broker into the active set."""

    def __init__(
        self,
        bus: Bus,
        config: ConfigWatch,
        active: ActiveSet,
        control: Control,
        recovery: Recovery,
        journal: Journal,
        settings: Settings,
    ) -> None:
        self._bus = bus
        self._config = config
        self._active = active
        self._control = control
        self._recovery = recovery
        self._journal = journal
        self._settings = settings
        self._tickets: dict[str, Ticket] = {}
        self._sites: TTLCache[str, SiteAnswer] = TTLCache(settings.sites_cached, 300)
        self._asking: dict[str, asyncio.Task[SiteAnswer]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending_mails = 0
        self._pending_octets = 0
        self._started_ms = now_ms()
        self._defer_full = False
        self.settler: Settler
        self.dispatcher: Dispatcher

    def wire(self, settler: Settler, dispatcher: Dispatcher) -> None:
        """The two that need us, and that we need."""
        self.settler = settler
        self.dispatcher = dispatcher

    @property
    def records(self) -> int:
        """Records in our hands."""
        return len(self._tickets)

    @property
    def _is_full(self) -> bool:
        """Whether no more may be taken; mails that wait for an answer on their way into the set count as well."""
        active, limits = self._active, self._active.limits
        return (
            active.jobs + self._pending_mails >= limits.mails or active.octets + self._pending_octets >= limits.octets
        )

    def _pend(self, mails: list[Mail], sign: int) -> None:
        self._pending_mails += sign * len(mails)
        self._pending_octets += sign * sum(len(mail.content) for mail in mails)

    # --- loops, each a task of the process ---------------------------------------------------------------------------

    async def run_lane(self, lane: str) -> None:
        """Take new mail of one lane while there is room."""
        puller = self._bus.puller(STREAM_SPOOL, spool_consumer(lane))
        await self._config.ready.wait()
        while True:
            while self._is_full or self._defer_full or not self.dispatcher.workers:  # noqa: ASYNC110
                await asyncio.sleep(FULL_WAIT)
            for delivery in await self._fetch(puller, self._settings.pull_records):
                self._take(delivery)

    async def run_due(self) -> None:
        """Take records whose moment has come."""
        puller = self._bus.puller(STREAM_DEFER, CONSUMER_DUE)
        await self._config.ready.wait()
        while True:
            while self._is_full or not self.dispatcher.workers:  # noqa: ASYNC110 - see above
                await asyncio.sleep(FULL_WAIT)
            for delivery in await self._fetch(puller, self._settings.due_records):
                self._take(delivery)

    async def run_beats(self) -> None:
        """Tell the broker that we still work on what we hold."""
        while True:
            await asyncio.sleep(BEAT_PERIOD)
            for ticket in list(self._tickets.values()):
                await ticket.delivery.in_progress()
            oldest = min((ticket.oldest_ms for ticket in self._tickets.values()), default=now_ms())
            telemetry.OLDEST.set(max(now_ms() - oldest, 0) / 1000)

    async def run_levels(self) -> None:
        """Watch how full DEFER is: the server cannot refuse there, so we stop before."""
        while True:
            try:
                info = await self._bus.stream_state(STREAM_DEFER)
                limit = int(info["config"]["max_bytes"])
                self._defer_full = limit > 0 and int(info["state"]["bytes"]) > limit * DEFER_LEVEL
            except BusError:
                pass  # no broker, no pulls either
            await asyncio.sleep(2.0)

    async def _fetch(self, puller: Puller, count: int) -> list[Delivery]:
        try:
            return await puller.fetch(count, PULL_WAIT)
        except BusError:
            await asyncio.sleep(0.2)
            return []

    # --- one record --------------------------------------------------------------------------------------------------

    def _take(self, delivery: Delivery) -> None:
        if delivery.num_delivered > self._settings.poison_deliveries:
            self._spawn(self._set_aside(delivery, "poison"))
            return
        try:
            if delivery.subject.startswith("spool."):
                record = decode_spool_record(delivery.payload)
                mails = _as_deferred(record)
                key = record.id
            else:
                deferred = decode_defer_record(delivery.payload)
                mails = list(deferred.mails)
                key = deferred.id
        except CodecError as error:
            log.error("record_unreadable", subject=delivery.subject, seq=delivery.seq, error=str(error))
            self._spawn(self._set_aside(delivery, "unreadable"))
            return
        known = self._tickets.get(key)
        if known is not None:  # the broker forgot that we have it: only the way to acknowledge it is new
            known.delivery = delivery
            delivery.payload = b""
            return
        ticket = self._tickets[key] = Ticket(key, delivery)
        telemetry.jobs_taken("due" if ticket.returned else "spool", len(mails))
        if self._in_doubt(delivery, mails):
            self._spawn(self._recover(ticket, mails))
        else:
            self._enter(ticket, mails, {})

    def _in_doubt(self, delivery: Delivery, mails: list[DeferredMail]) -> bool:
        if delivery.num_delivered > 1 or HEADER_RETRY in delivery.headers:
            return True
        for start in (self._started_ms, self._bus.connected_at_ms):
            if start - DOUBT_MS < delivery.stored_ms < start:
                return True
        doubted = self._control.doubted
        return bool(doubted) and any(waiting.mail.id in doubted for waiting in mails)

    async def _recover(self, ticket: Ticket, mails: list[DeferredMail]) -> None:
        telemetry.RECOVERED.inc()
        self._pend([item.mail for item in mails], 1)
        waiting = {item.mail.id: item for item in mails}
        while held := await self._held(set(waiting)):  # a worker still has some of them: its events will tell
            log.info("record_still_held", record=ticket.key, mails=len(held))
            await asyncio.sleep(2.0)
        since = min((item.mail.accepted_ms for item in mails), default=0)
        while True:
            try:
                events = await self._recovery.events_of({item.record_id for item in mails}, since)
                break
            except BusError:
                await asyncio.sleep(0.5)
        known = remember(events, {item.mail.id: item.attempts for item in mails}, ticket.stored_ms)
        for item in mails:
            if known[item.mail.id].attempted:
                await self._control.doubt(item.mail.id)
        self._pend([item.mail for item in mails], -1)
        self._enter(ticket, mails, known)

    async def _held(self, mails: set[str]) -> set[str]:
        answers = await self._bus.ask_all(DELIVERY_HOLDS, b"", wait=HOLDS_WAIT, expected=self.dispatcher.workers)
        held = {entry.partition("/")[0] for answer in answers for entry in decode_beat(answer).held_mails}
        return held & mails

    def _enter(self, ticket: Ticket, mails: list[DeferredMail], known: dict[str, Known]) -> None:
        present = max(now_ms(), ticket.stored_ms)  # a moment that came by the broker's clock has come
        ticket.open = 1  # ours, until every mail was looked at
        for item in mails:
            active = ActiveMail(item.mail, item.record_id, ticket, item.attempts)
            active.delay_reported = item.delay_reported
            active.last_reply = item.last_reply
            ticket.oldest_ms = min(ticket.oldest_ms, item.mail.accepted_ms)
            ticket.open += 1
            active.open_jobs = 1
            past = known.get(item.mail.id)
            recipients: Iterable[int] = item.open_recipients
            if past is not None:
                skipped = [index for index in recipients if index in past.finished]
                telemetry.SKIPPED.inc(len(skipped))
                recipients = [index for index in recipients if index not in past.finished]
                refused = {index: past.refused[index] for index in recipients if index in past.refused}
                if refused:
                    recipients = [index for index in recipients if index not in refused]
                    self._step(active, self.settler.bounce(active, refused))
            self._start(active, list(recipients), present)
            self.settler.close_step(active)
        self._mail_through(ticket)

    def _start(self, active: ActiveMail, recipients: list[int], present: int) -> None:
        if not recipients:
            return
        mail = active.mail
        if self._control.cancelled and self._control.is_cancelled(mail):
            self._step(active, self.settler.cancel(active, recipients))
            return
        if mail.not_before_ms > present:
            self._step(
                active,
                self.settler.retry(
                    active,
                    dict.fromkeys(recipients, ""),
                    "scheduled",
                    PARK_POLICY,
                    0.0,
                    mail.expires_ms,
                    tried=False,
                    moment_ms=mail.not_before_ms,
                ),
            )
            return
        config = self._config.config
        client = decode_facts(mail.facts).client if config.network_rules and mail.facts else ""
        for step in expand(mail, recipients, config, client):
            if step.fate is Fate.SEND:
                self._send(active, step, present)
            elif step.fate is Fate.REJECT:
                replies = dict.fromkeys(step.recipients, step.reject_text)
                self._step(active, self.settler.bounce(active, replies))
            elif step.fate is Fate.HOLD:
                rule = step.rule.name if step.rule is not None else ""
                self._step(active, self.settler.hold(active, step.recipients, rule))
            else:
                rule = step.rule.name if step.rule is not None else ""
                self._step(active, self.settler.discard(active, step.recipients, rule))

    def _send(self, active: ActiveMail, step: Step, present: int) -> None:
        mail = active.mail
        if cast(Ticket, active.ticket).returned:
            expires = expiry_ms(step.retry, mail.accepted_ms, mail.expires_ms, mail.not_before_ms)
            if is_too_late(now_ms=present, expires_ms=expires):
                reason = active.last_reply or "never tried, its site had no room for it"
                self._step(active, self.settler.expire(active, dict.fromkeys(step.recipients, reason)))
                return
        rule = step.rule
        if rule is not None and rule.action is Action.SMART_HOST:
            self._admit(active, step, smart_site(rule))
            return
        answer = self._sites.get(step.domain)
        if answer is not None:
            self._admit(active, step, answer.name)
        else:
            self._step(active, self._resolve(active, step))

    async def _resolve(self, active: ActiveMail, step: Step) -> None:
        task = self._asking.get(step.domain)
        if task is None:
            task = self._asking[step.domain] = asyncio.get_running_loop().create_task(self._ask_site(step.domain))
            task.add_done_callback(lambda _: self._asking.pop(step.domain, None))
        self._pend([active.mail], 1)
        try:
            answer = await task
        finally:
            self._pend([active.mail], -1)
        self._admit(active, step, answer.name)

    async def _ask_site(self, domain: str) -> SiteAnswer:
        try:
            payload = await self._bus.request(DELIVERY_SITE, encode_site_question(domain), timeout=SITE_TIMEOUT)
            answer = decode_site_answer(payload)
        except NoAnswer:
            return SiteAnswer(domain, domain, 0.0)  # its own site for now; the attempt will tell what is wrong
        if answer.ttl > 0:
            self._sites[domain] = answer
        return answer

    def _admit(self, active: ActiveMail, step: Step, name: str) -> None:
        rule = step.rule
        key = f"{rule.tenant}/{rule.name}/{name}" if rule is not None else f"/{name}"
        site = self._active.site(key, lambda: self._make_site(key, name, step))
        active.open_jobs += 1
        job = ActiveJob(active, site, step.recipients, step.addresses, step.retry)
        self.dispatcher.admit(job)

    def _make_site(self, key: str, name: str, step: Step) -> Site:
        limit = step.rule.max_sessions if step.rule is not None else 0
        return Site(key, name, route_of(step), limit or self._settings.site_sessions)

    def _step(self, active: ActiveMail, work: Coroutine[Any, Any, None]) -> None:
        """A step that needs awaiting and is not a job: the mail stays open until it is through."""
        active.open_jobs += 1
        self._spawn(self._run_step(active, work))

    async def _run_step(self, active: ActiveMail, work: Coroutine[Any, Any, None]) -> None:
        await work
        self.settler.close_step(active)

    # --- the end of a record -----------------------------------------------------------------------------------------

    def mail_finished(self, mail: ActiveMail) -> None:
        """Nothing of this mail is open in its record."""
        ticket = cast(Ticket, mail.ticket)
        if mail.mail.content_ref and not mail.moved and _is_sole_carrier(mail):
            self._spawn(self._forget_content(mail.mail.content_ref))
        self._mail_through(ticket)

    def _mail_through(self, ticket: Ticket) -> None:
        ticket.open -= 1
        if ticket.open == 0:
            self._spawn(self._acknowledge(ticket))

    async def _acknowledge(self, ticket: Ticket) -> None:
        for _ in range(3):
            delivery = ticket.delivery
            try:
                await delivery.ack()
                break
            except BusError:
                await asyncio.sleep(0.2)
        # Unanswered: it comes again, is looked up in EVENTS and found finished.
        del self._tickets[ticket.key]

    async def _set_aside(self, delivery: Delivery, reason: str) -> None:
        await self._journal.hold(reason, delivery.subject, delivery.payload, f"{delivery.subject}-{delivery.seq}")
        try:
            await delivery.term()
        except BusError:
            return  # it comes again and is set aside again, under the same id
        log.error("record_set_aside", reason=reason, subject=delivery.subject, seq=delivery.seq)

    async def _forget_content(self, name: str) -> None:
        try:
            await self._bus.delete_object(name)
        except BusError as error:
            log.info("content_left_behind", content=name, error=str(error))  # it ages out

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("record_failed", error=repr(error))
            raise error

    async def drain(self, seconds: float) -> None:
        """Wait for what is being written, at most so long."""
        deadline = time.monotonic() + seconds
        while self._tasks and time.monotonic() < deadline:  # noqa: ASYNC110 - at shutdown only, against a deadline
            await asyncio.sleep(0.05)


def _as_deferred(record: SpoolRecord) -> list[DeferredMail]:
    return [DeferredMail(mail, record.id, tuple(range(len(mail.envelope.recipients))), 0) for mail in record.mails]


def _is_sole_carrier(mail: ActiveMail) -> bool:
    # A mail with several recipients may wait in a sibling record too: its content then ages out instead.
    return mail.attempts == 0 or len(mail.mail.envelope.recipients) == 1
