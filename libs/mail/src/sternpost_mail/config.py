"""Configuration as services see it: what the compiler of manifests writes into CONFIG and every service watches."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sternpost_mail.envelope import Lane
from sternpost_mail.route import RelayRule, order_rules


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


def seal_context_certificate(tenant: str, name: str) -> str:
    """What a certificate's private key is sealed together with: it opens only as the key of this certificate."""
    return f"tls/{tenant}/{name}"


Resource = Domain | RelayRule | Credential | Certificate


@dataclass(frozen=True, slots=True)
class Generation:
    """Written last by the compiler: the set of resources is complete. Until one is seen, doors answer 451."""

    number: int
    resources: int
    """How many resources the generation has, so that a reader can tell a partial read."""


@dataclass(frozen=True, slots=True)
class Config:
    """One consistent view of the configuration. Built once per change, read on every mail: lookups are dictionaries."""

    generation: int
    """0 until a complete generation was seen."""
    domains: Mapping[str, Domain]
    """By domain name."""
    rules: Mapping[str, tuple[RelayRule, ...]]
    """By tenant, in the order in which they are tried."""
    credentials: Mapping[str, Credential]
    """By login."""
    certificates: tuple[Certificate, ...]
    """Of the release namespace, in the order of their names."""
    network_rules: tuple[RelayRule, ...]
    """The release namespace's rules that name networks: they alone open the MX door to a relay."""

    @property
    def is_complete(self) -> bool:
        """Whether the doors may decide by it; until then they answer 451 or 503."""
        return self.generation > 0

    def tenant_of(self, domain: str) -> str:
        """The namespace that declared the domain, empty where nobody did."""
        found = self.domains.get(domain)
        return found.tenant if found else ""

    def rules_of(self, tenant: str) -> tuple[RelayRule, ...]:
        """The tenant's relay rules in order."""
        return self.rules.get(tenant, ())


def build_config(resources: Iterable[Resource], generation: int, release_namespace: str) -> Config:
    """The view of a set of resources.

    Two tenants that declare one domain never both get it: the compiler decides who was first, so a conflict that still
    arrives here is settled by tenant name, stable over restarts. Rules and certificates for shared doors count in the
    release namespace only.
    """
    domains: dict[str, Domain] = {}
    rules: dict[str, list[RelayRule]] = {}
    credentials: dict[str, Credential] = {}
    certificates: list[Certificate] = []
    for resource in sorted(resources, key=lambda item: (item.tenant, item.name)):
        match resource:
            case Domain():
                domains.setdefault(resource.domain, resource)
            case RelayRule():
                rules.setdefault(resource.tenant, []).append(resource)
            case Credential():
                credentials.setdefault(resource.login, resource)
            case Certificate() if resource.tenant == release_namespace:
                certificates.append(resource)
            case Certificate():
                pass  # another tenant's: never presented by the shared doors
    ordered = {tenant: order_rules(found) for tenant, found in rules.items()}
    return Config(
        generation=generation,
        domains=domains,
        rules=ordered,
        credentials=credentials,
        certificates=tuple(certificates),
        network_rules=tuple(rule for rule in ordered.get(release_namespace, ()) if rule.match.networks),
    )


EMPTY_CONFIG = build_config((), 0, "")
"""What a process has before it heard anything."""
