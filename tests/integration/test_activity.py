"""Activity as a process would run it, against a real broker: events in, answers out, poison, outages, the spool."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sternpost_activity.app import run_app
from sternpost_activity.settings import Settings
from sternpost_mail.envelope import Door, Envelope, Facts, Lane, Mail, Recipient, SpoolRecord
from sternpost_mail.events import Event, EventBatch, EventKind, OutcomeKind, Result
from sternpost_mail.ids import RANDOM_OCTETS, make_id
from sternpost_mail.states import State
from sternpost_mail.timeline import ListAnswer, ListQuestion, MessageAnswer, MessageQuestion
from sternpost_runtime.bus import Bus, NoAnswer
from sternpost_runtime.codec import (
    decode_list_answer,
    decode_message_answer,
    encode_event_batch,
    encode_facts,
    encode_list_question,
    encode_message_question,
    encode_spool_record,
)
from sternpost_runtime.lifecycle import Stop
from sternpost_runtime.subjects import ACTIVITY_LIST, ACTIVITY_MESSAGE, Service, event_subject, spool_subject
from tests.support.broker import Broker


@pytest.fixture
async def ingress(own_broker: Broker) -> AsyncIterator[Bus]:
    bus = await own_broker.connect(Service.INGRESS)
    yield bus
    await bus.close()


@pytest.fixture
async def queue(own_broker: Broker) -> AsyncIterator[Bus]:
    bus = await own_broker.connect(Service.QUEUE)
    yield bus
    await bus.close()


@asynccontextmanager
async def running_activity(broker: Broker, directory: Path) -> AsyncIterator[None]:
    """The whole service in this event loop; it ends with its own clean stop."""
    settings = Settings.model_validate(
        {
            "nats_url": f"nats://127.0.0.1:{broker.port}",
            "nats_user": Service.ACTIVITY.value,
            "nats_password": broker.passwords[Service.ACTIVITY],
            "health_port": 0,
            "database_url": f"sqlite:///{directory}/activity.db",
            "answer_wait": 5.0,
        }
    )
    stop = Stop()
    app = asyncio.create_task(run_app(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await app


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def fresh_id() -> str:
    return make_id(now_ms(), os.urandom(RANDOM_OCTETS))


def delivered(mail_id: str, name: str = "") -> Event:
    return Event(
        id=name or fresh_id(),
        kind=EventKind.ATTEMPT,
        at_ms=now_ms(),
        mail_id=mail_id,
        record_id=mail_id,
        tenant="shop",
        sender="noreply@example.com",
        accepted_ms=now_ms(),
        size=100,
        results=(Result(0, "user@example.net", State.DELIVERED, OutcomeKind.DELIVERED, "250 Ok"),),
        attempt=1,
    )


async def tell(bus: Bus, *events: Event) -> None:
    record = events[0].record_id
    await bus.store(event_subject(record), encode_event_batch(EventBatch(events)), msg_id=fresh_id())


async def ask(bus: Bus, mail_id: str, tenant: str = "shop") -> MessageAnswer:
    """Asks again only while nobody answers, which is what a service that just starts looks like."""
    question = encode_message_question(MessageQuestion(mail_id, tenant))
    async with asyncio.timeout(30):
        while True:
            try:
                return decode_message_answer(await bus.request(ACTIVITY_MESSAGE, question, timeout=10))
            except NoAnswer:
                await asyncio.sleep(0.05)


async def ask_page(bus: Bus, question: ListQuestion) -> ListAnswer:
    return decode_list_answer(await bus.request(ACTIVITY_LIST, encode_list_question(question), timeout=10))


async def test_what_happened_is_told_at_once_and_to_its_tenant_only(
    own_broker: Broker, ingress: Bus, queue: Bus, tmp_path: Path
) -> None:
    mail_id = fresh_id()
    async with running_activity(own_broker, tmp_path):
        assert (await ask(ingress, fresh_id())).message is None
        await tell(queue, delivered(mail_id))
        view = (await ask(ingress, mail_id)).message  # no sleep: the answer waits for the projection
        assert view is not None
        assert (view.state, [line.kind for line in view.timeline]) == (State.DELIVERED, ["accepted", "attempt"])
        assert (await ask(ingress, mail_id, tenant="bank")).message is None
        assert (await ask(ingress, "nonsense")).message is None
        page = await ask_page(ingress, ListQuestion(tenant="shop"))
        assert [message.id for message in page.messages] == [mail_id]
        assert (await ask_page(ingress, ListQuestion(tenant="bank"))).messages == ()
        assert (await ask_page(ingress, ListQuestion(state="no such state"))).messages == ()


async def test_activity_that_was_down_catches_up_and_counts_nothing_twice(
    own_broker: Broker, ingress: Bus, queue: Bus, tmp_path: Path
) -> None:
    mails = [fresh_id() for _ in range(60)]
    for mail_id in mails[:30]:
        await tell(queue, delivered(mail_id, name=f"first-{mail_id}"))
    async with running_activity(own_broker, tmp_path):
        assert (await ask(ingress, mails[29])).message is not None
    for mail_id in mails[30:]:
        await tell(queue, delivered(mail_id))
    for mail_id in mails[:30]:
        await tell(queue, delivered(mail_id, name=f"first-{mail_id}"))  # the same facts, stored a second time
    async with running_activity(own_broker, tmp_path):
        for mail_id in mails:
            view = (await ask(ingress, mail_id)).message
            assert view is not None
            assert len(view.timeline) == 2
        page = await ask_page(ingress, ListQuestion(tenant="shop", limit=100))
        assert [message.id for message in page.messages] == sorted(mails, reverse=True)


async def test_poison_is_given_up_and_what_follows_is_projected(
    own_broker: Broker, ingress: Bus, queue: Bus, tmp_path: Path
) -> None:
    unfit, good = fresh_id(), fresh_id()
    await queue.store("event.1", b"\xff\xff\xff", msg_id=fresh_id())
    await tell(queue, delivered(good))
    async with running_activity(own_broker, tmp_path):
        assert (await ask(ingress, good)).message is not None
        assert (await ask(ingress, unfit)).message is None
        await _acknowledged(own_broker)


async def _acknowledged(broker: Broker) -> None:
    """Nothing is left for the consumer: not waiting, not unacknowledged."""
    bus = await broker.connect(Service.BOOTSTRAP)
    try:
        async with asyncio.timeout(10):
            while True:
                info = json.loads(await bus.request("$JS.API.CONSUMER.INFO.EVENTS.activity", b"", timeout=5))
                if info["num_pending"] == 0 and info["num_ack_pending"] == 0:
                    return
                await asyncio.sleep(0.05)
    finally:
        await bus.close()


def spooled(mail_id: str, not_before_ms: int = 0) -> Mail:
    facts = Facts(Door.HTTP, "192.0.2.1", "Shop <shop@example.com>", "<1@x>", "Hello", (("k", "v"),), ())
    return Mail(
        id=mail_id,
        tenant="shop",
        lane=Lane.NORMAL,
        envelope=Envelope("noreply@example.com", (Recipient("a@example.net"), Recipient("b@example.net"))),
        size=100,
        content=b"Subject: Hello\r\n\r\nHi\r\n",
        accepted_ms=now_ms(),
        expires_ms=now_ms() + 1000,
        not_before_ms=not_before_ms,
        tags=("news",),
        facts=encode_facts(facts),
    )


async def test_an_accepted_mail_of_which_nothing_happened_yet_is_found_in_the_spool(
    own_broker: Broker, ingress: Bus, tmp_path: Path
) -> None:
    first, later = fresh_id(), fresh_id()
    soon = now_ms() + 3_600_000
    record = SpoolRecord(fresh_id(), (spooled(first), spooled(later, not_before_ms=soon)))
    await ingress.store(spool_subject("normal", record.id), encode_spool_record(record), msg_id=record.id)
    async with running_activity(own_broker, tmp_path):
        view = (await ask(ingress, first)).message
        assert view is not None
        assert (view.state, view.subject, view.tags, view.metadata) == (State.QUEUED, "Hello", ("news",), {"k": "v"})
        assert [(person.address, person.state) for person in view.recipients] == [
            ("a@example.net", State.QUEUED),
            ("b@example.net", State.QUEUED),
        ]
        assert [line.kind for line in view.timeline] == ["accepted"]
        waiting = (await ask(ingress, later)).message
        assert waiting is not None
        assert (waiting.state, waiting.recipients[0].next_attempt_ms) == (State.SCHEDULED, soon)
        assert (await ask(ingress, first, tenant="bank")).message is None
