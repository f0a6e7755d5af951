"""The sink's HTTP side: what arrived, and faults to order. It has no authentication and is for loopback."""

from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from sternpost_cli.sink.faults import Action, Fault, Faults, Stage
from sternpost_cli.sink.store import Received, Store

MAX_PAGE = 10_000
"""Messages in one answer: a list entry is small."""


class FaultOrder(BaseModel):
    """A fault to set."""

    model_config = ConfigDict(extra="forbid")

    stage: Stage = Field(description="connect, mail, rcpt, data (before the 354) or dot (after the content)")
    recipient: str = Field(default="*", description="pattern with * and ?; `x@` means `x@*`")
    sender: str = Field(default="*", description="pattern of the envelope sender")
    action: Action = Field(default=Action.REPLY, description="reply with the code, close without a word, or hang")
    code: int = Field(default=451, description="reply code")
    text: str = Field(default="", description="text after the code, with its enhanced code")
    delay_s: float = Field(default=0.0, le=600, description="seconds to wait first")
    times: int = Field(default=1, description="how often it strikes; 0 means always")
    keep: bool = Field(default=False, description="at stage dot: keep the message first; only the answer is lost")


def describe(message: Received) -> dict[str, Any]:
    """A message as the list shows it: everything but the content."""
    return {
        "id": message.number,
        "sender": message.sender,
        "recipients": message.recipients,
        "mail_options": message.mail_options,
        "rcpt_options": message.rcpt_options,
        "peer": message.peer,
        "helo": message.helo,
        "session": message.session,
        "tls": message.tls,
        "received_ms": message.received_ms,
        "size": len(message.content),
        "sha256": message.sha256,
        "message_id": message.message_id,
        "subject": message.subject,
    }


def make_app(store: Store, faults: Faults) -> FastAPI:
    """The application over one store and one set of faults."""
    app = FastAPI(title="Sternpost sink", summary="What arrived, and faults to order.")

    def one(number: int) -> Received:
        message = store.get(number)
        if message is None:
            raise HTTPException(404, f"no message {number} is kept")
        return message

    @app.get("/messages", summary="List messages in the order of arrival")
    async def list_messages(
        recipient: str = "",
        message_id: str = "",
        after: Annotated[int, Query(ge=0, description="continue after this id")] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1000,
    ) -> dict[str, Any]:
        page = []
        for message in store.find(recipient=recipient, message_id=message_id, after=after):
            page.append(describe(message))
            if len(page) == limit:
                break
        return {"messages": page, "next_after": page[-1]["id"] if len(page) == limit else None}

    @app.get("/messages/{number}", summary="One message without its content")
    async def get_message(number: int) -> dict[str, Any]:
        return describe(one(number))

    @app.get("/messages/{number}/raw", summary="The exact octets of one message", response_class=Response)
    async def get_raw(number: int) -> Response:
        return Response(one(number).content, media_type="message/rfc822")

    @app.delete("/messages", summary="Forget all messages")
    async def delete_messages() -> dict[str, int]:
        return {"deleted": store.clear()}

    @app.get("/stats", summary="Counts")
    async def stats() -> dict[str, int]:
        return {**store.counts, "faults_waiting": len(faults.waiting), "faults_used": faults.used}

    @app.post("/faults", status_code=201, summary="Order a fault")
    async def add_fault(order: FaultOrder) -> dict[str, int]:
        try:
            return {"id": faults.add(Fault(**order.model_dump()))}
        except ValueError as error:
            raise HTTPException(422, str(error)) from error

    @app.get("/faults", summary="Faults that wait")
    async def list_faults() -> dict[str, Any]:
        return {"faults": [{"id": number, **_fields(fault)} for number, fault in faults.waiting]}

    @app.delete("/faults", summary="Forget all faults that wait")
    async def delete_faults() -> dict[str, int]:
        return {"deleted": faults.clear()}

    return app


def _fields(fault: Fault) -> dict[str, Any]:
    return {name: getattr(fault, name) for name in FaultOrder.model_fields}
