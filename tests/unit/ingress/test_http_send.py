"""Sending over HTTP: from parts and raw."""

import base64
import email
import email.policy
from typing import Any

import httpx
import pytest

from sternpost_mail.envelope import Door
from sternpost_mail.ids import is_id
from sternpost_runtime.codec import (
    decode_facts,
)
from tests.unit.ingress.http_door import MAIL, NOW, RAW, OpenDoor, problem


async def test_a_mail_is_stored_before_it_is_answered(door: OpenDoor) -> None:
    response = await door.post({**MAIL, "tags": ["order"], "metadata": {"order": "7"}, "bcc": "eve@remote.example"})
    assert response.status_code == 202
    answer = response.json()
    assert answer == {"id": answer["id"], "status": "queued"}
    assert response.headers["location"] == f"/v1/messages/{answer['id']}"
    (mail,) = door.spool.mails
    assert mail.id == answer["id"]
    assert is_id(mail.id)
    assert (mail.tenant, mail.identity, mail.tags, mail.accepted_ms) == ("shop", "app", ("order",), NOW)
    assert mail.envelope.sender == "ada@shop.example"
    assert [recipient.address for recipient in mail.envelope.recipients] == ["bob@remote.example", "eve@remote.example"]
    facts = decode_facts(mail.facts)
    assert (facts.door, facts.client, facts.metadata) == (Door.HTTP, "192.0.2.7", (("order", "7"),))
    message = email.message_from_bytes(mail.content, policy=email.policy.SMTP)
    assert message.keys()[:3] == ["Received", "Date", "Message-ID"]
    assert "with HTTP id" in message["Received"]
    assert b"eve" not in mail.content


async def test_a_scheduled_mail(door: OpenDoor) -> None:
    response = await door.post({**MAIL, "send_at": "2023-11-15T01:00:00+02:00"})
    assert response.json()["status"] == "scheduled"
    assert response.json()["send_at"] == "2023-11-14T23:00:00Z"
    assert door.spool.mails[0].not_before_ms == 1_700_002_800_000
    past = await door.post({**MAIL, "send_at": "2020-01-01T00:00:00Z"})
    assert past.json()["status"] == "queued"
    assert door.spool.mails[1].not_before_ms == 0
    far = problem(await door.post({**MAIL, "send_at": "2024-01-01T00:00:00Z"}), 422, "invalid-message")
    assert far["errors"][0]["field"] == "send_at"


async def test_attachments_arrive(door: OpenDoor) -> None:
    content = base64.encodebytes(b"%PDF" * 100).decode()  # with line breaks, as many encoders write it
    response = await door.post({**MAIL, "attachments": [{"filename": "a.pdf", "content": content}]})
    assert response.status_code == 202
    message = email.message_from_bytes(door.spool.mails[0].content, policy=email.policy.SMTP)
    assert isinstance(message, email.message.EmailMessage)
    assert next(message.iter_attachments()).get_content() == b"%PDF" * 100


@pytest.mark.parametrize(
    "value",
    ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01"],
)
async def test_a_trace_context_is_carried_if_it_is_one(door: OpenDoor, value: str) -> None:
    await door.post(MAIL, traceparent=value)
    assert door.spool.mails[0].traceparent == (value if value.startswith("00-0a") else "")


async def test_a_large_mail_is_composed_in_a_thread(door: OpenDoor) -> None:
    response = await door.post({**MAIL, "text": "line\n" * 100_000})
    assert response.status_code == 202
    assert door.spool.mails[0].size > 500_000


REFUSED: list[tuple[dict[str, Any], int, str, list[str]]] = [
    ({"from": "x@bank.example"}, 403, "sender-not-allowed", ["from"]),
    ({"from": "x@nobody.example"}, 403, "sender-not-allowed", ["from"]),
    ({"to": ["a@no.example", "b@r.example"], "cc": ["c@no.example"]}, 422, "rejected-by-rule", ["to.0", "cc.0"]),
    ({"to": []}, 422, "invalid-message", ["to"]),
    ({"to": ["nonsense"]}, 422, "invalid-message", ["to.0"]),
    ({"to": ["x@[127.0.0.1]"]}, 422, "invalid-message", ["to.0"]),
    ({"to": 7}, 422, "invalid-message", ["to"]),
    ({"subject": "a\r\nBcc: x@y.example"}, 422, "invalid-message", ["subject"]),
    ({"headers": {"Bcc": "x"}}, 422, "invalid-message", ["headers.Bcc"]),
    ({"headers": {"X": 1}}, 422, "invalid-message", ["headers.X"]),
    ({"unknown": 1}, 422, "invalid-message", ["unknown"]),
    ({"tags": ["a b"]}, 422, "invalid-message", ["tags.0"]),
    ({"tags": ["t"] * 11}, 422, "invalid-message", ["tags"]),
    ({"metadata": {"k": "v" * 513}}, 422, "invalid-message", ["metadata.k"]),
    ({"send_at": "2023-11-15T01:00:00"}, 422, "invalid-message", ["send_at"]),
    ({"attachments": [{"filename": "a", "content": "***"}]}, 422, "invalid-message", ["attachments.0.content"]),
    ({"attachments": [{"filename": "a/b", "content": ""}]}, 422, "invalid-message", ["attachments.0.filename"]),
]


@pytest.mark.parametrize(
    ("change", "status", "slug", "fields"), REFUSED, ids=[f"{i}-{r[2]}" for i, r in enumerate(REFUSED)]
)
async def test_a_refusal_names_the_field(
    door: OpenDoor, change: dict[str, Any], status: int, slug: str, fields: list[str]
) -> None:
    body = problem(await door.post({**MAIL, **change}), status, slug)
    assert [error["field"] for error in body["errors"]] == fields
    assert all(error["message"] for error in body["errors"])
    assert door.spool.mails == []


async def test_a_rules_own_text_is_told(door: OpenDoor) -> None:
    body = problem(await door.post({**MAIL, "to": ["a@no.example"]}), 422, "rejected-by-rule")
    assert body["errors"] == [{"field": "to.0", "message": "We do not write there"}]


async def test_what_is_no_json_is_told(door: OpenDoor) -> None:
    problem(await door.post(b"{"), 400, "invalid-json")
    problem(await door.post(b"\xff"), 400, "invalid-json")
    problem(await door.post(b"[]"), 422, "invalid-message")
    problem(await door.post(MAIL, content_type="text/plain"), 415, "unsupported-media-type")
    problem(await door.post(MAIL, content_encoding="gzip"), 415, "unsupported-media-type")


async def raw(door: OpenDoor, content: bytes, query: str = "to=bob@remote.example") -> httpx.Response:
    return await door.post(content, f"/v1/messages/raw?{query}", content_type="message/rfc822")


async def test_raw_octets_stay(door: OpenDoor) -> None:
    response = await raw(
        door, RAW, "from=bounce@shop.example&to=bob@remote.example&to=eve@remote.example&tag=t1&tag=t2"
    )
    assert response.status_code == 202
    (mail,) = door.spool.mails
    assert mail.content.endswith(RAW)
    assert mail.content[: -len(RAW)].count(b"\r\n") == 3  # the trace field alone
    assert mail.envelope.sender == "bounce@shop.example"
    assert len(mail.envelope.recipients) == 2
    assert mail.envelope.eight_bit
    assert not mail.envelope.smtputf8
    assert mail.tags == ("t1", "t2")


async def test_raw_as_json(door: OpenDoor) -> None:
    body = {"to": "Bob <bob@remote.example>", "content": base64.b64encode(RAW).decode(), "metadata": {"a": "b"}}
    response = await door.post(body, "/v1/messages/raw")
    assert response.status_code == 202
    (mail,) = door.spool.mails
    assert mail.content.endswith(RAW)
    assert mail.envelope.sender == "ada@shop.example"


async def test_raw_with_the_null_path(door: OpenDoor) -> None:
    assert (await raw(door, RAW, "from=&to=bob@remote.example")).status_code == 202
    assert door.spool.mails[0].envelope.sender == ""


async def test_a_unix_file_gets_crlf(door: OpenDoor) -> None:
    assert (await raw(door, RAW.replace(b"\r\n", b"\n"))).status_code == 202
    assert door.spool.mails[0].content.endswith(RAW)


RAW_REFUSED = [
    (RAW.replace(b"\r\n", b"\n", 1), "to=b@r.example", 422, "invalid-message", "content"),
    (b"From: a@shop.example\r\n\r\n.\r.\r\n", "to=b@r.example", 422, "invalid-message", "content"),
    (RAW + b"\0\r\n", "to=b@r.example", 422, "invalid-message", "content"),
    (RAW + b"x" * 2049 + b"\r\n", "to=b@r.example", 422, "invalid-message", "content"),
    (RAW, "", 422, "invalid-message", "to"),
    (RAW, "to=nonsense", 422, "invalid-message", "to.0"),
    (RAW, "to=b@r.example&from=nonsense", 422, "invalid-message", "from"),
    (RAW, "to=b@r.example&from=x@bank.example", 403, "sender-not-allowed", "from"),
    (RAW, "to=b@r.example&send_at=tomorrow", 422, "invalid-message", "send_at"),
    (b"From: x@bank.example\r\n\r\n", "to=b@r.example&from=a@shop.example", 403, "from-not-allowed", "from"),
    (b"From: x@bank.example\r\n\r\n", "to=b@r.example&from=", 403, "from-not-allowed", "from"),
    (b"From: a@shop.example, x@bank.example\r\n\r\n", "to=b@r.example&from=", 403, "from-not-allowed", "from"),
    (b"From: a@shop.example\r\nFROM : x@bank.example\r\n\r\n", "to=b@r.example&from=", 422, "from-multiple", "from"),
    (b"Subject: x\r\n\r\n", "to=b@r.example&from=", 422, "from-missing", "from"),
    (b"Subject: x\r\n\r\n", "to=b@r.example", 422, "invalid-message", "from"),
    (b"From: a b\r\n\r\n", "to=b@r.example&from=", 422, "from-unreadable", "from"),
    (b" From: a@shop.example\r\n\r\n", "to=b@r.example", 422, "header-invalid", "content"),
    (b"", "to=b@r.example&from=", 422, "from-missing", "from"),
]


@pytest.mark.parametrize(
    ("content", "query", "status", "slug", "where"), RAW_REFUSED, ids=[f"{i}-{r[3]}" for i, r in enumerate(RAW_REFUSED)]
)
async def test_raw_refusals(door: OpenDoor, content: bytes, query: str, status: int, slug: str, where: str) -> None:
    body = problem(await raw(door, content, query), status, slug)
    assert [error["field"] for error in body["errors"]] == [where]
    assert door.spool.mails == []
