"""The composition root of activity: everything is wired here, by hand, from top to bottom."""

import asyncio
import time

from sternpost_activity import telemetry
from sternpost_activity.answer import Answers
from sternpost_activity.consume import Projection
from sternpost_activity.database import Database, DatabaseDown
from sternpost_activity.lag import LagWatch, Progress
from sternpost_activity.retention import keep_deleting
from sternpost_activity.search import Search
from sternpost_activity.settings import Settings
from sternpost_activity.spool_lookup import SpoolLookup
from sternpost_activity.store import Store
from sternpost_mail.envelope import Facts
from sternpost_runtime.bus import Bus, BusError
from sternpost_runtime.codec import CodecError, decode_facts
from sternpost_runtime.health import Health
from sternpost_runtime.lifecycle import Stop, settle_gc, spawn
from sternpost_runtime.subjects import (
    ACTIVITY_LIST,
    ACTIVITY_MESSAGE,
    CONSUMER_ACTIVITY,
    STREAM_EVENTS,
    Service,
)

GROUP = "activity"
"""The queue group of the questions: one of the replicas answers."""
QUESTIONS_AT_ONCE = 32
"""Questions that are worked on together; the rest waits in the connection, bounded by the bus."""
START_RETRY = 2.0
"""Seconds between tries to reach the database or the broker's stream at start."""


async def run_app(settings: Settings, stop: Stop) -> None:
    """Activity from start to end: migrate, project, answer, delete, until `stop`."""
    health = Health()
    database = Database(settings.database_url.get_secret_value())
    bus: Bus | None = None
    tasks: list[asyncio.Task[None]] = []
    answers_now = _Flag()
    health.add("database", lambda: answers_now.value)
    health.add("broker", lambda: bus is not None and bus.connected)
    await health.serve(settings.health_host, settings.health_port)
    try:
        bus = await Bus.connect(settings, Service.ACTIVITY)
        store = Store(database, open_facts)
        position = await _start_position(database, store, bus, stop)
        if position is None:
            return
        answers_now.value = True
        progress = Progress(position)
        projection = Projection(
            bus.puller(STREAM_EVENTS, CONSUMER_ACTIVITY),
            store,
            progress,
            lambda: stop.is_set,
            fetch_records=settings.fetch_records,
            transaction_events=settings.transaction_events,
            collect=settings.collect_ms / 1000,
        )
        answers = Answers(Search(database), SpoolLookup(bus, open_facts), bus, progress, wait=settings.answer_wait)
        await bus.serve(ACTIVITY_MESSAGE, answers.message, group=GROUP, concurrency=QUESTIONS_AT_ONCE)
        await bus.serve(ACTIVITY_LIST, answers.page, group=GROUP, concurrency=QUESTIONS_AT_ONCE)
        projecting = spawn(projection.run(), "projection")
        tasks.append(spawn(_watch(settings, database, bus, progress, projection, answers_now), "watch"))
        tasks.append(
            spawn(
                keep_deleting(
                    store,
                    days=settings.retention_days,
                    chunk=settings.retention_chunk,
                    interval=settings.retention_interval,
                    is_stopping=lambda: stop.is_set,
                ),
                "retention",
            )
        )
        settle_gc()
        await stop.wait()
        await asyncio.wait((projecting,))  # the transaction in hand is committed and acknowledged
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if bus is not None:
            await bus.close()
        await database.close()
        await health.close()


def open_facts(octets: bytes) -> Facts | None:
    """The facts of a mail, or None for octets that are none: a mail is shown without them rather than not at all."""
    try:
        return decode_facts(octets)
    except CodecError:
        return None


class _Flag:
    """Whether the database answered when it was last asked."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = False


async def _start_position(database: Database, store: Store, bus: Bus, stop: Stop) -> int | None:
    """Migrate and read the position, for as long as it takes; None when the service ends before."""
    while not stop.is_set:
        try:
            await database.migrate()
            position = await store.position()
            last_seq = await bus.last_seq(STREAM_EVENTS)
            if position > last_seq:
                # EVENTS was made anew and counts from 1: the position of the old one says nothing.
                telemetry.events_restarted(position, last_seq)
                await store.rewind(0)
                position = 0
            return position
        except DatabaseDown as error:
            telemetry.database_down(str(error), START_RETRY)
        except BusError as error:
            telemetry.broker_down(str(error), START_RETRY)
        try:
            async with asyncio.timeout(START_RETRY):
                await stop.wait()
        except TimeoutError:
            continue
    return None


async def _watch(
    settings: Settings,
    database: Database,
    bus: Bus,
    progress: Progress,
    projection: Projection,
    answers_now: _Flag,
) -> None:
    """Look at the lag and at the database, for the life of the service."""
    lag = LagWatch()
    while True:
        try:
            await database.ping()
            answers_now.value = projection.database_answers
        except DatabaseDown:
            answers_now.value = False
        try:
            last_seq = await bus.last_seq(STREAM_EVENTS)
        except BusError:
            pass  # the broker check tells it; the gauges keep what was seen last
        else:
            records = max(0, last_seq - progress.position)
            behind = lag.observe(time.monotonic(), last_seq, progress.position)
            late = records > 0 and max(behind, projection.last_age) > settings.lag_alarm
            telemetry.lag_observed(records, behind, late)
        await asyncio.sleep(settings.watch_interval)
