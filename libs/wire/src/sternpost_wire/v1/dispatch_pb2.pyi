# mypy: disable-error-code="type-arg"
# (protoc writes a bare Mapping for every message parameter)
from sternpost_wire.v1 import config_pb2 as _config_pb2
from sternpost_wire.v1 import event_pb2 as _event_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobRecipient(_message.Message):
    __slots__ = ("index", "address", "notify", "orcpt")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_FIELD_NUMBER: _ClassVar[int]
    ORCPT_FIELD_NUMBER: _ClassVar[int]
    index: int
    address: str
    notify: int
    orcpt: str
    def __init__(self, index: _Optional[int] = ..., address: _Optional[str] = ..., notify: _Optional[int] = ..., orcpt: _Optional[str] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("mail_id", "record_id", "tenant", "sender", "recipients", "content", "content_ref", "size", "accepted_ms", "attempt", "ret", "envid", "eight_bit", "smtputf8", "identity", "tags", "traceparent", "facts")
    MAIL_ID_FIELD_NUMBER: _ClassVar[int]
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_REF_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_MS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RET_FIELD_NUMBER: _ClassVar[int]
    ENVID_FIELD_NUMBER: _ClassVar[int]
    EIGHT_BIT_FIELD_NUMBER: _ClassVar[int]
    SMTPUTF8_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    mail_id: str
    record_id: str
    tenant: str
    sender: str
    recipients: _containers.RepeatedCompositeFieldContainer[JobRecipient]
    content: bytes
    content_ref: str
    size: int
    accepted_ms: int
    attempt: int
    ret: str
    envid: str
    eight_bit: bool
    smtputf8: bool
    identity: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    traceparent: str
    facts: bytes
    def __init__(self, mail_id: _Optional[str] = ..., record_id: _Optional[str] = ..., tenant: _Optional[str] = ..., sender: _Optional[str] = ..., recipients: _Optional[_Iterable[_Union[JobRecipient, _Mapping]]] = ..., content: _Optional[bytes] = ..., content_ref: _Optional[str] = ..., size: _Optional[int] = ..., accepted_ms: _Optional[int] = ..., attempt: _Optional[int] = ..., ret: _Optional[str] = ..., envid: _Optional[str] = ..., eight_bit: _Optional[bool] = ..., smtputf8: _Optional[bool] = ..., identity: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., traceparent: _Optional[str] = ..., facts: _Optional[bytes] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("domain", "smart_hosts", "tls", "allow_forbidden_addresses")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SMART_HOSTS_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FORBIDDEN_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    domain: str
    smart_hosts: _containers.RepeatedCompositeFieldContainer[_config_pb2.SmartHost]
    tls: str
    allow_forbidden_addresses: bool
    def __init__(self, domain: _Optional[str] = ..., smart_hosts: _Optional[_Iterable[_Union[_config_pb2.SmartHost, _Mapping]]] = ..., tls: _Optional[str] = ..., allow_forbidden_addresses: _Optional[bool] = ...) -> None: ...

class SiteSession(_message.Message):
    __slots__ = ("id", "queue", "site", "route", "jobs")
    ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    JOBS_FIELD_NUMBER: _ClassVar[int]
    id: str
    queue: str
    site: str
    route: Route
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    def __init__(self, id: _Optional[str] = ..., queue: _Optional[str] = ..., site: _Optional[str] = ..., route: _Optional[_Union[Route, _Mapping]] = ..., jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ...) -> None: ...

class SessionAnswer(_message.Message):
    __slots__ = ("answer",)
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    answer: str
    def __init__(self, answer: _Optional[str] = ...) -> None: ...

class JobResult(_message.Message):
    __slots__ = ("mail_id", "results", "retry_after", "dsn_passed_on")
    MAIL_ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    DSN_PASSED_ON_FIELD_NUMBER: _ClassVar[int]
    mail_id: str
    results: _containers.RepeatedCompositeFieldContainer[_event_pb2.Result]
    retry_after: float
    dsn_passed_on: bool
    def __init__(self, mail_id: _Optional[str] = ..., results: _Optional[_Iterable[_Union[_event_pb2.Result, _Mapping]]] = ..., retry_after: _Optional[float] = ..., dsn_passed_on: _Optional[bool] = ...) -> None: ...

class SessionResult(_message.Message):
    __slots__ = ("session", "worker", "results", "done", "site_down")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    SITE_DOWN_FIELD_NUMBER: _ClassVar[int]
    session: str
    worker: str
    results: _containers.RepeatedCompositeFieldContainer[JobResult]
    done: bool
    site_down: bool
    def __init__(self, session: _Optional[str] = ..., worker: _Optional[str] = ..., results: _Optional[_Iterable[_Union[JobResult, _Mapping]]] = ..., done: _Optional[bool] = ..., site_down: _Optional[bool] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("worker", "capacity", "sessions", "held_mails")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    HELD_MAILS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    capacity: int
    sessions: _containers.RepeatedScalarFieldContainer[str]
    held_mails: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker: _Optional[str] = ..., capacity: _Optional[int] = ..., sessions: _Optional[_Iterable[str]] = ..., held_mails: _Optional[_Iterable[str]] = ...) -> None: ...

class SiteQuestion(_message.Message):
    __slots__ = ("domain",)
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    domain: str
    def __init__(self, domain: _Optional[str] = ...) -> None: ...

class SiteAnswer(_message.Message):
    __slots__ = ("domain", "name", "ttl")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    domain: str
    name: str
    ttl: float
    def __init__(self, domain: _Optional[str] = ..., name: _Optional[str] = ..., ttl: _Optional[float] = ...) -> None: ...
