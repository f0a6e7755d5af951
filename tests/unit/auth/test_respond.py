"""The responder with real argon2: verdicts, equal times, limits before work, a bounded line."""

import asyncio
import statistics
import time
from collections.abc import Iterator

import pytest

from sternpost_auth.limits import FailureCounts, Limits
from sternpost_auth.passwords import HashError, OverloadedError, PasswordPool, hasher
from sternpost_auth.respond import Responder
from sternpost_auth.verify import DENIED, UNAVAILABLE
from sternpost_mail.config import EMPTY_CONFIG, Config, Credential, CredentialKind, build_config
from sternpost_mail.credentials import hash_api_key
from sternpost_mail.identity import Verdict, VerifyRequest
from sternpost_runtime.codec import CodecError, decode_verify_reply, encode_verify_request

KEY = "sp_abcdEFGH_" + "k" * 43
PASSWORD = "pässword with spaces"
CLIENT = "192.0.2.1"
CONFIG = build_config(
    [
        Credential("acme", "alice", CredentialKind.SMTP_PASSWORD, "alice", hasher().hash(PASSWORD)),
        Credential("acme", "broken", CredentialKind.SMTP_PASSWORD, "broken", "$argon2id$nonsense"),
        Credential("acme", "api", CredentialKind.API_KEY, "sp_abcdEFGH", hash_api_key(KEY)),
    ],
    1,
    "sternpost",
)


@pytest.fixture
def pool() -> Iterator[PasswordPool]:
    pool = PasswordPool(threads=1, waiting=2)
    yield pool
    pool.close()


def responder(pool: PasswordPool, config: Config = CONFIG, limits: Limits | None = None) -> Responder:
    return Responder(lambda: config, pool, FailureCounts(limits or Limits()), clock=lambda: 0.0)


@pytest.mark.parametrize(
    ("login", "secret", "verdict"),
    [
        ("alice", PASSWORD, Verdict.GRANTED),
        ("alice", PASSWORD + " ", Verdict.DENIED),
        ("Alice", PASSWORD, Verdict.DENIED),
        ("nobody", PASSWORD, Verdict.DENIED),
        ("", KEY, Verdict.GRANTED),
        ("", KEY[:-1] + "x", Verdict.DENIED),
        ("", PASSWORD, Verdict.DENIED),
        ("sp_abcdEFGH", KEY, Verdict.DENIED),
        ("broken", PASSWORD, Verdict.UNAVAILABLE),
    ],
)
async def test_verdicts_over_the_wire(pool: PasswordPool, login: str, secret: str, verdict: Verdict) -> None:
    octets = await responder(pool).handle(encode_verify_request(VerifyRequest(login, secret, CLIENT)))
    reply = decode_verify_reply(octets)
    assert reply.verdict is verdict
    assert (reply.identity is not None) is (verdict is Verdict.GRANTED)


async def test_octets_that_are_no_question_are_not_answered(pool: PasswordPool) -> None:
    with pytest.raises(CodecError):
        await responder(pool).handle(b"\xff\xff\xff")


async def test_without_configuration_nobody_is_let_in_or_turned_away(pool: PasswordPool) -> None:
    reply = await responder(pool, EMPTY_CONFIG).answer(VerifyRequest("alice", PASSWORD, CLIENT))
    assert reply is UNAVAILABLE


async def test_an_unknown_user_takes_as_long_as_a_wrong_password(pool: PasswordPool) -> None:
    room = Limits(per_login=1000, per_client=1000)
    asked = responder(pool, limits=room)

    async def seconds(login: str) -> float:
        started = time.perf_counter()
        assert await asked.answer(VerifyRequest(login, "wrong", CLIENT)) is DENIED
        return time.perf_counter() - started

    known: list[float] = []
    unknown: list[float] = []
    for number in range(15):  # in turns, so that both see the same machine
        known.append(await seconds("alice"))
        unknown.append(await seconds(f"nobody{number}"))
    ratio = statistics.median(unknown) / statistics.median(known)
    assert 0.6 < ratio < 1.6  # without the dummy it is below 0.01


class CountingPool(PasswordPool):
    """Counts the passwords that were looked at."""

    looked = 0

    async def fits(self, secret_hash: str, password: str) -> bool:
        self.looked += 1
        return await super().fits(secret_hash, password)


async def test_over_the_limit_even_the_right_password_is_put_off_without_work() -> None:
    counting = CountingPool(threads=1, waiting=2)
    asked = responder(counting, limits=Limits(per_login=2))
    for _ in range(2):
        assert await asked.answer(VerifyRequest("alice", "wrong", CLIENT)) is DENIED
    assert await asked.answer(VerifyRequest("alice", PASSWORD, CLIENT)) is UNAVAILABLE
    assert counting.looked == 2
    elsewhere = await asked.answer(VerifyRequest("alice", PASSWORD, "198.51.100.7"))
    assert elsewhere.verdict is Verdict.GRANTED
    counting.close()


async def test_more_than_the_line_holds_is_told_to_come_back_and_not_counted_as_a_failure(pool: PasswordPool) -> None:
    asked = responder(pool)
    replies = await asyncio.gather(*(asked.answer(VerifyRequest("alice", PASSWORD, CLIENT)) for _ in range(10)))
    verdicts = [reply.verdict for reply in replies]
    assert verdicts.count(Verdict.GRANTED) == 3  # one thread and a line of two
    assert verdicts.count(Verdict.UNAVAILABLE) == 7
    assert (await asked.answer(VerifyRequest("alice", PASSWORD, CLIENT))).verdict is Verdict.GRANTED


async def test_api_keys_do_not_wait_behind_passwords(pool: PasswordPool) -> None:
    asked = responder(pool)
    slow = [asyncio.create_task(asked.answer(VerifyRequest("alice", PASSWORD, CLIENT))) for _ in range(3)]
    await asyncio.sleep(0)  # let them begin
    assert (await asked.answer(VerifyRequest("", KEY, CLIENT))).verdict is Verdict.GRANTED
    assert not any(task.done() for task in slow)
    await asyncio.gather(*slow)


async def test_the_pool_gives_its_places_back(pool: PasswordPool) -> None:
    good = CONFIG.credentials["alice"].secret_hash
    for _ in range(4):
        assert await pool.fits(good, PASSWORD)
        with pytest.raises(HashError):
            await pool.fits("nonsense", PASSWORD)
    assert pool.pending == 0


async def test_a_cancelled_wait_keeps_its_place_until_its_thread_is_done(pool: PasswordPool) -> None:
    tasks = [asyncio.create_task(pool.fits(pool.dummy, "x")) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await pool.fits(pool.dummy, "x")
    tasks[0].cancel()  # it runs in the one thread and cannot be stopped
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await pool.fits(pool.dummy, "x") is False
