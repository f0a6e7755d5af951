# mypy: disable-error-code="type-arg"
# (protoc writes a bare Mapping for every message parameter)
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Domain(_message.Message):
    __slots__ = ("tenant", "name", "domain", "postmaster")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    POSTMASTER_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    name: str
    domain: str
    postmaster: str
    def __init__(self, tenant: _Optional[str] = ..., name: _Optional[str] = ..., domain: _Optional[str] = ..., postmaster: _Optional[str] = ...) -> None: ...

class SmartHost(_message.Message):
    __slots__ = ("host", "port", "tls", "tls_mode", "username", "sealed_password")
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    TLS_MODE_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    SEALED_PASSWORD_FIELD_NUMBER: _ClassVar[int]
    host: str
    port: int
    tls: str
    tls_mode: str
    username: str
    sealed_password: bytes
    def __init__(self, host: _Optional[str] = ..., port: _Optional[int] = ..., tls: _Optional[str] = ..., tls_mode: _Optional[str] = ..., username: _Optional[str] = ..., sealed_password: _Optional[bytes] = ...) -> None: ...

class Match(_message.Message):
    __slots__ = ("senders", "recipients", "identities", "tags", "networks")
    SENDERS_FIELD_NUMBER: _ClassVar[int]
    RECIPIENTS_FIELD_NUMBER: _ClassVar[int]
    IDENTITIES_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    senders: _containers.RepeatedScalarFieldContainer[str]
    recipients: _containers.RepeatedScalarFieldContainer[str]
    identities: _containers.RepeatedScalarFieldContainer[str]
    tags: _containers.RepeatedScalarFieldContainer[str]
    networks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, senders: _Optional[_Iterable[str]] = ..., recipients: _Optional[_Iterable[str]] = ..., identities: _Optional[_Iterable[str]] = ..., tags: _Optional[_Iterable[str]] = ..., networks: _Optional[_Iterable[str]] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("first", "factor", "longest", "jitter", "lifetime", "delay_notice")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    FACTOR_FIELD_NUMBER: _ClassVar[int]
    LONGEST_FIELD_NUMBER: _ClassVar[int]
    JITTER_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_FIELD_NUMBER: _ClassVar[int]
    DELAY_NOTICE_FIELD_NUMBER: _ClassVar[int]
    first: float
    factor: float
    longest: float
    jitter: float
    lifetime: float
    delay_notice: float
    def __init__(self, first: _Optional[float] = ..., factor: _Optional[float] = ..., longest: _Optional[float] = ..., jitter: _Optional[float] = ..., lifetime: _Optional[float] = ..., delay_notice: _Optional[float] = ...) -> None: ...

class RelayRule(_message.Message):
    __slots__ = ("tenant", "name", "priority", "match", "action", "smart_hosts", "tls", "max_sessions", "retry", "reject_text", "allow_forbidden_addresses")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    MATCH_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    SMART_HOSTS_FIELD_NUMBER: _ClassVar[int]
    TLS_FIELD_NUMBER: _ClassVar[int]
    MAX_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    REJECT_TEXT_FIELD_NUMBER: _ClassVar[int]
    ALLOW_FORBIDDEN_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    name: str
    priority: int
    match: Match
    action: str
    smart_hosts: _containers.RepeatedCompositeFieldContainer[SmartHost]
    tls: str
    max_sessions: int
    retry: RetryPolicy
    reject_text: str
    allow_forbidden_addresses: bool
    def __init__(self, tenant: _Optional[str] = ..., name: _Optional[str] = ..., priority: _Optional[int] = ..., match: _Optional[_Union[Match, _Mapping]] = ..., action: _Optional[str] = ..., smart_hosts: _Optional[_Iterable[_Union[SmartHost, _Mapping]]] = ..., tls: _Optional[str] = ..., max_sessions: _Optional[int] = ..., retry: _Optional[_Union[RetryPolicy, _Mapping]] = ..., reject_text: _Optional[str] = ..., allow_forbidden_addresses: _Optional[bool] = ...) -> None: ...

class Credential(_message.Message):
    __slots__ = ("tenant", "name", "kind", "login", "secret_hash", "allowed_senders", "lane")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LOGIN_FIELD_NUMBER: _ClassVar[int]
    SECRET_HASH_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_SENDERS_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    name: str
    kind: str
    login: str
    secret_hash: str
    allowed_senders: _containers.RepeatedScalarFieldContainer[str]
    lane: str
    def __init__(self, tenant: _Optional[str] = ..., name: _Optional[str] = ..., kind: _Optional[str] = ..., login: _Optional[str] = ..., secret_hash: _Optional[str] = ..., allowed_senders: _Optional[_Iterable[str]] = ..., lane: _Optional[str] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("tenant", "name", "names", "chain_pem", "sealed_key_pem")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    SEALED_KEY_PEM_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    name: str
    names: _containers.RepeatedScalarFieldContainer[str]
    chain_pem: bytes
    sealed_key_pem: bytes
    def __init__(self, tenant: _Optional[str] = ..., name: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., chain_pem: _Optional[bytes] = ..., sealed_key_pem: _Optional[bytes] = ...) -> None: ...

class Generation(_message.Message):
    __slots__ = ("number", "resources")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    number: int
    resources: int
    def __init__(self, number: _Optional[int] = ..., resources: _Optional[int] = ...) -> None: ...

class ConfigEntry(_message.Message):
    __slots__ = ("domain", "relay_rule", "credential", "certificate", "generation")
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    RELAY_RULE_FIELD_NUMBER: _ClassVar[int]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    domain: Domain
    relay_rule: RelayRule
    credential: Credential
    certificate: Certificate
    generation: Generation
    def __init__(self, domain: _Optional[_Union[Domain, _Mapping]] = ..., relay_rule: _Optional[_Union[RelayRule, _Mapping]] = ..., credential: _Optional[_Union[Credential, _Mapping]] = ..., certificate: _Optional[_Union[Certificate, _Mapping]] = ..., generation: _Optional[_Union[Generation, _Mapping]] = ...) -> None: ...
