"""Questions between services (proto/sternpost_wire/v1/request.proto), and the views of activity, which are JSON.

Import it through `sternpost_runtime.codec`. The views are what the HTTP API shows: JSON all the way, no second shape.
"""

from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from sternpost_mail.cancel import CancelReply, CancelRequest
from sternpost_mail.identity import Identity, Verdict, VerifyReply, VerifyRequest
from sternpost_mail.timeline import ListAnswer, ListQuestion, MessageAnswer, MessageQuestion
from sternpost_runtime.codec_base import CodecError, Words, decoding, does_not_fit, encoding
from sternpost_runtime.codec_mail import LANES
from sternpost_wire.v1 import request_pb2

VERDICTS = Words("verdict", Verdict)

T = TypeVar("T")


def encode_verify_request(request: VerifyRequest) -> bytes:
    """A question to auth. Raises CodecError."""
    with encoding("verify request"):
        wire = request_pb2.VerifyRequest()
        wire.login = request.login
        wire.secret = request.secret
        wire.client = request.client
        return wire.SerializeToString()


def decode_verify_request(data: bytes) -> VerifyRequest:
    """A question to auth. Raises CodecError."""
    with decoding("verify request"):
        wire = request_pb2.VerifyRequest.FromString(data)
    return VerifyRequest(wire.login, wire.secret, wire.client)


def encode_verify_reply(reply: VerifyReply) -> bytes:
    """Auth's answer. Raises CodecError."""
    with encoding("verify reply"):
        wire = request_pb2.VerifyReply()
        wire.verdict = reply.verdict
        identity = reply.identity
        if identity is not None:
            wire.identity.tenant = identity.tenant
            wire.identity.name = identity.name
            wire.identity.allowed_senders.extend(identity.allowed_senders)
            wire.identity.lane = identity.lane
        return wire.SerializeToString()


def decode_verify_reply(data: bytes) -> VerifyReply:
    """Auth's answer. Raises CodecError, also for a grant that does not say to whom."""
    with decoding("verify reply"):
        wire = request_pb2.VerifyReply.FromString(data)
    verdict = VERDICTS[wire.verdict]
    identity = None
    if wire.HasField("identity"):
        who = wire.identity
        identity = Identity(who.tenant, who.name, tuple(who.allowed_senders), LANES[who.lane])
    if (verdict is Verdict.GRANTED) != (identity is not None):
        raise CodecError(f"a verify reply that says {verdict} {'without' if identity is None else 'with'} an identity")
    return VerifyReply(verdict, identity)


def encode_cancel_request(request: CancelRequest) -> bytes:
    """A question to the queue. Raises CodecError."""
    with encoding("cancel request"):
        wire = request_pb2.CancelRequest()
        wire.tenant = request.tenant
        wire.mail_id = request.mail_id
        return wire.SerializeToString()


def decode_cancel_request(data: bytes) -> CancelRequest:
    """A question to the queue. Raises CodecError."""
    with decoding("cancel request"):
        wire = request_pb2.CancelRequest.FromString(data)
    if not wire.mail_id:
        raise CodecError("a cancel request without mail id")
    return CancelRequest(mail_id=wire.mail_id, tenant=wire.tenant)


def encode_cancel_reply(reply: CancelReply) -> bytes:
    """The queue's answer. Raises CodecError."""
    with encoding("cancel reply"):
        wire = request_pb2.CancelReply()
        wire.marked = reply.marked
        wire.reason = reply.reason
        return wire.SerializeToString()


def decode_cancel_reply(data: bytes) -> CancelReply:
    """The queue's answer. Raises CodecError."""
    with decoding("cancel reply"):
        wire = request_pb2.CancelReply.FromString(data)
    return CancelReply(marked=wire.marked, reason=wire.reason)


def encode_message_question(question: MessageQuestion) -> bytes:
    """JSON of a question for one message. Raises CodecError."""
    return _to_json(MessageQuestion, question)


def decode_message_question(data: bytes) -> MessageQuestion:
    """A question for one message. Raises CodecError."""
    return _from_json(MessageQuestion, data)


def encode_message_answer(answer: MessageAnswer) -> bytes:
    """JSON of one message. Raises CodecError."""
    return _to_json(MessageAnswer, answer)


def decode_message_answer(data: bytes) -> MessageAnswer:
    """One message. Raises CodecError."""
    return _from_json(MessageAnswer, data)


def encode_list_question(question: ListQuestion) -> bytes:
    """JSON of a question for a page of messages. Raises CodecError."""
    return _to_json(ListQuestion, question)


def decode_list_question(data: bytes) -> ListQuestion:
    """A question for a page of messages. Raises CodecError."""
    return _from_json(ListQuestion, data)


def encode_list_answer(answer: ListAnswer) -> bytes:
    """JSON of a page of messages. Raises CodecError."""
    return _to_json(ListAnswer, answer)


def decode_list_answer(data: bytes) -> ListAnswer:
    """A page of messages. Raises CodecError."""
    return _from_json(ListAnswer, data)


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    # Built at the first use: most processes never ask activity anything, and a schema costs milliseconds.
    adapter = _adapters.get(kind)
    if adapter is None:
        adapter = _adapters[kind] = TypeAdapter(kind)
    return adapter


def _to_json(kind: type[T], value: T) -> bytes:
    try:
        return _adapter(kind).dump_json(value)
    except (PydanticSerializationError, ValueError) as error:
        raise does_not_fit(kind.__name__, error) from None


def _from_json(kind: type[T], data: bytes) -> T:
    try:
        return _adapter(kind).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CodecError(f"not a {kind.__name__}: {where + ': ' if where else ''}{first['msg']}") from error
