# mypy: disable-error-code="type-arg"
# (protoc writes a bare Mapping for every message parameter)
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Recipient(_message.Message):
    __slots__ = ("address", "notify", "orcpt")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_FIELD_NUMBER: _ClassVar[int]
    ORCPT_FIELD_NUMBER: _ClassVar[int]
    address: str
    notify: int
    orcpt: str
    def __init__(self, address: _Optional[str] = ..., notify: _Optional[int] = ..., orcpt: _Optional[str] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("sender", "recipients", "ret", "envid", "eight_bit", "smtputf8")
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    RET_FIELD_NUMBER: _ClassVar[int]
    ENVID_FIELD_NUMBER: _ClassVar[int]
    EIGHT_BIT_FIELD_NUMBER: _ClassVar[int]
    SMTPUTF8_FIELD_NUMBER: _ClassVar[int]
    sender: str
    recipients: _containers.RepeatedCompositeFieldContainer[Recipient]
    ret: str
    envid: str
    eight_bit: bool
    smtputf8: bool
    def __init__(self, sender: _Optional[str] = ..., recipients: _Optional[_Iterable[_Union[Recipient, _Mapping]]] = ..., ret: _Optional[str] = ..., envid: _Optional[str] = ..., eight_bit: _Optional[bool] = ..., smtputf8: _Optional[bool] = ...) -> None: ...

class Pair(_message.Message):
    __slots__ = ("key", "value")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Facts(_message.Message):
    __slots__ = ("door", "client", "header_from", "message_id", "subject", "metadata", "recipients")
    DOOR_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    HEADER_FROM_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    door: str
    client: str
    header_from: str
    message_id: str
    subject: str
    metadata: _containers.RepeatedCompositeFieldContainer[Pair]
    recipients: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, door: _Optional[str] = ..., client: _Optional[str] = ..., header_from: _Optional[str] = ..., message_id: _Optional[str] = ..., subject: _Optional[str] = ..., metadata: _Optional[_Iterable[_Union[Pair, _Mapping]]] = ..., recipients: _Optional[_Iterable[str]] = ...) -> None: ...

class Mail(_message.Message):
    __slots__ = ("id", "tenant", "lane", "envelope", "size", "content", "content_ref", "accepted_ms", "expires_ms", "not_before_ms", "identity", "tags", "traceparent", "facts")
    ID_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    CONTENT_REF_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    tenant: str
    lane: str
    envelope: Envelope
    size: int
    content: bytes
    content_ref: str
    accepted_ms: int
    expires_ms: int
    not_before_ms: int
    identity: str
    tags: _containers.RepeatedScalarFieldContainer[str]
    traceparent: str
    facts: bytes
    def __init__(self, id: _Optional[str] = ..., tenant: _Optional[str] = ..., lane: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., size: _Optional[int] = ..., content: _Optional[bytes] = ..., content_ref: _Optional[str] = ..., accepted_ms: _Optional[int] = ..., expires_ms: _Optional[int] = ..., not_before_ms: _Optional[int] = ..., identity: _Optional[str] = ..., tags: _Optional[_Iterable[str]] = ..., traceparent: _Optional[str] = ..., facts: _Optional[bytes] = ...) -> None: ...

class SpoolRecord(_message.Message):
    __slots__ = ("id", "mails")
    ID_FIELD_NUMBER: _ClassVar[int]
    MAILS_FIELD_NUMBER: _ClassVar[int]
    id: str
    mails: _containers.RepeatedCompositeFieldContainer[Mail]
    def __init__(self, id: _Optional[str] = ..., mails: _Optional[_Iterable[_Union[Mail, _Mapping]]] = ...) -> None: ...

class DeferredMail(_message.Message):
    __slots__ = ("mail", "record_id", "open_recipients", "attempts", "delay_reported", "last_reply")
    MAIL_FIELD_NUMBER: _ClassVar[int]
    RECORD_ID_FIELD_NUMBER: _ClassVar[int]
    OPEN_RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    DELAY_REPORTED_FIELD_NUMBER: _ClassVar[int]
    LAST_REPLY_FIELD_NUMBER: _ClassVar[int]
    mail: Mail
    record_id: str
    open_recipients: _containers.RepeatedScalarFieldContainer[int]
    attempts: int
    delay_reported: bool
    last_reply: str
    def __init__(self, mail: _Optional[_Union[Mail, _Mapping]] = ..., record_id: _Optional[str] = ..., open_recipients: _Optional[_Iterable[int]] = ..., attempts: _Optional[int] = ..., delay_reported: _Optional[bool] = ..., last_reply: _Optional[str] = ...) -> None: ...

class DeferRecord(_message.Message):
    __slots__ = ("id", "site", "mails")
    ID_FIELD_NUMBER: _ClassVar[int]
    SITE_FIELD_NUMBER: _ClassVar[int]
    MAILS_FIELD_NUMBER: _ClassVar[int]
    id: str
    site: str
    mails: _containers.RepeatedCompositeFieldContainer[DeferredMail]
    def __init__(self, id: _Optional[str] = ..., site: _Optional[str] = ..., mails: _Optional[_Iterable[_Union[DeferredMail, _Mapping]]] = ...) -> None: ...

class HeldRecord(_message.Message):
    __slots__ = ("id", "reason", "origin_subject", "held_ms", "record")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_SUBJECT_FIELD_NUMBER: _ClassVar[int]
    HELD_MS_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    origin_subject: str
    held_ms: int
    record: bytes
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ..., origin_subject: _Optional[str] = ..., held_ms: _Optional[int] = ..., record: _Optional[bytes] = ...) -> None: ...
