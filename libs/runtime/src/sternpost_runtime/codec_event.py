"""What happened to mails (proto/sternpost_wire/v1/event.proto), between octets and values.

Import it through `sternpost_runtime.codec`. Every mail passes here at least once, so fields are written out one by one.
"""

from sternpost_mail.events import Event, EventBatch, EventKind, OutcomeKind, Result
from sternpost_mail.states import State
from sternpost_runtime.codec_base import DECODE_ERRORS, ENCODE_ERRORS, CodecError, Words, does_not_fit, not_a
from sternpost_wire.v1 import event_pb2

KINDS = Words("kind of event", EventKind)
STATES = Words("state", State)
OUTCOMES = Words("outcome", OutcomeKind)

_EventBatch = event_pb2.EventBatch
_NO_OUTCOME = OutcomeKind.NONE


def fill_result(wire: event_pb2.Result, result: Result) -> None:
    """Write the result of one recipient into its message."""
    if result.recipient:
        wire.recipient = result.recipient
    wire.address = result.address
    wire.state = result.state
    if result.outcome is not _NO_OUTCOME:
        wire.outcome = result.outcome
    if result.reply:
        wire.reply = result.reply
    if result.next_attempt_ms:
        wire.next_attempt_ms = result.next_attempt_ms


def read_result(wire: event_pb2.Result) -> Result:
    """The result of one recipient."""
    return Result(
        wire.recipient, wire.address, STATES[wire.state], OUTCOMES[wire.outcome], wire.reply, wire.next_attempt_ms
    )


def encode_event_batch(batch: EventBatch) -> bytes:
    """The payload of EVENTS. Raises CodecError."""
    try:
        wire = _EventBatch()
        add = wire.events.add
        for event in batch.events:
            _fill_event(add(), event)
        return wire.SerializeToString()
    except ENCODE_ERRORS as error:
        raise does_not_fit("event batch", error) from None


def decode_event_batch(data: bytes) -> EventBatch:
    """The events of a payload of EVENTS. Raises CodecError."""
    try:
        wire = _EventBatch.FromString(data)
    except DECODE_ERRORS as error:
        raise not_a("batch of events", error) from error
    return EventBatch(tuple([_read_event(event) for event in wire.events]))


def _fill_event(wire: event_pb2.Event, event: Event) -> None:
    wire.id = event.id
    wire.kind = event.kind
    wire.at_ms = event.at_ms
    wire.mail_id = event.mail_id
    wire.record_id = event.record_id
    wire.tenant = event.tenant
    if event.sender:
        wire.sender = event.sender
    wire.accepted_ms = event.accepted_ms
    wire.size = event.size
    add = wire.results.add
    for result in event.results:
        fill_result(add(), result)
    if event.attempt:
        wire.attempt = event.attempt
    if event.site:
        wire.site = event.site
    if event.remote:
        wire.remote = event.remote
    if event.tls:
        wire.tls = event.tls
    if event.duration_ms:
        wire.duration_ms = event.duration_ms
    if event.identity:
        wire.identity = event.identity
    if event.tags:
        wire.tags.extend(event.tags)
    if event.facts:
        wire.facts = event.facts


def _read_event(wire: event_pb2.Event) -> Event:
    if not wire.id:
        raise CodecError("an event without id")
    return Event(
        id=wire.id,
        kind=KINDS[wire.kind],
        at_ms=wire.at_ms,
        mail_id=wire.mail_id,
        record_id=wire.record_id,
        tenant=wire.tenant,
        sender=wire.sender,
        accepted_ms=wire.accepted_ms,
        size=wire.size,
        results=tuple([read_result(result) for result in wire.results]),
        attempt=wire.attempt,
        site=wire.site,
        remote=wire.remote,
        tls=wire.tls,
        duration_ms=wire.duration_ms,
        identity=wire.identity,
        tags=tuple(wire.tags),
        facts=wire.facts,
    )
