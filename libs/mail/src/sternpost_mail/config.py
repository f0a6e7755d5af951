"""Configuration as services see it: what the compiler of manifests writes into CONFIG and every service watches."""

from dataclasses import dataclass
from enum import StrEnum

from sternpost_mail.envelope import Lane
from sternpost_mail.route import RelayRule


@dataclass(frozen=True, slots=True)
class Domain:
    """A declared domain: its tenant may send as it, and its postmaster always gets mail."""

    tenant: str
    name: str
    domain: str
    """The domain's name in lower-case A-labels."""
    postmaster: str = ""
    """Where mail for postmaster of this domain goes; empty: to `postmaster@` the domain itself."""


class CredentialKind(StrEnum):
    """How a client proves who it is."""

    SMTP_PASSWORD = "SMTPPassword"  # noqa: S105 - the name of a kind, not a password
    API_KEY = "APIKey"


@dataclass(frozen=True, slots=True)
class Credential:
    """Who may submit. Only hashes are here: argon2id for a password, SHA-256 for an API key (it has 256 random bits)."""

    tenant: str
    name: str
    kind: CredentialKind
    login: str
    """SMTP user name, or the public prefix of the API key."""
    secret_hash: str
    allowed_senders: tuple[str, ...] = ()
    """Patterns as in a RelayRule; empty means every domain that the tenant declared."""
    lane: Lane = Lane.NORMAL


@dataclass(frozen=True, slots=True)
class Certificate:
    """A TLS certificate for the doors. `names` are DNS names for SNI; the first certificate by name is the default."""

    tenant: str
    name: str
    names: tuple[str, ...]
    chain_pem: bytes
    sealed_key_pem: bytes
    """The private key, sealed to the ingress service's key."""


Resource = Domain | RelayRule | Credential | Certificate


@dataclass(frozen=True, slots=True)
class Generation:
    """Written last by the compiler: the set of resources is complete. Until one is seen, doors answer 451."""

    number: int
    resources: int
    """How many resources the generation has, so that a reader can tell a partial read."""
