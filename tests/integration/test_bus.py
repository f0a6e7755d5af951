"""The bus against a real broker: durable stores, duplicates, schedules, direct reads, buckets and large contents."""

import asyncio
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from sternpost_runtime.bootstrap import BootstrapSettings, bootstrap
from sternpost_runtime.bus import BusDown, Conflict, Delivery, NoAnswer, ObjectMissing, StreamFull
from sternpost_runtime.subjects import (
    BUCKET_CONTROL,
    BUCKET_IDEMPOTENCY,
    CONSUMER_DUE,
    HEADER_SCHEDULE,
    HEADER_SCHEDULE_TARGET,
    STREAM_DEFER,
    STREAM_EVENTS,
    STREAM_SPOOL,
    Service,
    defer_subject,
    due_subject,
    event_subject,
    spool_consumer,
    spool_subject,
)
from tests.support.broker import Broker, running_broker


def fresh() -> str:
    return uuid.uuid4().hex


async def test_a_second_bootstrap_changes_nothing(broker: Broker) -> None:
    bus = await broker.connect(Service.BOOTSTRAP)
    assert await bootstrap(bus, BootstrapSettings(storage_mib=broker.storage_mib)) == []
    await bus.close()


async def test_a_repeat_under_the_same_id_is_told_apart(broker: Broker) -> None:
    bus = await broker.connect(Service.INGRESS)
    record = fresh()
    first = await bus.store(spool_subject("bulk", record), b"x", msg_id=record)
    second = await bus.store(spool_subject("bulk", record), b"", msg_id=record)
    assert (first.duplicate, second.duplicate) == (False, True)
    await bus.close()


async def test_a_pulled_record_comes_back_until_it_is_acknowledged(own_broker: Broker) -> None:
    ingress, queue = await own_broker.connect(Service.INGRESS), await own_broker.connect(Service.QUEUE)
    record = fresh()
    await ingress.store(spool_subject("normal", record), b"mail", msg_id=record)
    puller = queue.puller(STREAM_SPOOL, spool_consumer("normal"))
    [first] = await puller.fetch(10, 5)
    assert (first.payload, first.num_delivered) == (b"mail", 1)
    await first.nak(0.1)
    [again] = await puller.fetch(10, 5)
    assert again.num_delivered == 2
    await again.ack()
    assert await puller.fetch(10, 0.3) == []
    assert (await queue.stream_state(STREAM_SPOOL))["state"]["messages"] == 0
    await ingress.close()
    await queue.close()


async def test_a_waiting_record_falls_due_at_its_moment(own_broker: Broker) -> None:
    bus = await own_broker.connect(Service.QUEUE)
    record = fresh()
    moment = datetime.now(UTC) + timedelta(seconds=1.5)
    await bus.store(
        defer_subject("mx.example", record),
        b"later",
        msg_id=record,
        headers={
            HEADER_SCHEDULE: f"@at {moment.strftime('%Y-%m-%dT%H:%M:%S.%f')}Z",
            HEADER_SCHEDULE_TARGET: due_subject(record),
        },
    )
    puller = bus.puller(STREAM_DEFER, CONSUMER_DUE)
    deliveries: list[Delivery] = []
    while not deliveries:
        deliveries = await puller.fetch(10, 5)
    assert deliveries[0].payload == b"later"
    assert time.time() >= moment.timestamp()
    await deliveries[0].ack()
    await bus.close()


async def test_direct_get_reads_one_bucket_from_a_moment_on(broker: Broker) -> None:
    bus = await broker.connect(Service.DELIVERY)
    queue = await broker.connect(Service.QUEUE)
    record = fresh()
    before = time.time_ns() // 1_000_000 - 5
    for number in range(150):
        await bus.store(event_subject(record), b"%d" % number, msg_id=f"{record}-{number}")
    found = [m.payload async for m in queue.read_from(STREAM_EVENTS, event_subject(record), before)]
    assert found == [b"%d" % number for number in range(150)]
    assert [m async for m in queue.read_from(STREAM_EVENTS, event_subject(record), before, limit=3)] != []
    assert [m async for m in queue.read_from(STREAM_EVENTS, event_subject(record), before + 3_600_000)] == []
    await bus.close()
    await queue.close()


async def test_a_bucket_key_is_written_by_revision_only(broker: Broker) -> None:
    bus = await broker.connect(Service.INGRESS)
    bucket = bus.bucket(BUCKET_IDEMPOTENCY)
    key = f"h.{fresh()}"
    assert await bucket.get(key) is None
    revision = await bucket.create(key, b"1")
    with pytest.raises(Conflict):
        await bucket.create(key, b"2")
    await bucket.update(key, b"2", revision)
    with pytest.raises(Conflict):
        await bucket.update(key, b"3", revision)
    found = await bucket.get(key)
    assert found is not None
    assert found.value == b"2"
    await bucket.delete(key)
    assert await bucket.get(key) is None
    await bucket.create(key, b"4")
    await bus.close()


async def test_a_watcher_hears_what_is_there_and_what_changes(broker: Broker) -> None:
    bus = await broker.connect(Service.QUEUE)
    bucket = bus.bucket(BUCKET_CONTROL)
    old, new = f"cancel.{fresh()}", f"cancel.{fresh()}"
    await bucket.put(old, b"1")
    heard: dict[str, bytes | None] = {}
    ready, changed = asyncio.Event(), asyncio.Event()

    def handler(key: str, value: bytes | None) -> None:
        heard[key] = value
        changed.set()

    await bucket.watch(handler, ready)
    await asyncio.wait_for(ready.wait(), 5)
    assert heard[old] == b"1"
    changed.clear()
    await bucket.put(new, b"2", ttl=60)
    await asyncio.wait_for(changed.wait(), 5)
    assert heard[new] == b"2"
    changed.clear()
    await bucket.delete(old)
    await asyncio.wait_for(changed.wait(), 5)
    assert heard[old] is None
    await bus.close()


async def test_a_large_content_comes_back_whole_or_not_at_all(broker: Broker) -> None:
    ingress, queue = await broker.connect(Service.INGRESS), await broker.connect(Service.QUEUE)
    name, data = fresh(), bytes(range(256)) * 8192
    await ingress.put_object(name, data)
    assert await queue.get_object(name) == data
    await queue.delete_object(name)
    with pytest.raises(ObjectMissing):
        await queue.get_object(name)
    await ingress.close()
    await queue.close()


async def test_a_full_stream_refuses_at_once() -> None:
    async with running_broker(storage_mib=64) as broker:
        bus = await broker.connect(Service.INGRESS)

        async def fill() -> None:
            for _ in range(100):
                record = fresh()
                await bus.store(spool_subject("normal", record), bytes(1024 * 1024), msg_id=record)

        with pytest.raises(StreamFull):
            await fill()
        began = time.monotonic()
        with pytest.raises(StreamFull):
            await bus.store(spool_subject("normal", fresh()), bytes(1024 * 1024), msg_id=fresh())
        assert time.monotonic() - began < 1
        await bus.close()


async def test_a_broker_that_is_gone_is_known_at_once(own_broker: Broker) -> None:
    bus = await own_broker.connect(Service.INGRESS)
    await own_broker.kill()
    async with asyncio.timeout(10):
        while bus.connected:  # noqa: ASYNC110 - the bus tells of a loss by this property alone
            await asyncio.sleep(0.01)
    with pytest.raises(BusDown):
        await bus.store(spool_subject("normal", "a"), b"x", msg_id="a")
    back = asyncio.Event()
    bus.on_reconnect(back.set)
    await own_broker.start()
    await asyncio.wait_for(back.wait(), 10)
    assert (await bus.store(spool_subject("normal", "b"), b"x", msg_id=fresh())).stream == STREAM_SPOOL
    await bus.close()


REFUSED = [
    # service, subject, why it must be refused
    (Service.INGRESS, "event.1", "a door writes no outcomes"),
    (Service.INGRESS, "$JS.API.STREAM.CREATE.X", "only bootstrap creates streams"),
    (Service.INGRESS, "$JS.API.CONSUMER.MSG.NEXT.SPOOL.queue-normal", "a door reads no mail"),
    (Service.QUEUE, "$KV.CONFIG.domain.x", "only the operator configures"),
    (Service.QUEUE, "$JS.API.STREAM.DELETE.SPOOL", "nobody deletes the spool"),
    (Service.DELIVERY, "spool.normal.1", "the hands accept no mail"),
    (Service.DELIVERY, "$JS.ACK._.x.SPOOL.queue-normal.1.1.1.1.1.t", "the hands finish no record"),
    (Service.AUTH, "spool.normal.1", "auth sends no mail"),
    (Service.AUTH, "$JS.API.DIRECT.GET.SPOOL", "auth reads no mail"),
    (Service.ACTIVITY, "event.1", "the memory invents nothing"),
    (Service.ACTIVITY, "$JS.ACK._.x.SPOOL.queue-normal.1.1.1.1.1.t", "the memory finishes no record"),
]


@pytest.mark.parametrize(("service", "subject", "why"), REFUSED)
async def test_each_service_is_refused_what_is_not_its_own(
    broker: Broker, service: Service, subject: str, why: str
) -> None:
    bus = await broker.connect(service)
    refused = asyncio.Event()

    async def heard(error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            refused.set()

    bus._nc._error_cb = heard
    with pytest.raises(NoAnswer):
        await bus.request(subject, b"", timeout=0.3)
    assert refused.is_set(), why
    await bus.close()
