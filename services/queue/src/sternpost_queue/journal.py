"""What the queue writes: decisions into EVENTS, waiting mail into DEFER, reports into SPOOL, the rest into HELD.

Each function returns when its record is durable. Temporary trouble with the broker is waited out here, by the same id,
so a caller sees success or the end of the process, never a lost decision.
"""

import asyncio
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from sternpost_mail.envelope import DeferRecord, DeferredMail, HeldRecord, Mail, SpoolRecord
from sternpost_mail.events import Event, EventBatch, EventKind, OutcomeKind, Result
from sternpost_mail.ids import RANDOM_OCTETS, make_id
from sternpost_mail.retry import RetryPolicy
from sternpost_mail.states import State
from sternpost_queue import telemetry
from sternpost_queue.schedule import retry_moment_ms
from sternpost_runtime.batch import Batcher
from sternpost_runtime.bus import Bus, BusError, OutcomeUnknown, StoreRefused
from sternpost_runtime.codec import encode_defer_record, encode_event_batch, encode_held_record, encode_spool_record
from sternpost_runtime.subjects import (
    HEADER_RETRY,
    HEADER_SCHEDULE,
    HEADER_SCHEDULE_TARGET,
    defer_subject,
    due_subject,
    event_subject,
    held_subject,
    spool_subject,
)

log = structlog.get_logger()

MAX_WAITING = 50_000
"""Items that may wait for a batch: more than the active set can hold."""
DEFER_BYTES = 1024 * 1024
"""Content octets in one deferred record."""
DEFER_MAILS = 100
"""Mails in one deferred record."""
STORE_PAUSE = 0.25
"""Seconds between tries while the broker does not answer."""


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def new_id() -> str:
    """A fresh id."""
    return make_id(now_ms(), os.urandom(RANDOM_OCTETS))


@dataclass(frozen=True, slots=True)
class Waiting:
    """A mail that is to wait: `moment_ms` given, or found by policy once for all that failed together."""

    site: str
    deferred: DeferredMail
    policy: RetryPolicy
    retry_after: float = 0.0
    moment_ms: int = 0
    expires_ms: int = 0


class Journal:
    """The queue's pen."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._events: Batcher[Event, None] = Batcher(
            self._flush_events,
            size=_event_size,
            max_bytes=DEFER_BYTES,
            max_count=1000,
            max_waiting=MAX_WAITING,
            in_flight=2,
        )
        self._defers: Batcher[Waiting, int] = Batcher(
            self._flush_defers, size=_waiting_size, max_bytes=8 * DEFER_BYTES, max_count=1000, max_waiting=MAX_WAITING
        )

    async def close(self) -> None:
        """Write what waits."""
        await self._defers.close()
        await self._events.close()

    async def decide(self, mail: Mail, record_id: str, results: Sequence[Result], *, site: str = "") -> None:
        """A decision of the queue, durable in EVENTS on return."""
        await self._events.put(make_event(EventKind.DECISION, mail, record_id, tuple(results), site=site))

    async def tell(self, event: Event) -> None:
        """Any event, durable on return."""
        await self._events.put(event)

    async def wait(self, waiting: Waiting) -> int:
        """Put a mail into DEFER; returns the moment, in milliseconds, at which it will come back."""
        return await self._defers.put(waiting)

    async def report(self, mail: Mail, identifier: str) -> None:
        """A report of ours into the spool, as mail of its own. A repeat under the same identifier is the same one."""
        record = SpoolRecord(identifier, (mail,))
        await self._store(spool_subject(mail.lane, identifier), encode_spool_record(record), identifier)

    async def hold(self, reason: str, origin: str, payload: bytes, identifier: str) -> None:
        """Set a record aside for a person, with the reason."""
        telemetry.HELD.labels(reason).inc()
        body = encode_held_record(HeldRecord(identifier, reason, origin, now_ms(), payload))
        await self._store(held_subject(reason), body, f"held-{identifier}")

    async def _flush_events(self, events: list[Event]) -> Sequence[None]:
        by_record: dict[str, list[Event]] = {}
        for event in events:
            by_record.setdefault(event.record_id or event.mail_id, []).append(event)
        await asyncio.gather(
            *(
                self._store(event_subject(record), encode_event_batch(EventBatch(tuple(found))), found[0].id)
                for record, found in by_record.items()
            )
        )
        return [None] * len(events)

    async def _flush_defers(self, items: list[Waiting]) -> Sequence[int]:
        moments: list[int] = [0] * len(items)
        groups: dict[tuple[str, int, int, float, RetryPolicy], list[int]] = {}
        for number, item in enumerate(items):
            key = (item.site, item.moment_ms, item.deferred.attempts, item.retry_after, item.policy)
            groups.setdefault(key, []).append(number)
        writes = []
        for (site, moment, attempts, retry_after, policy), numbers in groups.items():
            present = now_ms()
            expires = min((items[n].expires_ms for n in numbers), default=0) or present + 86_400_000
            if not moment:
                moment = retry_moment_ms(
                    policy,
                    attempts=max(attempts, 1),
                    random=random.random(),  # noqa: S311 - jitter, no secret
                    retry_after=retry_after,
                    now_ms=present,
                    expires_ms=expires,
                )
            for part in _parts(items, numbers):
                for number in part:
                    moments[number] = moment
                writes.append(self._write_defer(site, moment, tuple(items[n].deferred for n in part)))
        await asyncio.gather(*writes)
        return moments

    async def _write_defer(self, site: str, moment: int, mails: tuple[DeferredMail, ...]) -> None:
        telemetry.DEFER_BATCH.observe(len(mails))
        record = DeferRecord(new_id(), site, mails)
        at = datetime.fromtimestamp(moment / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        headers = {HEADER_SCHEDULE: f"@at {at}", HEADER_SCHEDULE_TARGET: due_subject(record.id)}
        await self._store(defer_subject(site, record.id), encode_defer_record(record), record.id, headers)

    async def _store(
        self, subject: str, payload: bytes, identifier: str, headers: dict[str, str] | None = None
    ) -> None:
        sent = dict(headers or {})
        while True:
            try:
                await self._bus.store(subject, payload, msg_id=identifier, headers=sent)
                return
            except OutcomeUnknown:
                sent[HEADER_RETRY] = "1"  # the same id again: a duplicate answer means it was stored
            except StoreRefused as error:
                log.error("store_refused", subject=subject.split(".")[0], error=str(error))
                await asyncio.sleep(STORE_PAUSE * 4)
            except BusError:
                await asyncio.sleep(STORE_PAUSE)


def make_event(
    kind: EventKind, mail: Mail, record_id: str, results: tuple[Result, ...], *, site: str = "", attempt: int = 0
) -> Event:
    """An event of the queue about a mail."""
    return Event(
        id=new_id(),
        kind=kind,
        at_ms=now_ms(),
        mail_id=mail.id,
        record_id=record_id,
        tenant=mail.tenant,
        sender=mail.envelope.sender,
        accepted_ms=mail.accepted_ms,
        size=mail.size,
        results=results,
        attempt=attempt,
        site=site,
        identity=mail.identity,
        tags=mail.tags,
        facts=mail.facts,
    )


def make_results(
    mail: Mail,
    recipients: Sequence[int],
    state: State,
    reply: str = "",
    outcome: OutcomeKind = OutcomeKind.NONE,
    next_attempt_ms: int = 0,
) -> tuple[Result, ...]:
    """The same result for several recipients."""
    known = mail.envelope.recipients
    return tuple(Result(index, known[index].address, state, outcome, reply, next_attempt_ms) for index in recipients)


def _parts(items: list[Waiting], numbers: list[int]) -> list[list[int]]:
    parts: list[list[int]] = []
    octets = 0
    for number in numbers:
        size = _waiting_size(items[number])
        if not parts or len(parts[-1]) >= DEFER_MAILS or octets + size > DEFER_BYTES:
            parts.append([])
            octets = 0
        parts[-1].append(number)
        octets += size
    return parts


def _event_size(event: Event) -> int:
    return 200 + len(event.facts) + 120 * len(event.results)


def _waiting_size(waiting: Waiting) -> int:
    return len(waiting.deferred.mail.content) + 600
