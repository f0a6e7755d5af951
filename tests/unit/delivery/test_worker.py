"""The worker between queue and sessions: on a bus in memory where failures are wanted, and once on a real broker."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest

from sternpost_delivery import worker as worker_module
from sternpost_delivery.worker import Worker
from sternpost_mail.dispatch import Answer, Beat, Job, SessionResult, SiteSession
from sternpost_mail.events import Event, OutcomeKind
from sternpost_mail.states import State
from sternpost_runtime.bus import Bus, NoAnswer, Stored, StreamFull
from sternpost_runtime.codec import (
    decode_beat,
    decode_event_batch,
    decode_session_answer,
    decode_session_result,
    decode_site_answer,
    encode_session,
    encode_site_question,
)
from sternpost_runtime.subjects import (
    BEATS,
    DELIVERY_HOLDS,
    DELIVERY_SITE,
    STREAM_EVENTS,
    Service,
    event_subject,
    lease_subject,
    result_subject,
    session_subject,
)
from tests.support.broker import Broker
from tests.support.smtp_peer import Action, SmtpPeer, Wait, ehlo, running_peer
from tests.unit.delivery.factory import World, make_job, route_to

QUEUE = "q1"


class MemoryBus:
    """A bus inside the test: keeps what is stored, answers requests by handlers, refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[bytes], Awaitable[bytes]]] = {}
        self.hears: dict[str, Callable[[str, bytes], Awaitable[None]]] = {}
        self.stored: list[tuple[str, bytes, str]] = []
        self.refuse_stores = 0
        self.refuse_requests = 0
        self.log: list[str] = []
        self.results: list[SessionResult] = []
        self.beats: list[Beat] = []
        self.changed = asyncio.Condition()

    async def serve(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]], **_: Any) -> None:
        self.handlers[subject] = handler

    async def subscribe(self, subject: str, handler: Callable[[str, bytes], Awaitable[None]]) -> None:
        self.hears[subject] = handler

    async def publish(self, subject: str, payload: bytes) -> None:
        assert subject == BEATS
        self.beats.append(decode_beat(payload))

    async def store(self, subject: str, payload: bytes, *, msg_id: str) -> Stored:
        if self.refuse_stores:
            self.refuse_stores -= 1
            raise StreamFull("no room")
        self.stored.append((subject, payload, msg_id))
        self.log.append("stored")
        return Stored(STREAM_EVENTS, len(self.stored), False)

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> bytes:
        assert subject == result_subject(QUEUE)
        if self.refuse_requests:
            self.refuse_requests -= 1
            raise NoAnswer("nobody")
        async with self.changed:
            self.results.append(decode_session_result(payload))
            self.log.append("told")
            self.changed.notify_all()
        return b""

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)

    @property
    def done(self) -> bool:
        return any(result.done for result in self.results)

    def events(self) -> list[Event]:
        return [event for _, payload, _ in self.stored for event in decode_event_batch(payload).events]


class Rig:
    """A worker on a memory bus."""

    def __init__(self, sessions: int = 5, inline_octets: int = 1 << 20) -> None:
        self.bus = MemoryBus()
        self.world = World()
        self.worker = Worker(cast(Bus, self.bus), self.world.hands(), sessions=sessions, inline_octets=inline_octets)

    async def give(self, peer: SmtpPeer, *jobs: Job, session: str = "s1") -> Answer:
        request = SiteSession(session, QUEUE, "site", route_to(peer.port), jobs)
        return decode_session_answer(await self.bus.handlers[session_subject(self.worker.id)](encode_session(request)))


@pytest.fixture
async def rig() -> Rig:
    rig = Rig()
    await rig.worker.start()
    return rig


async def test_results_are_told_after_their_events_are_durable(rig: Rig) -> None:
    async with running_peer({"RCPT": [b"250 ok\r\n", b"550 5.1.1 no\r\n"]}) as peer:
        jobs = (make_job(1, ("a@example.net", "b@example.net"), facts=b"facts", tags=("t",)), make_job(2))
        assert await rig.give(peer, *jobs) is Answer.TAKEN
        await rig.bus.until(lambda: rig.bus.done)
    assert rig.bus.log == ["stored", "told"]
    (result,) = rig.bus.results
    assert (result.session, result.worker, result.site_down) == ("s1", rig.worker.id, False)
    assert [part.mail_id for part in result.results] == ["mail1", "mail2"]
    states = [(one.recipient, one.state, one.outcome) for one in result.results[0].results]
    assert states == [(0, State.DELIVERED, OutcomeKind.DELIVERED), (1, State.DEFERRED, OutcomeKind.PERMANENT)]
    first, second = rig.bus.events()
    assert rig.bus.stored[0][0] == event_subject("record1")
    assert first.results == result.results[0].results
    assert (first.facts, first.tags, first.attempt, first.site) == (b"facts", ("t",), 1, "site")
    assert first.remote.startswith("127.0.0.1 [127.0.0.1]:")
    assert first.id != second.id


async def test_one_record_of_events_per_spool_record(rig: Rig) -> None:
    async with running_peer() as peer:
        await rig.give(peer, make_job(1), make_job(2, record_id="record2"), make_job(3))
        await rig.bus.until(lambda: rig.bus.done)
    by_subject = {subject: len(decode_event_batch(payload).events) for subject, payload, _ in rig.bus.stored}
    assert by_subject == {event_subject("record1"): 2, event_subject("record2"): 1}


async def test_an_event_that_is_not_stored_is_offered_again_before_anything_is_told(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "STORE_PAUSE", 0.001)
    rig.bus.refuse_stores = 3
    async with running_peer() as peer:
        await rig.give(peer, make_job(1))
        await rig.bus.until(lambda: rig.bus.done)
    assert rig.bus.refuse_stores == 0
    assert rig.bus.log == ["stored", "told"]


async def test_a_result_that_nobody_confirms_is_told_three_times_and_then_left_to_events(rig: Rig) -> None:
    rig.bus.refuse_requests = 3
    async with running_peer() as peer:
        await rig.give(peer, make_job(1), session="s1")
        await rig.give(peer, make_job(2), session="s2")
        await rig.bus.until(lambda: rig.bus.done)
        await rig.worker.drain(5)
    assert len(rig.bus.results) == 1
    assert len(rig.bus.events()) == 2
    assert rig.worker.held == 0


async def test_what_is_settled_early_is_told_while_the_session_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PARTIAL_SECONDS", 0.02)
    rig = Rig()
    await rig.worker.start()
    goes_on = asyncio.Event()
    script: dict[str, Action | list[Action]] = {"DOT": [b"250 ok\r\n", Wait(goes_on, b"250 ok\r\n")]}
    async with running_peer(script) as peer:
        await rig.give(peer, make_job(1), make_job(2))
        await rig.bus.until(lambda: len(rig.bus.results) == 1)
        first = rig.bus.results[0]
        assert not first.done
        assert [part.mail_id for part in first.results] == ["mail1"]
        goes_on.set()
        await rig.bus.until(lambda: rig.bus.done)
    assert [part.mail_id for part in rig.bus.results[-1].results] == ["mail2"]


async def test_a_worker_takes_no_more_than_its_capacity_and_no_session_twice() -> None:
    rig = Rig(sessions=1)
    await rig.worker.start()
    goes_on = asyncio.Event()
    async with running_peer({"DOT": Wait(goes_on, b"250 ok\r\n")}) as peer:
        assert await rig.give(peer, make_job(1), session="s1") is Answer.TAKEN
        assert await rig.give(peer, make_job(1), session="s1") is Answer.TAKEN
        assert await rig.give(peer, make_job(2), session="s2") is Answer.BUSY
        held = decode_beat(await rig.bus.handlers[DELIVERY_HOLDS](b""))
        assert held == Beat(rig.worker.id, 1, ("s1",), ("mail1/site",))
        goes_on.set()
        await rig.bus.until(lambda: rig.bus.done)
        await rig.worker.drain(5)
    assert len(peer.mails) == 1


async def test_octets_in_hand_are_bounded_but_one_large_session_is_let_in() -> None:
    rig = Rig(inline_octets=1000)
    await rig.worker.start()
    goes_on = asyncio.Event()
    async with running_peer({"DOT": Wait(goes_on, b"250 ok\r\n")}) as peer:
        assert await rig.give(peer, make_job(1, content=b"x" * 2000), session="s1") is Answer.TAKEN
        assert await rig.give(peer, make_job(2), session="s2") is Answer.BUSY
        goes_on.set()
        await rig.bus.until(lambda: rig.bus.done)
        await rig.worker.drain(5)


async def test_a_lease_that_ran_out_does_not_come_back_to_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "LEASE_SECONDS", 0.1)
    rig = Rig()
    await rig.worker.start()
    goes_on = asyncio.Event()
    async with running_peer({"DATA": Wait(goes_on, b"354 go\r\n")}) as peer:
        await rig.give(peer, make_job(1))
        await peer.wait_for("DATA")
        await asyncio.sleep(0.15)  # the passing of time is what is tested
        await rig.bus.hears["lease.*"](lease_subject(QUEUE), b"")  # the queue is back, but the mail may be another's
        goes_on.set()
        await rig.bus.until(lambda: rig.bus.done)
    (result,) = rig.bus.results
    assert result.results == ()
    assert peer.mails == []


async def test_a_lease_that_is_renewed_in_time_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "LEASE_SECONDS", 0.3)
    rig = Rig()
    await rig.worker.start()
    goes_on = asyncio.Event()
    async with running_peer({"DATA": Wait(goes_on, b"354 go\r\n")}) as peer:
        await rig.give(peer, make_job(1))
        await peer.wait_for("DATA")
        for _ in range(10):
            await asyncio.sleep(0.05)  # the passing of time is what is tested
            await rig.bus.hears["lease.*"](lease_subject(QUEUE), b"")
        goes_on.set()
        await rig.bus.until(lambda: rig.bus.done)
    assert len(peer.mails) == 1


async def test_a_drain_finishes_the_mail_in_hand_and_gives_the_others_back(rig: Rig) -> None:
    goes_on = asyncio.Event()
    script: dict[str, Action] = {"EHLO": ehlo("SIZE 100000"), "DOT": Wait(goes_on, b"250 ok\r\n")}
    async with running_peer(script) as peer:
        await rig.give(peer, make_job(1), make_job(2), make_job(3))
        await peer.wait_for("DATA")
        draining = asyncio.create_task(rig.worker.drain(10))
        await asyncio.sleep(0)
        assert await rig.give(peer, make_job(4), session="s2") is Answer.BUSY
        goes_on.set()
        await draining
    (result,) = rig.bus.results
    assert result.done
    assert [part.mail_id for part in result.results] == ["mail1"]
    assert rig.bus.beats[-1].capacity == 0
    assert rig.worker.held == 0


async def test_a_drain_that_takes_too_long_tells_what_may_have_happened(rig: Rig) -> None:
    never = asyncio.Event()
    dotted = asyncio.Event()
    async with running_peer({"DOT": Wait(never)}) as peer:
        peer.on_dot = dotted.set
        await rig.give(peer, make_job(1))
        await dotted.wait()
        await rig.worker.drain(0.05)
    (result,) = rig.bus.results
    assert result.results[0].results[0].outcome is OutcomeKind.UNREACHED
    assert "may have arrived" in result.results[0].results[0].reply


async def test_a_fault_of_our_own_is_temporary_for_every_mail_left(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr("sternpost_delivery.session.judge", explode)
    async with running_peer() as peer:
        await rig.give(peer, make_job(1), make_job(2))
        await rig.bus.until(lambda: rig.bus.done)
    outcomes = {part.mail_id: part.results[0].outcome for part in rig.bus.results[0].results}
    assert outcomes == {"mail1": OutcomeKind.UNREACHED, "mail2": OutcomeKind.UNREACHED}


async def test_the_site_of_a_domain_is_answered(rig: Rig) -> None:
    answer = decode_site_answer(await rig.bus.handlers[DELIVERY_SITE](encode_site_question("[192.0.2.1]")))
    assert answer.name == "192.0.2.1"


async def test_on_a_real_broker_with_the_permissions_of_delivery(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "BEAT_SECONDS", 0.05)
    async with AsyncExitStack() as stack:
        delivery, queue = await broker.connect(Service.DELIVERY), await broker.connect(Service.QUEUE)
        stack.push_async_callback(delivery.close)
        stack.push_async_callback(queue.close)
        results: asyncio.Queue[SessionResult] = asyncio.Queue()
        beats: asyncio.Queue[Beat] = asyncio.Queue()

        async def hear_result(payload: bytes) -> bytes:
            results.put_nowait(decode_session_result(payload))
            return b""

        async def hear_beat(_subject: str, payload: bytes) -> None:
            beats.put_nowait(decode_beat(payload))

        await queue.serve(result_subject(QUEUE), hear_result)
        await queue.subscribe(BEATS, hear_beat)
        worker = Worker(delivery, World().hands(), sessions=5, inline_octets=1 << 20)
        await worker.start()
        async with running_peer() as peer, asyncio.timeout(20):
            beating = asyncio.create_task(worker.run_beats())
            stack.callback(beating.cancel)
            while (await beats.get()).worker != worker.id:
                pass  # another test's worker on the same broker
            job = make_job(1, record_id=worker.id)  # any new id will do
            request = SiteSession("s1", QUEUE, "site", route_to(peer.port), (job,))
            answer = await queue.request(session_subject(worker.id), encode_session(request), timeout=5)
            assert decode_session_answer(answer) is Answer.TAKEN
            result = await results.get()
            assert result.done
            stored = [
                event
                async for message in queue.read_from(STREAM_EVENTS, event_subject(job.record_id), 0)
                for event in decode_event_batch(message.payload).events
                if event.record_id == job.record_id
            ]
            assert [event.results for event in stored] == [result.results[0].results]
            held = await queue.ask_all(DELIVERY_HOLDS, b"", wait=5, expected=1)
            assert decode_beat(held[0]).worker == worker.id
            site = await queue.request(DELIVERY_SITE, encode_site_question("[192.0.2.1]"), timeout=5)
            assert decode_site_answer(site).name == "192.0.2.1"
            await worker.drain(5)
