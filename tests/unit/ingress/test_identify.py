"""Verifying logins over the bus: what is believed, for how long, and what happens when auth is away."""

import asyncio

import pytest

from sternpost_ingress.identify import Identify
from sternpost_mail.identity import Identity, Verdict, VerifyReply
from sternpost_runtime.bus import NoAnswer
from sternpost_runtime.codec import decode_verify_request, encode_verify_reply
from sternpost_runtime.subjects import AUTH_VERIFY

ALICE = Identity("team-a", "alice", ("alice@example.test",))


class FakeBus:
    """Answers as auth would, and counts."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: bytes | Exception | None = None
        self.gate: asyncio.Event | None = None

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> bytes:
        assert subject == AUTH_VERIFY
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        question = decode_verify_request(payload)
        granted = (question.login, question.secret) == ("alice", "wonderland")
        return encode_verify_reply(VerifyReply(Verdict.GRANTED, ALICE) if granted else VerifyReply(Verdict.DENIED))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(entries: int = 100) -> tuple[Identify, FakeBus, Clock]:
    bus, clock = FakeBus(), Clock()
    return Identify(bus, timeout=1, cache_seconds=30, cache_entries=entries, clock=clock), bus, clock


async def test_a_granted_login_is_believed_for_a_while() -> None:
    identify, bus, clock = make()
    for _ in range(3):
        assert await identify("alice", "wonderland", "192.0.2.1") == VerifyReply(Verdict.GRANTED, ALICE)
    assert bus.asked == 1
    clock.now = 31
    await identify("alice", "wonderland", "192.0.2.1")
    assert bus.asked == 2
    identify.forget()
    await identify("alice", "wonderland", "192.0.2.1")
    assert bus.asked == 3


async def test_a_denied_login_is_asked_every_time() -> None:
    identify, bus, _ = make()
    await identify("alice", "wonderland", "192.0.2.1")
    for _ in range(2):
        assert (await identify("alice", "wrong", "192.0.2.1")).verdict is Verdict.DENIED
    assert bus.asked == 3


async def test_name_and_secret_cannot_be_shifted_into_one_another() -> None:
    identify, _, _ = make()
    assert identify._key_of("ab", "c") != identify._key_of("a", "bc")


async def test_no_secret_is_kept() -> None:
    identify, _, _ = make()
    await identify("alice", "wonderland", "192.0.2.1")
    assert b"wonderland" not in b"".join(identify._granted)
    assert "wonderland" not in repr(vars(identify))


@pytest.mark.parametrize("answer", [NoAnswer("nobody"), b"\xff\xff nonsense"])
async def test_without_an_answer_nobody_is_let_in_and_nobody_denied(answer: bytes | Exception) -> None:
    identify, bus, _ = make()
    bus.answer = answer
    assert (await identify("alice", "wonderland", "192.0.2.1")).verdict is Verdict.UNAVAILABLE
    bus.answer = None
    assert (await identify("alice", "wonderland", "192.0.2.1")).verdict is Verdict.GRANTED


async def test_sessions_that_open_together_ask_once() -> None:
    identify, bus, _ = make()
    bus.gate = asyncio.Event()
    asking = [asyncio.create_task(identify("alice", "wonderland", "192.0.2.1")) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()
    bus.gate.set()
    answers = await asyncio.gather(*asking[1:])
    assert {answer.verdict for answer in answers} == {Verdict.GRANTED}
    assert bus.asked == 1


async def test_the_cache_is_bounded() -> None:
    identify, bus, _ = make(entries=10)
    bus.answer = encode_verify_reply(VerifyReply(Verdict.GRANTED, ALICE))
    for n in range(50):
        await identify(f"user{n}", "x", "192.0.2.1")
    assert len(identify._granted) <= 10


async def test_an_endless_secret_is_denied_unasked() -> None:
    identify, bus, _ = make()
    assert (await identify("alice", "x" * 10_000, "192.0.2.1")).verdict is Verdict.DENIED
    assert bus.asked == 0
