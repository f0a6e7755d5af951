"""The whole ingress process, in this one, against a real broker: from the socket to the durable record, and its end."""

import asyncio
import smtplib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sternpost_ingress import app
from sternpost_ingress.settings import Settings
from sternpost_mail.config import Domain, Generation
from sternpost_mail.route import Action, Match, RelayRule
from sternpost_runtime.codec import decode_spool_record, encode_config_entry
from sternpost_runtime.config import GENERATION_KEY
from sternpost_runtime.lifecycle import Stop
from sternpost_runtime.subjects import BUCKET_CONFIG, STREAM_SPOOL, Service
from tests.support.broker import Broker, free_port

DOMAIN = Domain("team-a", "example", "example.test")
RELAY = RelayRule("sternpost", "loopback", 0, Match(networks=("127.0.0.0/8",)), Action.DIRECT)
TEXT = "From: a@example.test\r\nSubject: x\r\n\r\nhello\r\n"


@asynccontextmanager
async def running(broker: Broker) -> AsyncIterator[tuple[Settings, Stop]]:
    connection = broker.settings(Service.INGRESS)
    settings = Settings(
        nats_url=connection.nats_url,
        nats_user=connection.nats_user,
        nats_password=connection.nats_password,
        mx_port=free_port(),
        submission_port=free_port(),
        submissions_port=free_port(),
        http_port=free_port(),
        health_port=free_port(),
        hostname="mx.sternpost.test",
        drain_seconds=2.0,
    )
    stop = Stop()
    task = asyncio.create_task(app.main(settings, stop))
    try:
        await until(lambda: answers(settings.mx_port))
        yield settings, stop
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 - a port that opens sends no event
            await asyncio.sleep(0.02)


async def answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def configure(broker: Broker) -> None:
    bus = await broker.connect(Service.BOOTSTRAP)
    bucket = bus.bucket(BUCKET_CONFIG)
    await bucket.put("domain.team-a.example", encode_config_entry(DOMAIN))
    await bucket.put("relayrule.sternpost.loopback", encode_config_entry(RELAY))
    await bucket.put(GENERATION_KEY, encode_config_entry(Generation(1, 2)))
    await bus.close()


def submit(port: int) -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        try:
            client.sendmail("a@example.test", ["b@far.test"], TEXT)
        except smtplib.SMTPResponseException as refused:
            error = refused.smtp_error
            return refused.smtp_code, error if isinstance(error, bytes) else error.encode()
    return 250, b""


async def ready(port: int) -> bool:
    def ask() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz/ready", timeout=5):
                return True
        except urllib.error.HTTPError:
            return False

    return await asyncio.to_thread(ask)


async def test_a_mail_goes_from_the_socket_to_the_spool(own_broker: Broker) -> None:
    async with running(own_broker) as (settings, _):
        assert await asyncio.to_thread(submit, settings.mx_port) == (
            451,
            b"4.3.0 Configuration is not complete yet, try again",
        )
        assert not await ready(settings.health_port)
        await configure(own_broker)
        await until(lambda: ready(settings.health_port))
        assert await asyncio.to_thread(submit, settings.mx_port) == (250, b"")
        assert await answers(settings.http_port)
        bus = await own_broker.connect(Service.BOOTSTRAP)
        found = [m async for m in bus.read_from(STREAM_SPOOL, "spool.>", 0)]
        await bus.close()
    (mail,) = decode_spool_record(found[0].payload).mails
    assert mail.tenant == "team-a"
    assert mail.content.endswith(TEXT.encode())
    assert mail.content.startswith(b"Received: from ")
    assert not await answers(settings.mx_port)


async def test_a_broker_that_is_away_is_a_temporary_refusal_within_a_second(own_broker: Broker) -> None:
    await configure(own_broker)
    async with running(own_broker) as (settings, _):
        await until(lambda: ready(settings.health_port))
        await own_broker.kill()
        began = asyncio.get_running_loop().time()
        code, text = await asyncio.to_thread(submit, settings.mx_port)
        assert (code, text[:5]) in ((451, b"4.3.0"), (452, b"4.3.1"))
        assert asyncio.get_running_loop().time() - began < 6
        await own_broker.start()


@pytest.mark.parametrize("content", [b"", b"short", b"zz" * 32], ids=["empty", "short", "no hex"])
def test_a_key_file_without_a_key_ends_the_process(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(SystemExit):
        app.read_key(str(file))


def test_a_key_may_be_octets_or_hexadecimal_digits(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(bytes(range(32)))
    assert app.read_key(str(file)) == bytes(range(32))
    file.write_text(bytes(range(32)).hex() + "\n")
    assert app.read_key(str(file)) == bytes(range(32))
    assert app.read_key("") == b""
