# mypy: disable-error-code="type-arg"
# (protoc writes a bare Mapping for every message parameter)
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Result(_message.Message):
    __slots__ = ("recipient", "address", "state", "outcome", "reply", "next_attempt_ms")
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    NEXT_ATTEMPT_MS_FIELD_NUMBER: _ClassVar[int]
    recipient: int
    address: str
    state: str
    outcome: str
    reply: str
    next_attempt_ms: int
    def __init__(self, recipient: _Optional[int] = ..., address: _Optional[str] = ..., state: _Optional[str] = ..., outcome: _Optional[str] = ..., reply: _Optional[str] = ..., next_attempt_ms: _Optional[int] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("id", "kind", "at_ms", "mail_id", "record_id", "tenant", "sender", "accepted_ms", "size", "results", "attempt", "site", "remote", "tls", "duration_ms", "identity", "tags", "facts")
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    MAIL_ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_MS_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    at_ms: int
    mail_id: str
    record_id: str
    tenant: str
    sender: str
    accepted_ms: int
    size: int
    results: _containers.RepeatedCompositeFieldContainer[Result]
    attempt: int
    site: str
    remote: str
    tls: str
    duration_ms: int
    identity: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    facts: bytes
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., at_ms: _Optional[int] = ..., mail_id: _Optional[str] = ..., record_id: _Optional[str] = ..., tenant: _Optional[str] = ..., sender: _Optional[str] = ..., accepted_ms: _Optional[int] = ..., size: _Optional[int] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., attempt: _Optional[int] = ..., site: _Optional[str] = ..., remote: _Optional[str] = ..., tls: _Optional[str] = ..., duration_ms: _Optional[int] = ..., identity: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., facts: _Optional[bytes] = ...) -> None: ...

class EventBatch(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...
