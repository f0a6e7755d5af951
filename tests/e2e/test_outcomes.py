"""What becomes of a mail when the remote is not kind: retries, bounces, expiry, cancelling; each told by the timeline."""

import email
import time
import uuid
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage, Message
from email.policy import default
from typing import Any

import httpx
import pytest

from tests.support.platform import Platform, until

pytestmark = pytest.mark.e2e


def unique() -> str:
    return uuid.uuid4().hex[:12]


async def send(platform: Platform, recipients: list[str], **fields: Any) -> str:
    body = {"from": "hello@example.test", "to": recipients, "subject": "s", "text": "t", **fields}
    async with httpx.AsyncClient(base_url=platform.url, headers=platform.headers, timeout=20) as client:
        answer = await client.post("/v1/messages", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def status_of(report: EmailMessage) -> Message:
    """The per-recipient fields of the first recipient (RFC 3464 §2.3)."""
    parts = [part for part in report.walk() if part.get_content_type() == "message/delivery-status"]
    fields = parts[0].get_payload()
    assert isinstance(fields, list)
    assert isinstance(fields[1], Message)
    return fields[1]


async def report_about(platform: Platform, address: str) -> EmailMessage:
    found: list[bytes] = []

    async def is_there() -> bool:
        for message in await platform.sink_messages(recipient="hello@example.test"):
            raw = await platform.sink_raw(message["id"])
            if address.encode() in raw:
                found.append(raw)
                return True
        return False

    await until(is_there, 30, f"a report about {address}")
    report = email.message_from_bytes(found[0], policy=default)
    assert isinstance(report, EmailMessage)
    return report


async def test_two_451_and_the_third_try_delivers(platform: Platform) -> None:
    address = f"{unique()}@slow.example"
    await platform.fault(stage="rcpt", recipient=address, code=451, text="4.7.1 greylisted, try again", times=2)
    identifier = await send(platform, [address])
    found = await platform.wait_state(identifier, "delivered")
    attempts = [entry for entry in found["timeline"] if entry["kind"] == "attempt"]
    assert [entry["outcome"] for entry in attempts] == ["temporary", "temporary", "delivered"]
    assert "greylisted" in attempts[0]["reply"]
    assert len(await platform.sink_messages(recipient=address)) == 1


async def test_a_550_bounces_with_a_report_the_sender_can_read(platform: Platform) -> None:
    address = f"{unique()}@gone.example"
    await platform.fault(stage="rcpt", recipient=address, code=550, text="5.1.1 no such user", times=0)
    identifier = await send(platform, [address])
    found = await platform.wait_state(identifier, "bounced")
    assert found["recipients"][0]["last_reply"] == "550 5.1.1 no such user"
    report = await report_about(platform, address)
    assert report.get_content_type() == "multipart/report"
    assert report["Auto-Submitted"] == "auto-replied"
    kinds = [part.get_content_type() for part in report.iter_parts()]
    assert kinds == ["text/plain", "message/delivery-status", "message/rfc822"]
    status = status_of(report)
    assert status["Final-Recipient"] == f"rfc822; {address}"
    assert (status["Action"], status["Status"]) == ("failed", "5.1.1")
    assert status["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    [envelope] = [m for m in await platform.sink_messages(recipient="hello@example.test") if m["sender"] == ""][-1:]
    assert envelope["recipients"] == ["hello@example.test"]


async def test_nobody_answers_and_the_mail_expires_with_a_report(platform: Platform) -> None:
    address = f"{unique()}@void.example"
    identifier = await send(platform, [address])
    found = await platform.wait_state(identifier, "expired", 60)
    assert {entry["outcome"] for entry in found["timeline"] if entry["kind"] == "attempt"} == {"unreached"}
    report = await report_about(platform, address)
    status = status_of(report)
    assert (status["Action"], status["Status"]) == ("failed", "4.4.7")


async def test_two_recipients_one_refused_each_has_its_own_end(platform: Platform) -> None:
    token = unique()
    good, bad = f"{token}-good@example.org", f"{token}-bad@example.org"
    await platform.fault(stage="rcpt", recipient=bad, code=550, text="5.1.1 no", times=0)
    identifier = await send(platform, [good, bad])
    found = await platform.wait_state(identifier, "bounced")
    assert {r["address"]: r["state"] for r in found["recipients"]} == {good: "delivered", bad: "bounced"}
    assert len(await platform.sink_messages(recipient=good)) == 1


async def test_a_scheduled_mail_waits_for_its_time(platform: Platform) -> None:
    address = f"{unique()}@example.org"
    moment = datetime.now(UTC) + timedelta(seconds=4)
    identifier = await send(platform, [address], send_at=moment.isoformat())
    await platform.wait_state(identifier, "scheduled")
    [message] = await platform.wait_sink(1, recipient=address)
    assert message["received_ms"] >= moment.timestamp() * 1000
    await platform.wait_state(identifier, "delivered")


async def test_a_scheduled_mail_that_is_cancelled_is_never_sent(platform: Platform) -> None:
    address = f"{unique()}@example.org"
    moment = datetime.now(UTC) + timedelta(seconds=4)
    identifier = await send(platform, [address], send_at=moment.isoformat())
    async with httpx.AsyncClient(base_url=platform.url, headers=platform.headers, timeout=20) as client:
        answer = await client.post(f"/v1/messages/{identifier}/cancel")
    assert answer.status_code == 202, answer.text
    found = await platform.wait_state(identifier, "cancelled")
    assert time.time() >= moment.timestamp() - 1
    assert await platform.sink_messages(recipient=address) == []
    assert "cancel_requested" in [entry["kind"] for entry in found["timeline"]]


async def test_the_same_idempotency_key_sends_once(platform: Platform) -> None:
    address = f"{unique()}@example.org"
    body = {"from": "hello@example.test", "to": [address], "subject": "s", "text": "t"}
    headers = {**platform.headers, "Idempotency-Key": unique()}
    async with httpx.AsyncClient(base_url=platform.url, headers=headers, timeout=20) as client:
        first, second = await client.post("/v1/messages", json=body), await client.post("/v1/messages", json=body)
        other = await client.post("/v1/messages", json={**body, "text": "another"})
    assert (first.status_code, second.status_code, other.status_code) == (202, 202, 422)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["Idempotency-Replayed"] == "true"
    await platform.wait_state(first.json()["id"], "delivered")
    assert len(await platform.sink_messages(recipient=address)) == 1
