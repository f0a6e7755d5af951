"""Which way a mail goes: relay rules, their match and the routes they give. Doors and queue decide by the same function."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from sternpost_mail.retry import DEFAULT_RETRY, RetryPolicy


class Action(StrEnum):
    """What a rule does with the recipients it matches."""

    DIRECT = "Direct"
    SMART_HOST = "SmartHost"
    REJECT = "Reject"
    HOLD = "Hold"
    DISCARD = "Discard"


class TlsDemand(StrEnum):
    """How much TLS a route demands of the next hop."""

    DISABLED = "Disabled"
    OPPORTUNISTIC = "Opportunistic"
    """STARTTLS where offered, the certificate is not checked, clear text where the handshake fails."""
    REQUIRED = "Required"
    """TLS or no mail; the certificate is not checked."""
    VERIFIED = "Verified"
    """TLS with a certificate that is valid for the host's name, or no mail."""


class TlsMode(StrEnum):
    """How TLS starts on a connection to a smart host."""

    STARTTLS = "StartTLS"
    IMPLICIT = "Implicit"


@dataclass(frozen=True, slots=True)
class SmartHost:
    """One next hop of a rule. AUTH is done only over verified TLS (promise P6)."""

    host: str
    port: int = 25
    tls: TlsDemand = TlsDemand.VERIFIED
    tls_mode: TlsMode = TlsMode.STARTTLS
    username: str = ""
    sealed_password: bytes = b""
    """Sealed to the delivery service's key; only it can open it."""


def seal_context_smart_host(host: SmartHost) -> str:
    """What a smart host's password is sealed together with: it opens only for the host, port and user it was meant for."""
    return f"smarthost/{host.host}:{host.port}/{host.username}"


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule looks at. An empty tuple matches everything; all that are given must match (AND), each by any (OR).

    `senders` and `recipients` hold an address, a domain (`example.com`) or a domain with its subdomains (`.example.com`).
    """

    senders: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RelayRule:
    """A compiled relay rule. Rules are tried by `priority` (higher first), then by name; the first match decides."""

    tenant: str
    name: str
    priority: int
    match: Match
    action: Action
    smart_hosts: tuple[SmartHost, ...] = ()
    tls: TlsDemand = TlsDemand.OPPORTUNISTIC
    """For direct delivery; a smart host says its own."""
    max_sessions: int = 0
    """Concurrent sessions to one site, 0 for the default."""
    retry: RetryPolicy = DEFAULT_RETRY
    reject_text: str = ""
    allow_forbidden_addresses: bool = False
    """The administrator lets this rule's smart hosts be loopback, private or link-local addresses (P4)."""


@dataclass(frozen=True, slots=True)
class MailTraits:
    """The traits of a mail and one of its recipients that rules match."""

    sender: str
    recipient: str
    identity: str = ""
    tags: tuple[str, ...] = ()
    client: str = ""


def find_rule(rules: Sequence[RelayRule], traits: MailTraits) -> RelayRule | None:
    """The first rule that matches, of rules already in order (`order_rules`); None means direct delivery by default."""
    for rule in rules:
        if matches(rule.match, traits):
            return rule
    return None


def order_rules(rules: Sequence[RelayRule]) -> tuple[RelayRule, ...]:
    """The rules in the order in which they are tried."""
    return tuple(sorted(rules, key=lambda rule: (-rule.priority, rule.name)))


def matches(match: Match, traits: MailTraits) -> bool:
    """Whether every trait that the match names agrees."""
    return (
        (not match.recipients or address_matches(match.recipients, traits.recipient))
        and (not match.senders or address_matches(match.senders, traits.sender))
        and (not match.identities or traits.identity in match.identities)
        and (not match.tags or not set(match.tags).isdisjoint(traits.tags))
        and (not match.networks or in_networks(match.networks, traits.client))
    )


def address_matches(patterns: tuple[str, ...], address: str) -> bool:
    """Whether an address fits one of the patterns: an address, a domain, or `.domain` for it and all below it.

    Local parts compare without regard to case: a policy that a capital letter evades is none.
    """
    address = address.lower()
    domain = address.rpartition("@")[2]
    for pattern in patterns:
        if "@" in pattern:
            if address == pattern:
                return True
        elif pattern.startswith("."):
            if domain == pattern[1:] or domain.endswith(pattern):
                return True
        elif domain == pattern:
            return True
    return False


@lru_cache(maxsize=1024)
def _networks(cidrs: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(cidr) for cidr in cidrs)


@lru_cache(maxsize=8192)
def in_networks(cidrs: tuple[str, ...], client: str) -> bool:
    """Whether an IP address lies in one of the networks; an IPv4-mapped IPv6 address counts as its IPv4 address.

    Remembered per address: clients repeat, and parsing an address costs more than the rest of a rule.
    """
    if not client:
        return False
    address = ipaddress.ip_address(client)
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return any(address in network for network in _networks(cidrs))
