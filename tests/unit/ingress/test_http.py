"""Who is let in by the HTTP door, how much, and how it describes itself."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from sternpost_ingress.http_models import Accepted, MessageModel
from sternpost_ingress.http_settings import HttpSettings
from sternpost_ingress.spool import SpoolRefused, Why
from sternpost_mail.config import EMPTY_CONFIG
from sternpost_mail.identity import Verdict
from sternpost_mail.timeline import MessageAnswer
from sternpost_runtime.bus import OutcomeUnknown
from sternpost_runtime.codec import (
    encode_message_answer,
)
from sternpost_runtime.subjects import ACTIVITY_MESSAGE
from tests.unit.ingress.http_door import ID, MAIL, VIEW, Open, OpenDoor, problem


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic good", "good", "Bearer good\x80"])
async def test_without_a_valid_key_nothing_is_done(door: OpenDoor, header: str) -> None:
    for method, path in [
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/raw"),
        ("GET", "/v1/messages"),
        ("GET", f"/v1/messages/{ID}"),
        ("POST", f"/v1/messages/{ID}/cancel"),
    ]:
        response = await door.client.request(method, path, headers=[(b"authorization", header.encode("latin-1"))])
        problem(response, 401, "unauthenticated")
        assert response.headers["www-authenticate"].startswith("Bearer")


async def test_auth_that_cannot_tell_lets_nobody_in(door: OpenDoor) -> None:
    door.verdict = Verdict.UNAVAILABLE
    problem(await door.post(MAIL), 503, "auth-unavailable")


async def test_before_the_configuration_is_complete_the_door_asks_for_patience(door: OpenDoor) -> None:
    door.config = EMPTY_CONFIG
    problem(await door.post(MAIL), 503, "not-ready")


async def test_too_many_requests(open_door: Open) -> None:
    door = await open_door(HttpSettings(request_burst=2, requests_per_second=0.1))
    assert [(await door.post(MAIL)).status_code for _ in range(3)] == [202, 202, 429]
    response = await door.post(MAIL)
    problem(response, 429, "rate-limited")
    assert 1 <= int(response.headers["retry-after"]) <= 11
    assert (await door.post({**MAIL, "from": "x@shop.example"}, authorization="Bearer other")).status_code == 202


async def test_a_large_body_is_refused_before_and_while_it_is_read(open_door: Open) -> None:
    door = await open_door(HttpSettings(max_body_octets=2000))
    problem(await door.post({**MAIL, "text": "x" * 3000}), 413, "too-large")
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 500
            yield b"x" * 500

    response = await door.client.post("/v1/messages", content=endless(), headers={"content-type": "application/json"})
    problem(response, 413, "too-large")
    assert sent <= 3000


async def test_bodies_together_are_bounded_and_given_back(open_door: Open) -> None:
    door = await open_door(HttpSettings(max_in_flight_octets=2000))
    problem(await door.post({**MAIL, "text": "x" * 3000}), 503, "overloaded")
    door.spool.go_on = asyncio.Event()
    first = asyncio.create_task(door.post({**MAIL, "text": "x" * 1200}))
    await door.spool.entered.wait()
    problem(await door.post({**MAIL, "text": "x" * 1200}), 503, "overloaded")
    door.spool.go_on.set()
    assert (await first).status_code == 202
    assert (await door.post({**MAIL, "text": "x" * 1200})).status_code == 202


async def test_a_mail_over_the_limit(open_door: Open) -> None:
    door = await open_door(HttpSettings(max_mail_octets=2000))
    problem(await door.post({**MAIL, "text": "ü" * 1000}), 413, "too-large")


async def test_a_body_that_does_not_come(open_door: Open) -> None:
    door = await open_door(HttpSettings(body_seconds=0.01))

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    response = await door.client.post("/v1/messages", content=never(), headers={"content-type": "application/json"})
    problem(response, 408, "body-timeout")


SPOOL = [
    (SpoolRefused(Why.FULL, 15), "spool-full", "15"),
    (SpoolRefused(Why.DOWN, 7), "spool-unavailable", "7"),
    (SpoolRefused(Why.FENCED, 7), "spool-unavailable", "7"),
    (SpoolRefused(Why.OVERLOADED, 3), "overloaded", "3"),
    (OutcomeUnknown("x"), "outcome-unknown", "5"),
    (RuntimeError("secret detail"), "internal", "5"),
]


@pytest.mark.parametrize(("failure", "slug", "wait"), SPOOL, ids=[row[1] for row in SPOOL])
async def test_what_cannot_be_stored_is_503(door: OpenDoor, failure: Exception, slug: str, wait: str) -> None:
    door.spool.failures = [failure]
    response = await door.post(MAIL)
    body = problem(response, 503, slug)
    assert response.headers["retry-after"] == wait
    assert "secret" not in response.text
    assert ("id" in body) == (slug == "outcome-unknown")


async def test_every_other_error_is_a_problem_too(door: OpenDoor) -> None:
    problem(await door.client.get("/nowhere"), 404, "not-found")
    response = await door.client.delete("/v1/messages")
    problem(response, 405, "method-not-allowed")
    assert "allow" in response.headers


async def test_the_description_is_complete(door: OpenDoor) -> None:
    described = (await door.client.get("/openapi.json")).json()
    assert described["openapi"].startswith("3.1")
    schemas = described["components"]["schemas"]
    text = json.dumps(described)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in schemas, reference
    assert {"SendRequest", "RawRequest", "ProblemDetails", "Accepted", "MessageModel"} <= set(schemas)
    assert "HTTPValidationError" not in text
    assert "from" in schemas["SendRequest"]["properties"]
    assert (await door.client.get("/docs")).status_code == 200


async def test_the_answers_fit_their_description(door: OpenDoor) -> None:
    Accepted.model_validate((await door.post(MAIL)).json())
    door.bus.answers[ACTIVITY_MESSAGE] = lambda _: encode_message_answer(MessageAnswer(VIEW))
    answer = (await door.client.get(f"/v1/messages/{ID}")).json()
    assert set(answer) == set(MessageModel.model_fields)
    MessageModel.model_validate(answer)
