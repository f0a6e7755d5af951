"""The whole process on a real broker: a published credential is verified over request-reply."""

import asyncio

from pydantic import SecretStr

from sternpost_auth.app import main
from sternpost_auth.passwords import hasher
from sternpost_auth.settings import Settings
from sternpost_mail.config import Credential, CredentialKind, Generation
from sternpost_mail.identity import Verdict, VerifyRequest
from sternpost_runtime.bus import Bus, NoAnswer
from sternpost_runtime.codec import decode_verify_reply, encode_config_entry, encode_verify_request
from sternpost_runtime.config import GENERATION_KEY
from sternpost_runtime.lifecycle import Stop
from sternpost_runtime.subjects import AUTH_VERIFY, BUCKET_CONFIG, Service
from tests.support.broker import Broker


async def verdict(bus: Bus, login: str, secret: str) -> Verdict:
    question = encode_verify_request(VerifyRequest(login, secret, "192.0.2.1"))
    return decode_verify_reply(await bus.request(AUTH_VERIFY, question, timeout=5)).verdict


async def answering(bus: Bus) -> Verdict:
    """The first verdict after the service subscribed."""
    while True:
        try:
            return await verdict(bus, "alice", "right")
        except NoAnswer:
            await asyncio.sleep(0.01)


async def test_it_answers_unavailable_until_configured_and_then_decides(own_broker: Broker) -> None:
    connection = own_broker.settings(Service.AUTH)
    settings = Settings(
        nats_url=connection.nats_url,
        nats_user=connection.nats_user,
        nats_password=SecretStr(own_broker.passwords[Service.AUTH]),
        health_port=0,
    )
    stop = Stop()
    running = asyncio.create_task(main(settings, stop))
    door = await own_broker.connect(Service.INGRESS)
    compiler = await own_broker.connect(Service.BOOTSTRAP)
    async with asyncio.timeout(20):
        assert await answering(door) is Verdict.UNAVAILABLE
        bucket = compiler.bucket(BUCKET_CONFIG)
        alice = Credential("acme", "alice", CredentialKind.SMTP_PASSWORD, "alice", hasher().hash("right"))
        await bucket.put("credential.acme.alice", encode_config_entry(alice))
        await bucket.put(GENERATION_KEY, encode_config_entry(Generation(1, 1)))
        answer = Verdict.UNAVAILABLE
        while answer is Verdict.UNAVAILABLE:  # until the service has read it
            answer = await verdict(door, "alice", "right")
        assert answer is Verdict.GRANTED
        assert await verdict(door, "alice", "wrong") is Verdict.DENIED
        assert await verdict(door, "nobody", "right") is Verdict.DENIED
        stop.set()
        await running
    await door.close()
    await compiler.close()
