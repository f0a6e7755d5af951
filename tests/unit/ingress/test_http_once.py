"""A request with an Idempotency-Key is carried out once."""

import asyncio
import json

import pytest

from sternpost_ingress.spool import SpoolRefused, Why
from sternpost_mail.config import build_config
from sternpost_runtime.bus import OutcomeUnknown
from tests.unit.ingress.http_door import MAIL, RAW, OpenDoor, problem


async def test_a_repeat_gets_the_first_answer(door: OpenDoor) -> None:
    first = await door.post(MAIL, idempotency_key="order-1")
    door.config = build_config([], 2, "sternpost")  # what came first is not judged again
    second = await door.post(MAIL, idempotency_key="order-1")
    assert (second.status_code, second.json(), second.headers["location"]) == (
        202,
        first.json(),
        first.headers["location"],
    )
    assert second.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len(door.spool.mails) == 1


async def test_a_key_belongs_to_a_credential(door: OpenDoor) -> None:
    first = await door.post(MAIL, idempotency_key="k")
    second = await door.post(MAIL, idempotency_key="k", authorization="Bearer other")
    assert first.json()["id"] != second.json()["id"]
    assert len(door.spool.mails) == 2


async def test_another_body_with_the_key_is_refused(door: OpenDoor) -> None:
    await door.post(MAIL, idempotency_key="k")
    problem(await door.post({**MAIL, "subject": "else"}, idempotency_key="k"), 422, "idempotency-mismatch")
    other_query = await door.post(
        RAW, "/v1/messages/raw?to=b@r.example", content_type="message/rfc822", idempotency_key="r"
    )
    assert other_query.status_code == 202
    again = await door.post(RAW, "/v1/messages/raw?to=c@r.example", content_type="message/rfc822", idempotency_key="r")
    problem(again, 422, "idempotency-mismatch")


async def test_a_key_in_flight_is_a_conflict(door: OpenDoor) -> None:
    door.spool.go_on = asyncio.Event()
    first = asyncio.create_task(door.post(MAIL, idempotency_key="k"))
    await door.spool.entered.wait()
    second = await door.post(MAIL, idempotency_key="k")
    problem(second, 409, "idempotency-in-flight")
    assert int(second.headers["retry-after"]) >= 1
    door.spool.go_on.set()
    assert (await first).status_code == 202
    assert len(door.spool.mails) == 1


async def test_an_unknown_outcome_is_settled_by_the_repeat(door: OpenDoor) -> None:
    for stored_anyway in (True, False):
        door.spool.mails.clear()
        door.spool.failures, door.spool.stored_anyway = [OutcomeUnknown("x")], stored_anyway
        key = f"k{stored_anyway}"
        lost = problem(await door.post(MAIL, idempotency_key=key), 503, "outcome-unknown")
        repeat = await door.post(MAIL, idempotency_key=key)
        assert repeat.status_code == 202
        assert repeat.json()["id"] == lost["id"]
        assert [mail.id for mail in door.spool.mails] == [lost["id"]]


async def test_a_crash_after_storing_never_sends_twice(door: OpenDoor) -> None:
    door.spool.failures, door.spool.stored_anyway = [RuntimeError("crash")], True
    problem(await door.post(MAIL, idempotency_key="k"), 503, "internal")
    assert (await door.post(MAIL, idempotency_key="k")).status_code == 202
    assert len(door.spool.mails) == 1


async def test_a_refusal_by_the_spool_frees_the_key(door: OpenDoor) -> None:
    door.spool.failures = [SpoolRefused(Why.FULL, 15)]
    problem(await door.post(MAIL, idempotency_key="k"), 503, "spool-full")
    other = await door.post({**MAIL, "subject": "mended"}, idempotency_key="k")
    assert other.status_code == 202


async def test_a_verdict_on_the_mail_is_not_kept(door: OpenDoor) -> None:
    problem(await door.post({**MAIL, "to": []}, idempotency_key="k"), 422, "invalid-message")
    assert (await door.post(MAIL, idempotency_key="k")).status_code == 202


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 257, "ä"])
async def test_an_idempotency_key_is_visible_ascii(door: OpenDoor, key: str) -> None:
    headers = {"content-type": "application/json", "idempotency-key": key.encode("latin-1")}
    response = await door.client.post("/v1/messages", content=json.dumps(MAIL), headers=headers)  # type: ignore[arg-type]
    problem(response, 400, "invalid-idempotency-key")


async def test_keys_that_cannot_be_read_stop_the_request(door: OpenDoor) -> None:
    door.bus.idempotency.down = True
    problem(await door.post(MAIL, idempotency_key="k"), 503, "idempotency-unavailable")
    assert door.spool.mails == []
