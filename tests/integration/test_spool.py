"""The way into the spool on a real broker: accepted means stored once, refused means never delivered."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest

from sternpost_ingress.spool import Spool, SpoolLimits, SpoolRefused, Why
from sternpost_mail.envelope import Envelope, Lane, Mail, Recipient, SpoolRecord
from sternpost_mail.ids import make_id
from sternpost_runtime.bus import Bus, OutcomeUnknown, StreamFull
from sternpost_runtime.codec import decode_spool_record
from sternpost_runtime.subjects import STREAM_SPOOL, Service, spool_subject
from tests.support.broker import Broker, running_broker
from tests.support.proxy import Do, Proxy, running_proxy

QUICK = SpoolLimits(first_answer=0.3, retries_until=0.6, fence_answer=2.0)
"""Times so short that a lost answer is settled within a test's patience."""
MARK = b"the octets of this mail"


def make_mail(content: bytes = MARK, lane: Lane = Lane.NORMAL) -> Mail:
    now = time.time_ns() // 1_000_000
    return Mail(
        id=make_id(now, os.urandom(10)),
        tenant="team-a",
        lane=lane,
        envelope=Envelope("a@sender.example", (Recipient("b@there.example"),)),
        size=len(content),
        content=content,
        accepted_ms=now,
        expires_ms=now + 86_400_000,
    )


async def records(broker: Broker) -> list[SpoolRecord]:
    """What SPOOL holds."""
    bus = await broker.connect(Service.BOOTSTRAP)
    found = [decode_spool_record(m.payload) async for m in bus.scan(STREAM_SPOOL, "spool.>", {"seq": 1})]
    await bus.close()
    return found


@asynccontextmanager
async def behind_proxy(broker: Broker, limits: SpoolLimits = QUICK) -> AsyncIterator[tuple[Spool, Proxy, Bus]]:
    async with running_proxy(broker.port) as proxy:
        bus = await Bus.connect(broker.settings(Service.INGRESS, proxy.port), Service.INGRESS)
        try:
            yield Spool(bus, limits), proxy, bus
        finally:
            await bus.close()


def is_pub_ack(frame: bytes) -> bool:
    return frame.startswith((b"MSG", b"HMSG")) and b'"stream":"SPOOL"' in frame


def drop_first(matches: Callable[[bytes], bool], frames: int) -> Callable[[bytes], Do]:
    left = frames

    def rule(frame: bytes) -> Do:
        nonlocal left
        if left and matches(frame):
            left -= 1
            return Do.DROP
        return Do.PASS

    return rule


def carries_the_mail(frame: bytes) -> bool:
    return frame.startswith(b"HPUB spool.") and MARK in frame


async def test_puts_that_are_ready_together_share_a_record(own_broker: Broker) -> None:
    bus = await own_broker.connect(Service.INGRESS)
    spool = Spool(bus)
    mails = [make_mail() for _ in range(120)]
    await asyncio.gather(*(spool.put(mail) for mail in mails))
    await bus.close()
    stored = await records(own_broker)
    assert [len(record.mails) for record in stored] == [50, 50, 20]
    assert [mail for record in stored for mail in record.mails] == mails


async def test_one_put_alone_leaves_at_once_and_lanes_do_not_share(own_broker: Broker) -> None:
    bus = await own_broker.connect(Service.INGRESS)
    spool = Spool(bus)
    await asyncio.gather(*(spool.put(make_mail(lane=lane)) for lane in Lane))
    await bus.close()
    assert sorted(record.mails[0].lane for record in await records(own_broker)) == sorted(Lane)


async def test_a_large_content_is_stored_before_the_record_that_names_it(own_broker: Broker) -> None:
    bus = await own_broker.connect(Service.INGRESS)
    mail = make_mail(bytes(700 * 1024))
    await Spool(bus).put(mail)
    await bus.close()
    [record] = await records(own_broker)
    assert (record.mails[0].content, record.mails[0].content_ref) == (b"", mail.id)
    queue = await own_broker.connect(Service.QUEUE)
    assert await queue.get_object(mail.id) == mail.content
    await queue.close()


async def test_a_broker_that_is_down_is_told_within_a_second(own_broker: Broker) -> None:
    bus = await own_broker.connect(Service.INGRESS)
    spool = Spool(bus)
    await own_broker.kill()
    async with asyncio.timeout(5):
        while bus.connected:  # noqa: ASYNC110 - the client library tells nobody
            await asyncio.sleep(0.005)
    began = time.monotonic()
    with pytest.raises(SpoolRefused) as refused:
        await spool.put(make_mail())
    assert refused.value.reason is Why.DOWN
    assert time.monotonic() - began < 1
    await bus.close()


async def fill(bus: Bus, octets: int) -> None:
    """Store records of this size for ever."""
    for number in count():
        record = f"filler-{octets}-{number}"
        await bus.store(spool_subject("bulk", record), bytes(octets), msg_id=record)


async def refusal(spool: Spool) -> SpoolRefused:
    """Put mails until one is refused."""
    while True:
        try:
            await spool.put(make_mail())
        except SpoolRefused as refused:
            return refused


async def test_a_full_spool_is_told_within_a_second() -> None:
    async with running_broker(storage_mib=64) as broker:
        bus = await broker.connect(Service.INGRESS)
        for octets in (1024 * 1024, 16 * 1024):
            with pytest.raises(StreamFull):
                await fill(bus, octets)
        spool = Spool(bus)
        began = time.monotonic()
        with pytest.raises(SpoolRefused) as refused:
            await spool.put(make_mail(bytes(20 * 1024)))
        assert refused.value.reason is Why.FULL
        assert refused.value.retry_after > 0
        assert time.monotonic() - began < 1
        await bus.close()


async def test_admission_stops_before_the_spool_is_full() -> None:
    """What is accepted must still find room for its outcome."""
    async with running_broker(storage_mib=64) as broker:
        bus = await broker.connect(Service.INGRESS)
        limit = int((await bus.stream_state(STREAM_SPOOL))["config"]["max_bytes"])
        for number in range(int(limit * 0.92) // (1024 * 1024) + 1):
            await bus.store(spool_subject("bulk", f"f{number}"), bytes(1024 * 1024), msg_id=f"f{number}")
        spool = Spool(bus)
        await spool.put(make_mail())  # the stream itself has room
        watching = asyncio.ensure_future(spool.watch_admission())
        refused = await asyncio.wait_for(refusal(spool), 5)
        assert refused.reason is Why.FULL
        watching.cancel()
        await bus.close()


async def test_a_lost_answer_of_a_stored_record_is_found_by_the_repeat(own_broker: Broker) -> None:
    async with behind_proxy(own_broker) as (spool, proxy, _):
        proxy.to_client.rule = drop_first(is_pub_ack, 1)
        mail = make_mail()
        await spool.put(mail)
        assert len(proxy.to_client.dropped) == 1
    [record] = await records(own_broker)
    assert record.mails == (mail,)


async def test_a_stored_record_of_which_no_answer_comes_is_found_by_its_fence(own_broker: Broker) -> None:
    async with behind_proxy(own_broker) as (spool, proxy, _):
        fence_sent = False

        def watch(frame: bytes) -> Do:
            nonlocal fence_sent
            fence_sent = fence_sent or (frame.startswith(b"HPUB spool.") and MARK not in frame)
            return Do.PASS

        proxy.to_broker.rule = watch
        proxy.to_client.rule = lambda frame: Do.DROP if is_pub_ack(frame) and not fence_sent else Do.PASS
        mail = make_mail()
        await spool.put(mail)
        assert fence_sent
    [record] = await records(own_broker)
    assert record.mails == (mail,)


async def test_a_publish_held_back_is_fenced_and_refused_when_it_arrives_at_last(own_broker: Broker) -> None:
    async with behind_proxy(own_broker) as (spool, proxy, bus):
        proxy.to_broker.rule = lambda frame: Do.HOLD if carries_the_mail(frame) else Do.PASS
        with pytest.raises(SpoolRefused) as refused:
            await spool.put(make_mail())
        assert refused.value.reason is Why.FENCED
        answers: list[bytes] = []

        def listen(frame: bytes) -> Do:
            answers.append(frame)
            return Do.PASS

        proxy.to_client.rule = listen
        late = await proxy.to_broker.release()
        assert late >= 1
        # Requests of one connection are answered in order: this answer comes after those to the late publishes.
        await bus.stream_state(STREAM_SPOOL)
        acks = [frame for frame in answers if is_pub_ack(frame)]
        assert len(acks) == late
        assert all(b'"duplicate": true' in ack or b'"duplicate":true' in ack for ack in acks)
    [record] = await records(own_broker)
    assert record.mails == (), "only the fence"


async def test_every_mail_of_a_fenced_batch_is_refused(own_broker: Broker) -> None:
    async with behind_proxy(own_broker) as (spool, proxy, _):
        proxy.to_broker.rule = lambda frame: Do.HOLD if carries_the_mail(frame) else Do.PASS
        outcomes = await asyncio.gather(*(spool.put(make_mail()) for _ in range(5)), return_exceptions=True)
        assert [getattr(outcome, "reason", outcome) for outcome in outcomes] == [Why.FENCED] * 5
    [record] = await records(own_broker)
    assert record.mails == ()


async def test_nothing_answered_is_unknown(own_broker: Broker) -> None:
    limits = SpoolLimits(first_answer=0.2, retries_until=0.4, fence_answer=0.3)
    async with behind_proxy(own_broker, limits) as (spool, proxy, _):
        proxy.to_client.rule = lambda frame: Do.DROP if is_pub_ack(frame) else Do.PASS
        with pytest.raises(OutcomeUnknown):
            await spool.put(make_mail())


async def test_a_fence_whose_own_answer_is_lost_is_never_taken_for_the_mail(own_broker: Broker) -> None:
    """Only the fence is stored, and nobody heard so: to believe a later `duplicate` would lose the mail."""
    limits = SpoolLimits(first_answer=0.2, retries_until=0.4, fence_answer=0.5)
    async with behind_proxy(own_broker, limits) as (spool, proxy, _):
        proxy.to_broker.rule = lambda frame: Do.HOLD if carries_the_mail(frame) else Do.PASS
        proxy.to_client.rule = drop_first(is_pub_ack, 1)
        with pytest.raises(OutcomeUnknown):
            await spool.put(make_mail())
        assert len(proxy.to_client.dropped) == 1
    [record] = await records(own_broker)
    assert record.mails == ()


async def test_a_clients_own_repeat_finds_the_original(own_broker: Broker) -> None:
    async with behind_proxy(own_broker) as (spool, proxy, _):
        record_id = make_id(time.time_ns() // 1_000_000, os.urandom(10))
        mail = make_mail()
        proxy.to_client.rule = lambda frame: Do.DROP if is_pub_ack(frame) else Do.PASS
        with pytest.raises(OutcomeUnknown):
            await spool.put(mail, record_id=record_id)
        proxy.to_client.rule = lambda _: Do.PASS
        await spool.put(mail, record_id=record_id)
    [record] = await records(own_broker)
    assert (record.id, record.mails) == (record_id, (mail,)), "no fence stands in its place"


async def test_a_broker_killed_after_storing_and_before_answering_holds_it_once(own_broker: Broker) -> None:
    limits = SpoolLimits(first_answer=0.5, retries_until=15.0, fence_answer=5.0)
    async with behind_proxy(own_broker, limits) as (spool, proxy, _):
        proxy.to_client.rule = drop_first(is_pub_ack, 1)
        mail = make_mail()
        putting = asyncio.ensure_future(spool.put(mail))
        await proxy.to_client.until(dropped=1)  # stored, and nobody but the proxy knows
        await own_broker.kill()
        await own_broker.start()
        await asyncio.wait_for(putting, 20)
    [record] = await records(own_broker)
    assert record.mails == (mail,)
