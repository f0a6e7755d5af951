"""The resources of `sternpost.dev/v1alpha1` as their authors write them, and the Secrets they refer to.

One model per kind; a field exists only if it is obeyed. What can be said about one object alone is checked here; what
needs other objects, Secrets or the namespace's rights is the compiler's. The same models serve files and Kubernetes.
"""

import base64
import binascii
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from sternpost_mail.credentials import API_KEY_MARK, MAX_LOGIN_CHARS
from sternpost_mail.retry import DEFAULT_RETRY
from sternpost_mail.route import Action, TlsDemand, TlsMode
from sternpost_operator.fields import (
    MAX_DNS_NAMES,
    MAX_LIST,
    MAX_SMART_HOSTS,
    DnsName,
    DomainName,
    Duration,
    HostName,
    Mailbox,
    Moment,
    NamespaceName,
    Network,
    ObjectName,
    Pattern,
    RejectText,
    Tag,
)
from sternpost_operator.problems import ManifestError, Origin, Problem, problems_of

API_VERSION = "sternpost.dev/v1alpha1"
USE_LABEL = "sternpost.dev/use"
"""A Secret is read only where this label names the use that is made of it."""
MAX_SECRET_BYTES = 1024 * 1024
"""Kubernetes' own limit for a Secret."""


class SecretUse(StrEnum):
    """Values of the label `sternpost.dev/use`."""

    SMTP_AUTH = "smtp-auth"
    TLS = "tls"
    API_KEY = "api-key"


class _Model(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, alias_generator=to_camel, hide_input_in_errors=True
    )


_WRITTEN_BY_KUBERNETES = frozenset(
    {
        "uid", "resourceVersion", "generation", "managedFields", "finalizers", "ownerReferences", "selfLink",
        "generateName", "annotations", "deletionTimestamp", "deletionGracePeriodSeconds",
    }
)  # fmt: skip


class Metadata(_Model):
    """The part of Kubernetes' ObjectMeta that is read here; the fields that the API server adds are passed over."""

    name: ObjectName
    namespace: NamespaceName = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: Moment | None = None
    """Of two that want the same, the older one has it."""

    @model_validator(mode="before")
    @classmethod
    def _pass_over(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        kept = {key: item for key, item in value.items() if key not in _WRITTEN_BY_KUBERNETES}
        for absent in ("creationTimestamp", "labels"):
            if absent in kept and kept[absent] is None:  # as generated manifests write it
                del kept[absent]
        return kept


class _Resource(_Model):
    api_version: Literal["sternpost.dev/v1alpha1"]
    metadata: Metadata
    KIND: ClassVar[str]

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.metadata.namespace, self.metadata.name

    @property
    def subject(self) -> str:
        """How messages call the object."""
        return f"{self.KIND} {self.metadata.namespace}/{self.metadata.name}"


class SecretRef(_Model):
    """A Secret of the same namespace."""

    name: ObjectName


class DomainSpec(_Model):
    """A domain that this namespace may send as."""

    name: DomainName
    postmaster: Mailbox | None = None
    """Where mail for the domain's postmaster goes; without it to `postmaster@` the domain itself."""


class DomainManifest(_Resource):
    """Kind `Domain`."""

    KIND = "Domain"
    kind: Literal["Domain"]
    spec: DomainSpec


class MatchSpec(_Model):
    """What a rule looks at: all lists that are given must match, each by any of its entries."""

    senders: list[Pattern] = Field(default_factory=list, max_length=MAX_LIST)
    recipients: list[Pattern] = Field(default_factory=list, max_length=MAX_LIST)
    identities: list[ObjectName] = Field(default_factory=list, max_length=MAX_LIST)
    """Names of Credentials."""
    tags: list[Tag] = Field(default_factory=list, max_length=MAX_LIST)
    networks: list[Network] = Field(default_factory=list, max_length=MAX_LIST)


class SmartHostAuth(_Model):
    """The login at a smart host: a Secret with `username` and `password`, labelled `smtp-auth`."""

    secret_ref: SecretRef


class SmartHostSpec(_Model):
    """One next hop. Without `tls` its certificate must be valid; anything weaker is said in words."""

    host: HostName
    port: int = Field(default=25, ge=1, le=65535)
    tls: TlsDemand = Field(default=TlsDemand.VERIFIED, strict=False)
    tls_mode: TlsMode = Field(default=TlsMode.STARTTLS, strict=False)
    auth: SmartHostAuth | None = None

    @model_validator(mode="after")
    def _check(self) -> "SmartHostSpec":
        if self.auth is not None and self.tls is not TlsDemand.VERIFIED:
            raise ValueError("a login is only sent over verified TLS: remove auth, or set tls: Verified")
        if self.tls is TlsDemand.DISABLED and "tls_mode" in self.model_fields_set:
            raise ValueError("tlsMode has no meaning with tls: Disabled; remove one of them")
        if self.tls_mode is TlsMode.IMPLICIT and self.tls is TlsDemand.OPPORTUNISTIC:
            raise ValueError("tlsMode: Implicit always has TLS: set tls: Required or Verified")
        return self


class RetrySpec(_Model):
    """When a mail that could not be delivered is tried again, and for how long."""

    first: Duration = DEFAULT_RETRY.first
    factor: float = Field(default=DEFAULT_RETRY.factor, ge=1.0, le=100.0)
    longest: Duration = DEFAULT_RETRY.longest
    jitter: float = Field(default=DEFAULT_RETRY.jitter, ge=0.0, le=1.0)
    lifetime: Duration = DEFAULT_RETRY.lifetime
    delay_notice: Duration = DEFAULT_RETRY.delay_notice

    @model_validator(mode="after")
    def _check(self) -> "RetrySpec":
        if self.first <= 0 or self.lifetime <= 0:
            raise ValueError("first and lifetime must be longer than nothing")
        if self.longest < self.first:
            raise ValueError("longest must not be shorter than first")
        return self


class RelayRuleSpec(_Model):
    """Which way matched mail goes. Higher priority is tried first, then by name; the first match decides."""

    priority: int = Field(default=0, ge=-1_000_000, le=1_000_000)
    match: MatchSpec = Field(default_factory=MatchSpec)
    action: Action = Field(strict=False)
    smart_hosts: list[SmartHostSpec] = Field(default_factory=list, max_length=MAX_SMART_HOSTS)
    tls: TlsDemand = Field(default=TlsDemand.OPPORTUNISTIC, strict=False)
    max_sessions: int = Field(default=0, ge=0, le=10_000)
    retry: RetrySpec = Field(default_factory=RetrySpec)
    reject_text: RejectText = ""
    allow_private_addresses: bool = False
    """Lets smart hosts be loopback, private or link-local addresses; the administrator's right (release namespace)."""

    @model_validator(mode="after")
    def _check(self) -> "RelayRuleSpec":
        if (self.action is Action.SMART_HOST) != bool(self.smart_hosts):
            raise ValueError("smartHosts and action: SmartHost belong together; give both or neither")
        for action_fields, actions in _ONLY_WITH:
            for name in action_fields & self.model_fields_set:
                if self.action not in actions:
                    words = " or ".join(actions)
                    raise ValueError(f"{to_camel(name)} is obeyed only with action: {words}; remove it")
        return self


_ONLY_WITH: tuple[tuple[frozenset[str], tuple[Action, ...]], ...] = (
    (frozenset({"tls"}), (Action.DIRECT,)),
    (frozenset({"reject_text"}), (Action.REJECT,)),
    (frozenset({"allow_private_addresses"}), (Action.SMART_HOST,)),
    (frozenset({"max_sessions", "retry"}), (Action.DIRECT, Action.SMART_HOST)),
)
"""Fields that mean something for some actions only: elsewhere they would be silently without effect."""


class RelayRuleManifest(_Resource):
    """Kind `RelayRule`."""

    KIND = "RelayRule"
    kind: Literal["RelayRule"]
    spec: RelayRuleSpec


class SelfSigned(_Model):
    """No fields: `selfSigned: {}`."""


class TLSCertificateSpec(_Model):
    """A certificate for the doors: from a Secret (`tls.crt`, `tls.key`, labelled `tls`), or made and renewed here."""

    dns_names: list[DnsName] = Field(min_length=1, max_length=MAX_DNS_NAMES)
    secret_ref: SecretRef | None = None
    self_signed: SelfSigned | None = None

    @model_validator(mode="after")
    def _check(self) -> "TLSCertificateSpec":
        if (self.secret_ref is None) == (self.self_signed is None):
            raise ValueError("needs exactly one of secretRef and selfSigned")
        return self


class TLSCertificateManifest(_Resource):
    """Kind `TLSCertificate`."""

    KIND = "TLSCertificate"
    kind: Literal["TLSCertificate"]
    spec: TLSCertificateSpec


class CredentialType(StrEnum):
    """How a client proves who it is."""

    SMTP_PASSWORD = "SMTPPassword"  # noqa: S105 - the name of a type, not a password
    API_KEY = "APIKey"


class LaneName(StrEnum):
    """Priority classes as manifests write them."""

    EXPRESS = "Express"
    NORMAL = "Normal"
    BULK = "Bulk"


Username = Annotated[str, Field(pattern=rf"^[A-Za-z0-9._@+-]{{1,{MAX_LOGIN_CHARS}}}$")]


class CredentialSpec(_Model):
    """Who may submit, as whom. The secret is given (`secretRef`) or generated into a new one (`writeSecretTo`)."""

    type: CredentialType = Field(strict=False)
    username: Username | None = None
    secret_ref: SecretRef | None = None
    write_secret_to: SecretRef | None = None
    allowed_senders: list[Pattern] = Field(default_factory=list, max_length=MAX_LIST)
    """None means every domain that the namespace declares."""
    lane: LaneName = Field(default=LaneName.NORMAL, strict=False)

    @model_validator(mode="after")
    def _check(self) -> "CredentialSpec":
        if (self.type is CredentialType.SMTP_PASSWORD) != (self.username is not None):
            raise ValueError("username is required with type: SMTPPassword and has no meaning with type: APIKey")
        if self.username and self.username.startswith(API_KEY_MARK):
            raise ValueError(f"username must not begin with {API_KEY_MARK}: that marks API keys")
        if (self.secret_ref is None) == (self.write_secret_to is None):
            raise ValueError("needs exactly one of secretRef (given) and writeSecretTo (generated)")
        return self

    @property
    def secret_name(self) -> str:
        """The Secret that holds it, given or generated."""
        reference = self.secret_ref or self.write_secret_to
        return reference.name if reference else ""


class CredentialManifest(_Resource):
    """Kind `Credential`."""

    KIND = "Credential"
    kind: Literal["Credential"]
    spec: CredentialSpec


class SecretManifest(_Resource):
    """A plain Kubernetes `v1` Secret. Its values never appear in a message; `repr` shows the names of keys only."""

    KIND = "Secret"
    api_version: Literal["v1"]  # type: ignore[assignment]  # the one kind that is not of our group
    kind: Literal["Secret"]
    type: str = "Opaque"
    immutable: bool = False
    data: dict[str, str] = Field(default_factory=dict, repr=False)
    string_data: dict[str, str] = Field(default_factory=dict, repr=False)

    @field_validator("data")
    @classmethod
    def _is_base64(cls, data: dict[str, str]) -> dict[str, str]:
        for key, value in data.items():
            try:
                base64.b64decode("".join(value.split()), validate=True)
            except (binascii.Error, ValueError) as error:
                raise ValueError(f"{key} is not base64; plain text belongs into stringData") from error
        return data

    @model_validator(mode="after")
    def _is_small(self) -> "SecretManifest":
        if sum(map(len, [*self.data.values(), *self.string_data.values()])) > 2 * MAX_SECRET_BYTES:
            raise ValueError("is larger than a Secret may be")
        return self

    @property
    def use(self) -> str:
        """The value of the label `sternpost.dev/use`, empty where there is none."""
        return self.metadata.labels.get(USE_LABEL, "")

    def values(self) -> dict[str, bytes]:
        """The decoded values; `stringData` wins over `data`, as in Kubernetes."""
        decoded = {key: base64.b64decode("".join(value.split())) for key, value in self.data.items()}
        return decoded | {key: value.encode() for key, value in self.string_data.items()}


Manifest = DomainManifest | RelayRuleManifest | TLSCertificateManifest | CredentialManifest | SecretManifest

_KINDS: dict[tuple[str, str], type[Manifest]] = {
    ("v1", "Secret"): SecretManifest,
    **{
        (API_VERSION, model.KIND): model
        for model in (DomainManifest, RelayRuleManifest, TLSCertificateManifest, CredentialManifest)
    },
}


def parse_manifest(content: object, origin: Origin) -> Manifest:
    """One object from its parsed YAML or JSON. `status` is passed over. Raises ManifestError with all problems."""
    if not isinstance(content, dict):
        raise ManifestError(
            [Problem(origin, "", "", "is not a Kubernetes object: it must be a mapping with apiVersion and kind")]
        )
    version, kind = str(content.get("apiVersion", "")), str(content.get("kind", ""))
    model = _KINDS.get((version, kind))
    if model is None:
        known = ", ".join(sorted(f"{known_version} {known_kind}" for known_version, known_kind in _KINDS))
        raise ManifestError([Problem(origin, "", "kind", f"apiVersion and kind must be one of: {known}")])
    body: dict[Any, Any] = {key: value for key, value in content.items() if key != "status"}
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise ManifestError(problems_of(error, origin, f"{kind} {_called(body)}")) from error


def _called(body: dict[Any, Any]) -> str:
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        return "without a name"
    return f"{metadata.get('namespace', 'default')}/{metadata.get('name', '(no name)')}"[:320]
