"""SIGKILL of each service in turn, and of the broker, in the middle of a stream of mail: the ledger must balance.

The ledger is outside of the platform: what each client was told at the final dot, and what the sink has. Set algebra as
Jepsen does it: acknowledged and not in the sink is *lost*; refused and in the sink is *unexpected*; both must be empty.
Unknown (the connection died without a reply) may be either. A second copy is allowed only where the hands were killed
between the remote's 250 and the record of it.
"""

import asyncio
import smtplib
import ssl
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import MANIFESTS
from tests.support.platform import Platform, running_platform, until

pytestmark = pytest.mark.e2e

CLIENTS = 6
PER_PHASE = 400
"""Mails that must be acknowledged before the next service is killed; seven phases make a few thousand."""
AMBIGUOUS_SECONDS = 6.0
"""A first copy this long before the hands were killed may not have been recorded."""
VICTIMS = ["ingress", "queue", "delivery", "auth", "activity", "nats"]


@dataclass
class Ledger:
    """What the clients were told, by recipient."""

    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    replies: Counter[int] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, code: int) -> None:
        with self.lock:
            self.replies[code] += 1

    def note(self, kind: set[str], address: str, code: int = 0) -> None:
        with self.lock:
            kind.add(address)
            self.replies[code] += 1


def client_loop(platform: Platform, ledger: Ledger, number: int, stop: threading.Event) -> None:
    """One client that sends until told to stop, on a kept connection where it can."""
    context = ssl.create_default_context(cafile=str(platform.ca_file))
    sent = 0
    while not stop.is_set():
        try:
            with smtplib.SMTP_SSL(
                "localhost", platform.ports.submissions_port, timeout=40, context=context
            ) as connection:
                connection.login(platform.values["SMTP_USER"], platform.values["SMTP_PASSWORD"])
                while not stop.is_set():
                    sent += 1
                    if not send_one(connection, ledger, f"c{number}-{sent}@example.org"):
                        break
        except smtplib.SMTPResponseException as error:
            ledger.count(error.smtp_code)
            stop.wait(0.1)
        except (smtplib.SMTPException, OSError):
            stop.wait(0.1)  # the door is down, or does not know who we are just now


def send_one(connection: smtplib.SMTP, ledger: Ledger, address: str) -> bool:
    """Send one mail and note what was said; False when the connection is of no more use."""
    content = f"From: hello@example.test\r\nTo: {address}\r\nSubject: survive\r\n\r\n{'x' * 2000}\r\n".encode()
    for code, _ in (connection.mail("hello@example.test"), connection.rcpt(address)):
        if code != 250:
            ledger.count(code)
            return False
    try:
        code, _ = connection.data(content)
    except smtplib.SMTPDataError as error:
        ledger.note(ledger.refused, address, error.smtp_code)
        return True
    except (smtplib.SMTPException, OSError):
        ledger.note(ledger.unknown, address)
        return False
    if code == 250:
        ledger.note(ledger.acknowledged, address, code)
    else:
        ledger.note(ledger.refused, address, code)
    return True


@pytest.mark.timeout(420)
async def test_every_acknowledged_mail_survives_every_kill(tmp_path: Path) -> None:
    async with running_platform(tmp_path, manifests=MANIFESTS) as platform:
        ledger, stop = Ledger(), threading.Event()
        threads = [
            threading.Thread(target=client_loop, args=(platform, ledger, number, stop)) for number in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        kills: dict[str, int] = {}
        try:
            for victim in VICTIMS:
                await more(ledger, PER_PHASE)
                kills[victim] = time.time_ns() // 1_000_000
                await platform.kill(victim)
            await more(ledger, PER_PHASE)
        finally:
            stop.set()
            for thread in threads:
                await asyncio.to_thread(thread.join)

        permanent = {code: count for code, count in ledger.replies.items() if code >= 500}
        assert not permanent, "an internal fault is never a 5xx"

        copies: Counter[str] = Counter()
        first_ms: dict[str, int] = {}

        async def all_there() -> bool:
            copies.clear()
            for message in await platform.sink_messages():
                [address] = message["recipients"]
                copies[address] += 1
                first_ms[address] = min(first_ms.get(address, message["received_ms"]), message["received_ms"])
            return ledger.acknowledged <= copies.keys()

        try:
            await until(all_there, 150, "every acknowledged mail in the sink")
        except AssertionError:
            lost = ledger.acknowledged - copies.keys()
            pytest.fail(f"{len(lost)} of {len(ledger.acknowledged)} are not in the sink, such as {sorted(lost)[:5]}")
        assert not ledger.refused & copies.keys(), "refused at the dot and delivered all the same"
        await nothing_is_open(platform, len(ledger.acknowledged))

        await all_there()
        seconds = {address for address, count in copies.items() if count > 1}
        window = range(kills["delivery"] - int(AMBIGUOUS_SECONDS * 1000), kills["delivery"] + 1000)
        unexplained = sorted(address for address in seconds if first_ms[address] not in window)
        print(
            f"{len(kills)} kills, {len(ledger.acknowledged)} acknowledged, {len(ledger.refused)} refused, "
            f"{len(ledger.unknown)} unknown, {len(ledger.unknown & copies.keys())} of them delivered, 0 lost, "
            f"{len(seconds)} second copies; replies {dict(ledger.replies)}"
        )
        assert not unexplained, f"second copies that no kill of delivery explains: {unexplained[:10]}"


async def more(ledger: Ledger, count: int) -> None:
    """Wait until so many more mails are acknowledged."""
    target = len(ledger.acknowledged) + count

    async def enough() -> bool:
        return len(ledger.acknowledged) >= target

    await until(enough, 90, f"{count} more acknowledged mails; replies so far {dict(ledger.replies)}")


async def nothing_is_open(platform: Platform, least: int) -> None:
    """Wait until every message that the memory knows is delivered: the timeline tells the same as the sink."""
    states: Counter[str] = Counter()

    async def all_ended() -> bool:
        states.clear()
        before = ""
        async with httpx.AsyncClient(base_url=platform.url, headers=platform.headers, timeout=30) as client:
            while True:
                params = {"limit": "200", **({"before": before} if before else {})}
                answer = await client.get("/v1/messages", params=params)
                if answer.status_code != 200:
                    return False
                page = answer.json()
                states.update(message["state"] for message in page["messages"])
                before = page["next_before"]
                if not before:
                    return states["delivered"] >= least and set(states) == {"delivered"}

    await until(all_ended, 120, f"every message delivered in the timeline ({dict(states)})")
