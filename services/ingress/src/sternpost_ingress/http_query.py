"""GET and cancel of messages: questions to the activity and queue services, bound to the caller's tenant."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import TypeAdapter

from sternpost_ingress.http_client import Gate
from sternpost_ingress.http_models import Cancelling, MessageModel, MessagePage
from sternpost_ingress.http_settings import HttpSettings
from sternpost_ingress.problems import Problem
from sternpost_mail.cancel import CancelRequest
from sternpost_mail.ids import is_id
from sternpost_mail.states import State
from sternpost_mail.timeline import ListAnswer, ListQuestion, MessageQuestion, MessageView
from sternpost_runtime.bus import BusError
from sternpost_runtime.codec import (
    CodecError,
    decode_cancel_reply,
    decode_list_answer,
    decode_message_answer,
    encode_cancel_request,
    encode_list_question,
    encode_message_question,
)
from sternpost_runtime.subjects import ACTIVITY_LIST, ACTIVITY_MESSAGE, QUEUE_CANCEL

T = TypeVar("T")

MAX_PAGE = 200
"""Messages in one page of a list."""

_MESSAGE = TypeAdapter(MessageView)
_PAGE = TypeAdapter(ListAnswer)
_UNAVAILABLE = "The service that knows is not answering; mail is not affected. Try again."

MessageId = Annotated[str, Path(alias="id", max_length=64, description="as the 202 answer told it")]
Filter = Annotated[str, Query(max_length=320)]


class Asks(Protocol):
    """The part of the bus that is needed here."""

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> bytes:
        """The answer to a request; raises BusError."""


class Queries:
    """The routes that look up and take back."""

    def __init__(self, bus: Asks, gate: Gate, settings: HttpSettings) -> None:
        self._bus = bus
        self._gate = gate
        self._timeout = settings.query_seconds

    def add_to(self, router: APIRouter) -> None:
        """Register the routes."""
        routes: list[tuple[str, Callable[..., Awaitable[Response]], str, int, Any, str]] = [
            ("/v1/messages", self.list, "GET", 200, MessagePage, "List messages, newest first"),
            ("/v1/messages/{id}", self.get, "GET", 200, MessageModel, "One message with its timeline"),
            ("/v1/messages/{id}/cancel", self.cancel, "POST", 202, Cancelling, "Take a message back"),
        ]
        for path, endpoint, method, status, model, summary in routes:
            router.add_api_route(
                path,
                endpoint,
                methods=[method],
                status_code=status,
                response_model=model,
                summary=summary,
                tags=["messages"],
            )

    async def get(self, request: Request, message_id: MessageId) -> Response:
        """Where the message is: each recipient's state, each attempt with the remote's reply."""
        tenant = await self._tenant(request)
        if not is_id(message_id):
            raise _not_found()
        question = encode_message_question(MessageQuestion(message_id, tenant))
        answer = await self._ask(ACTIVITY_MESSAGE, question, decode_message_answer, "query-unavailable")
        message = answer.message
        if message is None or message.tenant != tenant:
            raise _not_found()
        return _json(_MESSAGE.dump_json(message))

    async def list(
        self,
        request: Request,
        state: Annotated[State | None, Query()] = None,
        sender: Annotated[str, Query(alias="from", max_length=320)] = "",
        recipient: Annotated[str, Query(alias="to", max_length=320)] = "",
        tag: Filter = "",
        before: Annotated[str, Query(max_length=64, description="`next_before` of the last page")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    ) -> Response:
        """Messages that fit all the filters given."""
        tenant = await self._tenant(request)
        if before and not is_id(before):
            raise Problem("invalid-request", "`before` must be what `next_before` told.")
        question = ListQuestion(tenant, state or "", sender, recipient, tag, before, limit)
        answer = await self._ask(ACTIVITY_LIST, encode_list_question(question), decode_list_answer, "query-unavailable")
        own = tuple(message for message in answer.messages if message.tenant == tenant)
        return _json(_PAGE.dump_json(ListAnswer(own, answer.next_before)))

    async def cancel(self, request: Request, message_id: MessageId) -> Response:
        """Asks that what has not been delivered yet is not sent any more. The timeline tells what came of it."""
        tenant = await self._tenant(request)
        if not is_id(message_id):
            raise _not_found()
        payload = encode_cancel_request(CancelRequest(mail_id=message_id, tenant=tenant))
        reply = await self._ask(QUEUE_CANCEL, payload, decode_cancel_reply, "cancel-unavailable")
        if not reply.marked:
            raise Problem("not-cancellable", reply.reason or "The message is finished, or nobody knows it.")
        body = Cancelling(id=message_id).model_dump_json().encode()
        return _json(body, 202)

    async def _tenant(self, request: Request) -> str:
        client = await self._gate.admit(request)
        if client.identity is None:
            raise Problem("unauthenticated", "A key without an identity opens nothing.")
        return client.identity.tenant

    async def _ask(self, subject: str, payload: bytes, decode: Callable[[bytes], T], slug: str) -> T:
        try:
            return decode(await self._bus.request(subject, payload, timeout=self._timeout))
        except (BusError, CodecError):
            raise Problem(slug, _UNAVAILABLE) from None


def _not_found() -> Problem:
    return Problem("message-not-found", "No message of yours has this id, or nothing is known of it yet.")


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, {"Cache-Control": "no-store"}, "application/json")
