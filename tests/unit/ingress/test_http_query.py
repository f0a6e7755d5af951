"""Looking up and taking back messages over HTTP."""

import pytest

from sternpost_mail.cancel import CancelReply
from sternpost_mail.states import State
from sternpost_mail.timeline import ListAnswer, MessageAnswer, MessageView
from sternpost_runtime.bus import BusDown
from sternpost_runtime.codec import (
    decode_cancel_request,
    decode_list_question,
    decode_message_question,
    encode_cancel_reply,
    encode_list_answer,
    encode_message_answer,
)
from sternpost_runtime.subjects import ACTIVITY_LIST, ACTIVITY_MESSAGE, QUEUE_CANCEL
from tests.unit.ingress.http_door import ID, NOW, VIEW, OpenDoor, problem


async def test_a_message_with_its_timeline(door: OpenDoor) -> None:
    def answer(payload: bytes) -> bytes:
        question = decode_message_question(payload)
        assert (question.id, question.tenant) == (ID, "shop")
        return encode_message_answer(MessageAnswer(VIEW))

    door.bus.answers[ACTIVITY_MESSAGE] = answer
    body = (await door.client.get(f"/v1/messages/{ID}")).json()
    assert body["state"] == "delivered"
    assert body["recipients"][0]["last_reply"] == "250 2.0.0 ok"
    assert [entry["kind"] for entry in body["timeline"]] == ["accepted", "attempt"]


async def test_a_message_of_another_tenant_does_not_exist(door: OpenDoor) -> None:
    door.bus.answers[ACTIVITY_MESSAGE] = lambda _: encode_message_answer(MessageAnswer(VIEW))
    response = await door.client.get(f"/v1/messages/{ID}", headers={"authorization": "Bearer bank"})
    problem(response, 404, "message-not-found")
    door.bus.answers[ACTIVITY_MESSAGE] = lambda _: encode_message_answer(MessageAnswer(None))
    problem(await door.client.get(f"/v1/messages/{ID}"), 404, "message-not-found")


@pytest.mark.parametrize("wrong", ["x", "*", "a.b", ">", ID.upper(), "%00", "x" * 65])
async def test_what_is_no_id_reaches_nobody(door: OpenDoor, wrong: str) -> None:
    response = await door.client.get(f"/v1/messages/{wrong}")
    assert response.status_code in (400, 404)
    assert (await door.client.post(f"/v1/messages/{wrong}/cancel")).status_code in (400, 404)


async def test_a_list_is_the_tenants_own(door: OpenDoor) -> None:
    def answer(payload: bytes) -> bytes:
        question = decode_list_question(payload)
        assert (question.tenant, question.state, question.recipient, question.limit) == (
            "shop",
            "bounced",
            "b@r.example",
            7,
        )
        foreign = MessageView(ID, "bank", State.QUEUED, "x@bank.example", NOW, 1)
        return encode_list_answer(ListAnswer((VIEW, foreign), ID))

    door.bus.answers[ACTIVITY_LIST] = answer
    body = (await door.client.get("/v1/messages?state=bounced&to=b@r.example&limit=7")).json()
    assert [message["tenant"] for message in body["messages"]] == ["shop"]
    assert body["next_before"] == ID


@pytest.mark.parametrize(
    ("query", "fields"), [("limit=0", ["limit"]), ("limit=x", ["limit"]), ("state=lost", ["state"]), ("before=x", [])]
)
async def test_a_wrong_filter_is_told(door: OpenDoor, query: str, fields: list[str]) -> None:
    body = problem(await door.client.get(f"/v1/messages?{query}"), 400, "invalid-request")
    assert [error["field"] for error in body.get("errors", [])] == fields


async def test_cancel(door: OpenDoor) -> None:
    replies = [CancelReply(True), CancelReply(False, "It is delivered.")]

    def answer(payload: bytes) -> bytes:
        request = decode_cancel_request(payload)
        assert (request.mail_id, request.tenant) == (ID, "shop")
        return encode_cancel_reply(replies.pop(0))

    door.bus.answers[QUEUE_CANCEL] = answer
    response = await door.client.post(f"/v1/messages/{ID}/cancel")
    assert (response.status_code, response.json()) == (202, {"id": ID, "status": "cancelling"})
    refused = problem(await door.client.post(f"/v1/messages/{ID}/cancel"), 409, "not-cancellable")
    assert refused["detail"] == "It is delivered."


async def test_services_that_are_down_are_503(door: OpenDoor) -> None:
    def down(_: bytes) -> bytes:
        raise BusDown("down")

    problem(await door.client.get(f"/v1/messages/{ID}"), 503, "query-unavailable")
    problem(await door.client.get("/v1/messages"), 503, "query-unavailable")
    problem(await door.client.post(f"/v1/messages/{ID}/cancel"), 503, "cancel-unavailable")
    door.bus.answers[ACTIVITY_MESSAGE] = down
    problem(await door.client.get(f"/v1/messages/{ID}"), 503, "query-unavailable")
    door.bus.answers[ACTIVITY_MESSAGE] = lambda _: b"garbage"
    problem(await door.client.get(f"/v1/messages/{ID}"), 503, "query-unavailable")
