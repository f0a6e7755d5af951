"""The queue service on a real broker with a scripted delivery worker: each recipient ends once, in the right state."""

import asyncio
import contextlib
import email
import email.policy
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from sternpost_mail.cancel import CancelRequest
from sternpost_mail.config import Generation
from sternpost_mail.envelope import Envelope, Lane, Mail, Notify, Recipient, Ret, SpoolRecord
from sternpost_mail.events import Event, EventKind
from sternpost_mail.ids import make_id
from sternpost_mail.retry import RetryPolicy
from sternpost_mail.route import Action, Match, RelayRule
from sternpost_mail.states import FINAL, State
from sternpost_queue import dispatch, workers
from sternpost_queue.app import run
from sternpost_queue.settings import Settings
from sternpost_runtime.bus import Bus, Delivery
from sternpost_runtime.codec import (
    decode_cancel_reply,
    decode_defer_record,
    decode_event_batch,
    decode_held_record,
    encode_cancel_request,
    encode_config_entry,
    encode_spool_record,
)
from sternpost_runtime.lifecycle import Stop
from sternpost_runtime.subjects import (
    BUCKET_CONFIG,
    CONSUMER_ACTIVITY,
    CONSUMER_DUE,
    CONSUMERS,
    QUEUE_CANCEL,
    STREAM_DEFER,
    STREAM_EVENTS,
    STREAM_HELD,
    STREAM_SPOOL,
    Service,
    spool_consumer,
    spool_subject,
)
from tests.support.broker import Broker
from tests.support.worker import ScriptedWorker, running_worker

SENDER = "a@sender.example"
QUICK = RelayRule("team-a", "quick", 0, Match(), Action.DIRECT, retry=RetryPolicy(first=1.0, factor=1.0, jitter=0.0))
"""Tries again after a second."""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def new_id() -> str:
    return make_id(now_ms(), os.urandom(10))


def make_mail(
    *recipients: str | Recipient,
    sender: str = SENDER,
    lives: float = 86_400.0,
    not_before_ms: int = 0,
    ret: Ret = Ret.DEFAULT,
    envid: str = "",
    tags: tuple[str, ...] = (),
    content: bytes = b"Subject: hello\r\n\r\nbody\r\n",
    content_ref: str = "",
) -> Mail:
    return Mail(
        id=content_ref or new_id(),
        tenant="team-a",
        lane=Lane.NORMAL,
        envelope=Envelope(
            sender, tuple(r if isinstance(r, Recipient) else Recipient(r) for r in recipients), ret, envid
        ),
        size=len(content),
        content=b"" if content_ref else content,
        accepted_ms=now_ms(),
        expires_ms=now_ms() + int(lives * 1000),
        content_ref=content_ref,
        not_before_ms=not_before_ms,
        tags=tags,
    )


@dataclass
class Stage:
    """The broker, a door to put mail into, and everything that EVENTS tells."""

    broker: Broker
    door: Bus
    activity: Bus
    bootstrap: Bus
    events: list[Event] = field(default_factory=list)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def configure(self, *rules: RelayRule) -> None:
        """Publish a complete configuration."""
        bucket = self.bootstrap.bucket(BUCKET_CONFIG)
        for rule in rules:
            await bucket.put(f"rule.{rule.name}", encode_config_entry(rule))
        await bucket.put("generation", encode_config_entry(Generation(1, len(rules))))

    async def put(self, *mails: Mail) -> str:
        """Put mails into the spool as one record."""
        record = SpoolRecord(new_id(), mails)
        await self.door.store(spool_subject("normal", record.id), encode_spool_record(record), msg_id=record.id)
        return record.id

    async def follow(self) -> None:
        """Read EVENTS as activity does."""
        puller = self.activity.puller(STREAM_EVENTS, CONSUMER_ACTIVITY)
        while True:
            for delivery in await puller.fetch(100, 1.0):
                async with self._changed:
                    self.events += decode_event_batch(delivery.payload).events
                    self._changed.notify_all()
                await delivery.ack()

    async def until(self, holds: Callable[[], bool], seconds: float = 15) -> None:
        """Wait for events until something holds."""
        async with self._changed, asyncio.timeout(seconds):
            await self._changed.wait_for(holds)

    def states(self, mail: Mail, index: int = 0) -> list[State]:
        """Every state that was told of a recipient, in order."""
        return [
            result.state
            for event in self.events
            if event.mail_id == mail.id
            for result in event.results
            if result.recipient == index
        ]

    async def end(self, mail: Mail, index: int = 0) -> State:
        """Wait for a recipient's final state."""
        await self.until(lambda: bool(FINAL & set(self.states(mail, index))))
        return next(state for state in self.states(mail, index) if state in FINAL)

    async def count(self, stream: str) -> int:
        """How many records a stream holds."""
        return int((await self.bootstrap.stream_state(stream))["state"]["messages"])

    async def written(self, stream: str) -> int:
        """How many records were ever stored in a stream."""
        return int((await self.bootstrap.stream_state(stream))["state"]["last_seq"])

    async def is_through(self) -> None:
        """Wait until nothing is left in the spool and nothing waits."""
        async with asyncio.timeout(10):
            while await self.count(STREAM_SPOOL) or await self.count(STREAM_DEFER):  # noqa: ASYNC110 - the broker's word
                await asyncio.sleep(0.02)

    async def held(self) -> list[tuple[str, str, bytes]]:
        """What HELD holds: reason, origin and record."""
        found = [decode_held_record(m.payload) async for m in self.bootstrap.scan(STREAM_HELD, "held.>", {"seq": 1})]
        return [(record.reason, record.origin_subject, record.record) for record in found]

    async def cancel(self, mail: Mail, tenant: str) -> bool:
        """Ask to take a mail back."""
        request = encode_cancel_request(CancelRequest(mail.id, tenant))
        return decode_cancel_reply(await self.door.request(QUEUE_CANCEL, request, timeout=5)).marked


@pytest.fixture
async def stage(own_broker: Broker) -> AsyncIterator[Stage]:
    stage = Stage(
        own_broker,
        await own_broker.connect(Service.INGRESS),
        await own_broker.connect(Service.ACTIVITY),
        await own_broker.connect(Service.BOOTSTRAP),
    )
    following = asyncio.ensure_future(stage.follow())
    try:
        yield stage
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        for bus in (stage.door, stage.activity, stage.bootstrap):
            await bus.close()


@pytest.fixture
async def worker(stage: Stage) -> AsyncIterator[ScriptedWorker]:
    async with running_worker(stage.broker) as worker:
        yield worker


@asynccontextmanager
async def running_queue(broker: Broker, **more: object) -> AsyncIterator[None]:
    """The queue service; any failure in one of its tasks fails the test."""
    connection = broker.settings(Service.QUEUE)
    settings = Settings(
        nats_url=connection.nats_url,
        nats_user=connection.nats_user,
        nats_password=connection.nats_password,
        hostname="mx.home.example",
        health_port=0,
        drain_seconds=1.0,
        **more,  # type: ignore[arg-type]
    )
    failures: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(context))
    stop = Stop()
    task = asyncio.ensure_future(run(settings, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 15)
        loop.set_exception_handler(None)
    assert failures == []


def dsn(worker: ScriptedWorker) -> bytes:
    """The one report that came to the sender."""
    [tried] = worker.tries(SENDER)
    assert tried.job.sender == ""
    return tried.job.content


def status(report: bytes) -> str:
    return report.split(b"Content-Type: message/delivery-status\r\n\r\n")[1].split(b"\r\n--report-")[0].decode("ascii")


# --- the good way ----------------------------------------------------------------------------------------------------


async def test_the_first_attempt_is_made_straight_from_the_spool(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    async with running_queue(stage.broker):
        mail = make_mail("b@there.example")
        await stage.put(mail)
        assert await stage.end(mail) is State.DELIVERED
        await stage.is_through()
    assert await stage.written(STREAM_DEFER) == 0
    [tried] = worker.tried
    assert (tried.job.attempt, tried.job.content, tried.job.sender) == (1, mail.content, SENDER)
    assert [event.kind for event in stage.events] == [EventKind.ATTEMPT], "one durable write and one event"


async def test_a_batch_is_acknowledged_when_each_of_its_mails_is_through(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure(QUICK)
    worker.gates["slow@there.example"] = asyncio.Event()
    mails = [make_mail("b@there.example") for _ in range(9)] + [make_mail("slow@there.example")]
    async with running_queue(stage.broker, session_mails=1):
        await stage.put(*mails)
        for mail in mails[:-1]:
            assert await stage.end(mail) is State.DELIVERED
        assert await stage.count(STREAM_SPOOL) == 1
        worker.gates["slow@there.example"].set()
        assert await stage.end(mails[-1]) is State.DELIVERED
        await stage.is_through()
    assert worker.delivered == {"b@there.example": 9, "slow@there.example": 1}


async def test_refused_twice_for_now_and_taken_the_third_time(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure(QUICK)
    worker.script["b@there.example"] = ["451 4.7.1 greylisted", "451 4.7.1 greylisted", "250 ok"]
    async with running_queue(stage.broker):
        mail = make_mail("b@there.example")
        await stage.put(mail)
        assert await stage.end(mail) is State.DELIVERED
        await stage.is_through()
    tries = worker.tries("b@there.example")
    assert [tried.job.attempt for tried in tries] == [1, 2, 3]
    assert all(later.at_ms - earlier.at_ms >= 1000 for earlier, later in pairwise(tries))
    decisions = [event for event in stage.events if event.kind is EventKind.DECISION]
    assert [(event.results[0].state, event.attempt) for event in decisions] == [
        (State.DEFERRED, 1),
        (State.DEFERRED, 2),
    ]
    assert all(event.results[0].next_attempt_ms > event.at_ms for event in decisions)
    assert decisions[0].results[0].reply == "451 4.7.1 greylisted"


# --- reports ---------------------------------------------------------------------------------------------------------


async def test_a_refusal_for_good_comes_back_as_one_report(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    worker.script["b@there.example"] = ["550 5.1.1 no such user"]
    async with running_queue(stage.broker):
        mail = make_mail(Recipient("b@there.example", orcpt="rfc822;bee@there.example"), envid="QQ1")
        await stage.put(mail)
        assert await stage.end(mail) is State.BOUNCED
        await worker.until(tried=2)
        await stage.is_through()
    report = dsn(worker)
    message = email.message_from_bytes(report, policy=email.policy.default)
    assert (message["To"], message.get_content_type()) == (SENDER, "multipart/report")
    fields = status(report)
    assert "Original-Envelope-Id: QQ1\r\n" in fields
    assert "Original-Recipient: rfc822; bee@there.example\r\n" in fields
    assert "Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n" in fields
    assert mail.content in report


async def test_two_recipients_have_each_an_end_of_their_own(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    worker.script["no@there.example"] = ["550 5.1.1 no such user"]
    async with running_queue(stage.broker):
        mail = make_mail("yes@there.example", "no@there.example")
        await stage.put(mail)
        assert await stage.end(mail, 0) is State.DELIVERED
        assert await stage.end(mail, 1) is State.BOUNCED
        await worker.until(tried=3)
        await stage.is_through()
    report = dsn(worker)
    assert "Final-Recipient: rfc822; no@there.example" in status(report)
    assert "yes@there.example" not in status(report)
    assert worker.delivered["yes@there.example"] == 1


async def test_unreached_until_its_end_is_tried_a_last_time_and_expires(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure(QUICK)
    worker.script["b@there.example"] = ["connection refused"]
    async with running_queue(stage.broker):
        mail = make_mail("b@there.example", lives=1.5)
        await stage.put(mail)
        assert await stage.end(mail) is State.EXPIRED
        await stage.until(lambda: worker.delivered[SENDER] == 1)
        await stage.is_through()
    tries = worker.tries("b@there.example")
    assert len(tries) >= 2
    assert tries[-1].at_ms >= mail.expires_ms, "nothing expires untried for its last hours"
    report = dsn(worker)
    assert "Status: 4.4.7" in status(report)
    assert "Diagnostic-Code: x-sternpost; connection refused" in status(report)


async def test_the_null_sender_is_never_answered(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    worker.script["b@there.example"] = ["550 5.1.1 no such user"]
    async with running_queue(stage.broker):
        mail = make_mail("b@there.example", sender="")
        await stage.put(mail)
        assert await stage.end(mail) is State.BOUNCED
        await stage.is_through()
    assert await stage.written(STREAM_SPOOL) == 1
    assert [tried.address for tried in worker.tried] == ["b@there.example"]


async def test_a_report_is_written_only_where_it_was_asked_for(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    worker.script["never@there.example"] = ["550 5.1.1 no such user"]
    async with running_queue(stage.broker):
        silent = make_mail(Recipient("never@there.example", Notify.NEVER))
        await stage.put(silent)
        assert await stage.end(silent) is State.BOUNCED
        told = make_mail(Recipient("yes@there.example", Notify.SUCCESS))
        await stage.put(told)
        assert await stage.end(told) is State.DELIVERED
        await worker.until(tried=3)
        await stage.is_through()
    report = dsn(worker)
    assert "Final-Recipient: rfc822; yes@there.example\r\nAction: relayed" in status(report)


async def test_the_report_of_a_large_mail_has_its_header(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    worker.script["b@there.example"] = ["550 5.1.1 no such user"]
    content = b"Subject: large\r\nX-Mark: here\r\n\r\n" + bytes(700 * 1024)
    async with running_queue(stage.broker):
        mail = make_mail("b@there.example", ret=Ret.HDRS, content=content, content_ref=new_id())
        await stage.door.put_object(mail.content_ref, content)
        await stage.put(mail)
        assert await stage.end(mail) is State.BOUNCED
        await worker.until(tried=2)
        await stage.is_through()
    report = dsn(worker)
    assert report.split(b"text/rfc822-headers\r\n\r\n")[1].startswith(b"Subject: large\r\nX-Mark: here\r\n")


# --- time and people -------------------------------------------------------------------------------------------------


async def test_a_scheduled_mail_waits_for_its_moment(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    async with running_queue(stage.broker):
        mail = make_mail("b@there.example", not_before_ms=now_ms() + 1200)
        await stage.put(mail)
        assert await stage.end(mail) is State.DELIVERED
        await stage.is_through()
    [tried] = worker.tried
    assert tried.at_ms >= mail.not_before_ms
    assert (tried.job.attempt, stage.states(mail)) == (1, [State.SCHEDULED, State.DELIVERED])


async def test_a_scheduled_mail_taken_back_in_time_is_never_sent(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    async with running_queue(stage.broker):
        mail, other = (make_mail(f"{n}@there.example", not_before_ms=now_ms() + 1500) for n in ("b", "c"))
        await stage.put(mail, other)
        await stage.until(lambda: State.SCHEDULED in stage.states(other))
        assert await stage.cancel(mail, "team-a")
        assert await stage.cancel(other, "team-b"), "told to be marked, which gives nothing away"
        assert await stage.end(mail) is State.CANCELLED
        assert await stage.end(other) is State.DELIVERED
        await stage.is_through()
    assert [tried.address for tried in worker.tried] == ["c@there.example"]


async def test_a_rule_rejects_discards_and_holds_without_an_attempt(stage: Stage, worker: ScriptedWorker) -> None:
    def rule(name: str, action: Action) -> RelayRule:
        return RelayRule("team-a", name, 0, Match(recipients=(f"{name}.example",)), action)

    await stage.configure(rule("no", Action.REJECT), rule("drop", Action.DISCARD), rule("hold", Action.HOLD))
    async with running_queue(stage.broker):
        mail = make_mail("a@yes.example", "b@no.example", "c@drop.example", "d@hold.example")
        record = await stage.put(mail)
        assert await stage.end(mail, 0) is State.DELIVERED
        assert await stage.end(mail, 1) is State.BOUNCED
        assert await stage.end(mail, 2) is State.DISCARDED
        await stage.until(lambda: State.HELD in stage.states(mail, 3))
        await worker.until(tried=2)
        await stage.is_through()
    assert sorted(tried.address for tried in worker.tried) == [SENDER, "a@yes.example"]
    [(reason, origin, payload)] = await stage.held()
    assert (reason, origin.split(".")[0]) == ("rule", "due")
    [held] = decode_defer_record(payload).mails
    assert (held.mail, held.record_id, held.open_recipients) == (mail, record, (3,)), "the numbers that EVENTS knows"


# --- records in trouble ----------------------------------------------------------------------------------------------


async def test_a_record_that_cannot_be_read_is_set_aside_and_stops_nobody(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    async with running_queue(stage.broker):
        await stage.door.store(spool_subject("normal", "bad"), b"\xff\xff no record", msg_id="bad")
        mail = make_mail("b@there.example")
        await stage.put(mail)
        assert await stage.end(mail) is State.DELIVERED
        await stage.is_through()
    assert await stage.held() == [("unreadable", spool_subject("normal", "bad"), b"\xff\xff no record")]


async def test_a_record_that_came_too_often_is_set_aside_unopened(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    mail = make_mail("b@there.example")
    record = await stage.put(mail)
    reader = await stage.broker.connect(Service.QUEUE)
    puller = reader.puller(STREAM_SPOOL, spool_consumer("normal"))
    for _ in range(3):  # as readers that died over it would leave it
        deliveries: list[Delivery] = []
        while not deliveries:
            deliveries = await puller.fetch(1, 1.0)
        await deliveries[0].nak(0.1)
    await reader.close()
    async with running_queue(stage.broker, poison_deliveries=3):
        await stage.is_through()
    assert worker.tried == []
    [(reason, origin, payload)] = await stage.held()
    assert (reason, origin) == ("poison", spool_subject("normal", record))
    assert payload == encode_spool_record(SpoolRecord(record, (mail,)))


async def shorten_ack_wait(stage: Stage, seconds: float) -> None:
    """A dead reader's records come back after 30 s; no test waits so long."""
    for consumer in CONSUMERS:
        if consumer.name in (spool_consumer("normal"), CONSUMER_DUE):
            config = {
                "durable_name": consumer.name,
                "name": consumer.name,
                "filter_subject": consumer.filter,
                "ack_policy": "explicit",
                "ack_wait": int(seconds * 1e9),
                "max_ack_pending": consumer.max_ack_pending,
                "max_deliver": -1,
                "deliver_policy": "all",
            }
            body = {"stream_name": consumer.stream, "config": config, "action": "update"}
            subject = f"$JS.API.CONSUMER.CREATE.{consumer.stream}.{consumer.name}.{consumer.filter}"
            answer = json.loads(await stage.bootstrap.request(subject, json.dumps(body).encode(), timeout=5))
            assert "error" not in answer, answer


@asynccontextmanager
async def queue_process(broker: Broker) -> AsyncIterator[asyncio.subprocess.Process]:
    """The queue service as a process of its own, which can be killed."""
    connection = broker.settings(Service.QUEUE)
    environment = {
        **os.environ,
        "STERNPOST_NATS_URL": connection.nats_url,
        "STERNPOST_NATS_USER": connection.nats_user,
        "STERNPOST_NATS_PASSWORD": connection.nats_password.get_secret_value(),
        "STERNPOST_HEALTH_PORT": "0",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sternpost_queue", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_after_sigkill_the_finished_are_not_sent_again_and_the_others_are(
    stage: Stage, worker: ScriptedWorker
) -> None:
    await stage.configure(QUICK)
    await shorten_ack_wait(stage, 1.5)
    worker.gates["open@late.example"] = asyncio.Event()
    worker.script["refused@there.example"] = ["550 5.1.1 no such user"]
    mail = make_mail("done@there.example", "refused@there.example", "open@late.example")
    async with queue_process(stage.broker) as process:
        await stage.put(mail)
        assert await stage.end(mail, 0) is State.DELIVERED
        assert await stage.end(mail, 1) is State.BOUNCED
        await worker.until(begun="open@late.example")
        process.kill()
        await process.wait()
    await worker.abandon()
    worker.gates["open@late.example"].set()
    async with running_queue(stage.broker):
        assert await stage.end(mail, 2) is State.DELIVERED
        await stage.until(lambda: worker.delivered[SENDER] == 1 or len(worker.tried) > 3)
        await stage.is_through()
    assert worker.delivered == {"done@there.example": 1, "open@late.example": 1, SENDER: 1}
    assert len(worker.tries("refused@there.example")) == 1
    assert stage.states(mail, 1).count(State.BOUNCED) == 1


async def test_mail_that_a_worker_still_holds_for_a_dead_queue_is_waited_for(
    stage: Stage, worker: ScriptedWorker
) -> None:
    await stage.configure()
    await shorten_ack_wait(stage, 1.0)
    worker.gates["b@there.example"] = asyncio.Event()
    mail = make_mail("b@there.example")
    async with queue_process(stage.broker) as process:
        await stage.put(mail)
        await worker.until(begun="b@there.example")
        process.kill()
        await process.wait()
    asked = worker.asked_holds
    async with running_queue(stage.broker):
        await worker.until(asked_holds=asked + 1)
        worker.gates["b@there.example"].set()
        assert await stage.end(mail) is State.DELIVERED
        await stage.is_through()
    assert worker.delivered == {"b@there.example": 1}


async def test_what_waits_survives_sigkill_and_comes_back_once(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure(QUICK)
    await shorten_ack_wait(stage, 1.0)
    worker.script["b@there.example"] = ["451 4.7.1 later", "250 ok"]
    retried, scheduled = make_mail("b@there.example"), make_mail("c@there.example", not_before_ms=now_ms() + 4000)
    async with queue_process(stage.broker) as process:
        await stage.put(retried, scheduled)
        await stage.until(
            lambda: State.DEFERRED in stage.states(retried) and State.SCHEDULED in stage.states(scheduled)
        )
        process.kill()
        await process.wait()
    async with running_queue(stage.broker):
        assert await stage.end(retried) is State.DELIVERED
        assert await stage.end(scheduled) is State.DELIVERED
        await stage.is_through()
    assert worker.delivered == {"b@there.example": 1, "c@there.example": 1}


# --- workers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is lost after a second of silence instead of twenty-five."""
    monkeypatch.setattr(workers, "SILENT_AFTER", 0.6)
    monkeypatch.setattr(workers, "LOST_AFTER", 1.0)
    monkeypatch.setattr(dispatch, "TICK", 0.1)


@pytest.mark.usefixtures("quick_loss")
async def test_jobs_of_a_worker_that_fell_silent_are_tried_by_another(stage: Stage) -> None:
    await stage.configure(QUICK)
    async with running_queue(stage.broker):
        async with running_worker(stage.broker) as first:
            first.gates["b@there.example"] = asyncio.Event()
            mails = [make_mail("a@there.example"), make_mail("b@there.example")]
            await stage.put(*mails)
            await first.until(begun="b@there.example")
            assert await stage.end(mails[0]) is State.DELIVERED
        async with running_worker(stage.broker) as second:
            assert await stage.end(mails[1]) is State.DELIVERED
            await stage.is_through()
            assert second.delivered == {"b@there.example": 1}
    assert first.delivered == {"a@there.example": 1}


@pytest.mark.usefixtures("quick_loss")
async def test_what_a_lost_worker_made_durable_is_believed_though_it_never_told(stage: Stage) -> None:
    await stage.configure(QUICK)
    async with running_queue(stage.broker, session_mails=1):
        async with running_worker(stage.broker, {"no@there.example": ["550 5.1.1 no such user"]}) as first:
            first.is_mute = True
            mails = [make_mail("yes@there.example"), make_mail("no@there.example")]
            await stage.put(*mails)
            await first.until(tried=2)
        async with running_worker(stage.broker) as second:
            assert await stage.end(mails[0]) is State.DELIVERED
            assert await stage.end(mails[1]) is State.BOUNCED
            await second.until(tried=1)
            await stage.is_through()
            assert second.delivered == {SENDER: 1}, "nothing but the report"


async def test_a_busy_worker_is_asked_again_after_its_next_beat(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    worker.busy = 3
    async with running_queue(stage.broker):
        mail = make_mail("b@there.example")
        await stage.put(mail)
        assert await stage.end(mail) is State.DELIVERED
        await stage.is_through()
    assert worker.asked == 4
    assert worker.delivered == {"b@there.example": 1}


async def test_a_busy_workers_jobs_go_to_another(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    worker.busy = 1_000_000
    async with running_worker(stage.broker) as other, running_queue(stage.broker):
        mails = [make_mail("b@there.example") for _ in range(20)]
        await stage.put(*mails)
        for mail in mails:
            assert await stage.end(mail) is State.DELIVERED
        await stage.is_through()
        assert other.delivered == {"b@there.example": 20}


# --- fairness --------------------------------------------------------------------------------------------------------


async def test_a_tarpit_does_not_block_another_site(stage: Stage, worker: ScriptedWorker) -> None:
    await stage.configure()
    gate = worker.gates["b@tarpit.example"] = asyncio.Event()
    async with running_queue(stage.broker, site_sessions=2):
        stuck = [make_mail("b@tarpit.example") for _ in range(50)]
        await stage.put(*stuck)
        await worker.until(begun="b@tarpit.example")
        quick = make_mail("b@quick.example")
        await stage.put(quick)
        assert await stage.end(quick) is State.DELIVERED
        assert worker.delivered == {"b@quick.example": 1}
        gate.set()
        for mail in stuck:
            assert await stage.end(mail) is State.DELIVERED
        await stage.is_through()


async def test_a_tarpit_that_fills_the_memory_is_parked_for_others_sake(
    stage: Stage, worker: ScriptedWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "TICK", 0.1)
    monkeypatch.setattr(dispatch, "PARK_MS", 1500)
    await stage.configure()
    gate = worker.gates["b@tarpit.example"] = asyncio.Event()
    async with running_queue(stage.broker, active_mails=20, site_sessions=2, session_mails=1):
        stuck = [make_mail("b@tarpit.example") for _ in range(30)]
        await stage.put(*stuck)
        await stage.until(lambda: any(State.QUEUED in stage.states(mail) for mail in stuck))
        quick = make_mail("b@quick.example")
        await stage.put(quick)
        assert await stage.end(quick) is State.DELIVERED
        assert worker.delivered == {"b@quick.example": 1}
        assert await stage.written(STREAM_DEFER) > 0
        gate.set()
        for mail in stuck:
            assert await stage.end(mail) is State.DELIVERED
        await stage.is_through()
    assert worker.delivered == {"b@tarpit.example": 30, "b@quick.example": 1}
    parked = {state for mail in stuck for state in stage.states(mail)} - FINAL
    assert parked <= {State.QUEUED}, "parked mail was neither tried nor scheduled by anybody"
    assert {tried.job.attempt for tried in worker.tried} == {1}, "parking counts no attempt"
