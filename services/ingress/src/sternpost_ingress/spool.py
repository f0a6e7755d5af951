"""Makes accepted mail durable: natural batches into SPOOL, and the fence that settles what the broker left unsaid (P1, P3).

A door calls `Spool.put` and answers 250 or 202 only when it returns. This file knows nothing of SMTP, HTTP or policy.
"""

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog

from sternpost_ingress.telemetry import spool_batch_stored, spool_fenced, spool_refused, spool_unexpected_duplicate
from sternpost_mail.envelope import Mail, SpoolRecord
from sternpost_mail.ids import RANDOM_OCTETS, make_id
from sternpost_runtime.batch import Batcher, Overloaded
from sternpost_runtime.bus import Bus, BusDown, BusError, OutcomeUnknown, StoreRefused, StreamFull
from sternpost_runtime.codec import decode_event_batch, encode_spool_record
from sternpost_runtime.subjects import (
    HEADER_RETRY,
    STREAM_DEFER,
    STREAM_EVENTS,
    STREAM_SPOOL,
    event_subject,
    spool_subject,
)

log = structlog.get_logger()


class Why(StrEnum):
    """Why the spool refuses; each is temporary."""

    DOWN = "down"
    FULL = "full"
    OVERLOADED = "overloaded"
    FENCED = "fenced"


class SpoolRefused(Exception):
    """Known not accepted: answer 451 or 452 (SMTP), 503 with Retry-After (HTTP)."""

    def __init__(self, reason: Why, retry_after: int) -> None:
        super().__init__(f"spool: {reason}")
        self.reason = reason
        self.retry_after = retry_after
        """Seconds after which another try makes sense."""


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """The limits of the way into the spool. Sizes in octets, times in seconds."""

    inline: int = 512 * 1024
    """Content up to this travels inside the record; above it goes to the object store first."""
    batch_bytes: int = 1024 * 1024
    """One record's content; with one mail of the inline limit on top it stays far below the broker's 4 MiB."""
    batch_count: int = 50
    """Mails in one record: what finishes together is acknowledged together."""
    waiting: int = 2000
    """Mails that may wait for a batch; past it the client is told to wait (452), promise P8."""
    first_answer: float = 5.0
    """Wait for the first PubAck: a leader change takes about five seconds."""
    retries_until: float = 10.0
    """Repeats under the same id stop at this age of the record and the fence is raised."""
    fence_answer: float = 5.0
    """Wait for the fence's answer; with the above the dot waits 15 s at most."""
    retry_after: int = 15
    """Seconds that a refused client is asked to wait."""


DEFAULT_LIMITS = SpoolLimits()
ADMISSION_PERIOD = 2.0
"""Seconds between looks at how full the streams are."""
ADMISSION_LEVEL = 0.9
"""Share of a stream's limit at which no more mail is admitted: what is accepted must still find room for its outcome."""


class Spool:
    """The way into SPOOL. `put` returns when the mail is durable."""

    def __init__(self, bus: Bus, limits: SpoolLimits = DEFAULT_LIMITS, *, clock: Callable[[], float] = time.monotonic):
        self._bus = bus
        self._limits = limits
        self._clock = clock
        self._full = ""
        self._lanes: dict[str, Batcher[Mail, None]] = {}

    async def put(self, mail: Mail, *, record_id: str | None = None) -> None:
        """Make the mail durable.

        Raises SpoolRefused (known not accepted, and never will be delivered) or OutcomeUnknown (say nothing to the client).
        With `record_id` the mail travels alone under that id, so that a repeat by the same client finds the original.
        """
        if self._full:
            spool_refused(Why.FULL)
            raise SpoolRefused(Why.FULL, self._limits.retry_after)
        if not self._bus.connected:
            spool_refused(Why.DOWN)
            raise SpoolRefused(Why.DOWN, self._limits.retry_after)
        if len(mail.content) > self._limits.inline:
            mail = await self._put_content(mail)
        if record_id is not None:
            await self._settle(SpoolRecord(record_id, (mail,)), mail.lane, repeat=True)
            return
        batcher = self._lanes.get(mail.lane)
        if batcher is None:
            batcher = self._lanes[mail.lane] = self._batcher()
        try:
            await batcher.put(mail)
        except Overloaded:
            spool_refused(Why.OVERLOADED)
            raise SpoolRefused(Why.OVERLOADED, self._limits.retry_after) from None

    async def watch_admission(self) -> None:
        """Look every two seconds whether SPOOL, DEFER and EVENTS have room; run it as a task of the process."""
        while True:
            self._full = await self._fullest()
            await asyncio.sleep(ADMISSION_PERIOD)

    async def close(self) -> None:
        """Bring to an end what was begun."""
        for batcher in self._lanes.values():
            await batcher.close()

    async def _fullest(self) -> str:
        for name in (STREAM_SPOOL, STREAM_DEFER, STREAM_EVENTS):
            try:
                info = await self._bus.stream_state(name)
            except BusError:
                return ""  # down is known better by the publish itself
            limit = int(info["config"]["max_bytes"])
            if limit > 0 and int(info["state"]["bytes"]) > limit * ADMISSION_LEVEL:
                if self._full != name:
                    log.warning("admission_stopped", stream=name, bytes=info["state"]["bytes"], limit=limit)
                return name
        return ""

    def _batcher(self) -> Batcher[Mail, None]:
        limits = self._limits
        return Batcher(
            self._flush,
            size=_octets,
            max_bytes=limits.batch_bytes,
            max_count=limits.batch_count,
            max_waiting=limits.waiting,
        )

    async def _flush(self, mails: list[Mail]) -> Sequence[None]:
        record = SpoolRecord(make_id(time.time_ns() // 1_000_000, os.urandom(RANDOM_OCTETS)), tuple(mails))
        began = self._clock()
        await self._settle(record, mails[0].lane, repeat=False)
        spool_batch_stored(len(mails), self._clock() - began)
        return [None] * len(mails)

    async def _settle(self, record: SpoolRecord, lane: str, *, repeat: bool) -> None:
        """Publish until it is known whether the record is stored.

        Returns when it is; raises SpoolRefused when it is not and never can be; OutcomeUnknown when nobody can tell.
        """
        subject = spool_subject(lane, record.id)
        payload = encode_spool_record(record)
        began = self._clock()
        epoch = self._bus.epoch
        try:
            headers = {HEADER_RETRY: "1"} if repeat else None
            stored = await self._bus.store(
                subject, payload, msg_id=record.id, headers=headers, timeout=self._limits.first_answer
            )
            if stored.duplicate and not repeat:
                spool_unexpected_duplicate()
                log.error("spool_id_was_known", record=record.id)  # a fresh id met a stored one: see to it
            return
        except StreamFull:
            raise self._refuse(Why.FULL) from None
        except (BusDown, StoreRefused):
            raise self._refuse(Why.DOWN) from None
        except OutcomeUnknown:
            pass
        if await self._publish_again(subject, payload, record.id, began):
            return
        if repeat:
            # A fence would make the client's own repeat under this id look stored: its next try settles it instead.
            raise OutcomeUnknown("the record was not answered")
        if await self._fence(subject, record.id):
            return
        if self._bus.epoch != epoch and await self._has_events(record.id):
            return  # the broker forgot the id because the record is already done with
        raise self._refuse(Why.FENCED)

    async def _publish_again(self, subject: str, payload: bytes, record_id: str, began: float) -> bool:
        deadline = began + self._limits.retries_until
        while (left := deadline - self._clock()) > 0:
            try:
                await self._bus.store(
                    subject, payload, msg_id=record_id, headers={HEADER_RETRY: "1"}, timeout=min(left, 2.0)
                )
                return True
            except OutcomeUnknown:
                continue
            except BusError:
                # Refused now says nothing about the first publish, which may still be on its way.
                await asyncio.sleep(min(0.2, max(left, 0.0)))
        return False

    async def _fence(self, subject: str, record_id: str) -> bool:
        """Occupy the id with an empty record. True: the original is stored. False: it now never can be."""
        deadline = self._clock() + self._limits.fence_answer
        empty = encode_spool_record(SpoolRecord(record_id, ()))
        while (left := deadline - self._clock()) > 0:
            try:
                stored = await self._bus.store(subject, empty, msg_id=record_id, timeout=left)
            except OutcomeUnknown:
                # One fence only: the answer "duplicate" to a second one could mean our own first.
                break
            except BusError:
                await asyncio.sleep(min(0.2, max(left, 0.0)))
                continue
            spool_fenced("stored" if stored.duplicate else "refused")
            return stored.duplicate
        spool_fenced("unknown")
        raise OutcomeUnknown("neither the record nor its fence was answered")

    async def _has_events(self, record_id: str) -> bool:
        since = time.time_ns() // 1_000_000 - 60_000
        try:
            async for message in self._bus.read_from(STREAM_EVENTS, event_subject(record_id), since):
                if any(event.record_id == record_id for event in decode_event_batch(message.payload).events):
                    return True
        except BusError as error:
            raise OutcomeUnknown("the broker came back, but its events cannot be read") from error
        return False

    async def _put_content(self, mail: Mail) -> Mail:
        try:
            await self._bus.put_object(mail.id, mail.content)
        except StreamFull:
            raise self._refuse(Why.FULL) from None
        except BusError:
            # Whatever part was stored belongs to no record: it ages out, and nothing was accepted.
            raise self._refuse(Why.DOWN) from None
        return dataclasses.replace(mail, content=b"", content_ref=mail.id)

    def _refuse(self, reason: Why) -> SpoolRefused:
        spool_refused(reason)
        return SpoolRefused(reason, self._limits.retry_after)


def _octets(mail: Mail) -> int:
    return len(mail.content) + len(mail.facts) + 512
