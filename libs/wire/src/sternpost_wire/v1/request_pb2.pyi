# mypy: disable-error-code="type-arg"
# (protoc writes a bare Mapping for every message parameter)
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VerifyRequest(_message.Message):
    __slots__ = ("login", "secret", "client")
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    login: str
    secret: str
    client: str
    def __init__(self, login: _Optional[str] = ..., secret: _Optional[str] = ..., client: _Optional[str] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("tenant", "name", "allowed_senders", "lane")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_SENDERS_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    name: str
    allowed_senders: _containers.RepeatedScalarFieldContainer[str]
    lane: str
    def __init__(self, tenant: _Optional[str] = ..., name: _Optional[str] = ..., allowed_senders: _Optional[_Iterable[str]] = ..., lane: _Optional[str] = ...) -> None: ...

class VerifyReply(_message.Message):
    __slots__ = ("verdict", "identity")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    verdict: str
    identity: Identity
    def __init__(self, verdict: _Optional[str] = ..., identity: _Optional[_Union[Identity, _Mapping]] = ...) -> None: ...

class CancelRequest(_message.Message):
    __slots__ = ("tenant", "mail_id")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    MAIL_ID_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    mail_id: str
    def __init__(self, tenant: _Optional[str] = ..., mail_id: _Optional[str] = ...) -> None: ...

class CancelReply(_message.Message):
    __slots__ = ("marked", "reason")
    MARKED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    marked: bool
    reason: str
    def __init__(self, marked: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...
