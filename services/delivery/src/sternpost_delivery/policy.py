"""Which hosts a route tries, what TLS each must have, when AUTH may be said and what a hop cannot carry. Pure.

It sees names, addresses and EHLO keywords as values; it never resolves, connects or waits.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from sternpost_mail.dispatch import Job, Route
from sternpost_mail.outcome import PermanentFailure
from sternpost_mail.reply import Reply
from sternpost_mail.route import TlsDemand, TlsMode

SMTP_PORT = 25

_IPv4 = ipaddress.IPv4Address
_IPv6 = ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_TEREDO = ipaddress.IPv6Network("2001::/32")
_V4_COMPATIBLE = ipaddress.IPv6Network("::/96")
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One host that may be tried, and what a connection to it must have."""

    host: str
    port: int
    tls: TlsDemand
    implicit_tls: bool = False
    username: str = ""
    sealed_password: bytes = field(default=b"", repr=False)


def endpoints(route: Route, mx_hosts: Sequence[str], *, smtp_port: int = SMTP_PORT) -> tuple[Endpoint, ...]:
    """The hosts to try in order: the rule's smart hosts, else the mail exchangers as they were sorted."""
    if route.smart_hosts:
        return tuple(
            Endpoint(
                host=hop.host,
                port=hop.port,
                tls=hop.tls,
                implicit_tls=hop.tls_mode is TlsMode.IMPLICIT and hop.tls is not TlsDemand.DISABLED,
                username=hop.username,
                sealed_password=hop.sealed_password,
            )
            for hop in route.smart_hosts
        )
    return tuple(Endpoint(host=host, port=smtp_port, tls=route.tls) for host in mx_hosts)


class TlsStep(Enum):
    """What to do about TLS after EHLO on a connection in clear text."""

    START = auto()
    STAY_CLEAR = auto()
    REFUSE = auto()


def tls_step(demand: TlsDemand, *, offered: bool, failed_before: bool = False) -> TlsStep:
    """`failed_before`: an earlier handshake with this host failed; only Opportunistic then ever stays clear."""
    if demand is TlsDemand.DISABLED:
        return TlsStep.STAY_CLEAR
    if demand is TlsDemand.OPPORTUNISTIC:
        return TlsStep.START if offered and not failed_before else TlsStep.STAY_CLEAR
    return TlsStep.START if offered else TlsStep.REFUSE


def may_fall_back_to_clear(endpoint: Endpoint) -> bool:
    """Whether a failed TLS handshake may be followed by clear text (promise P6)."""
    return endpoint.tls is TlsDemand.OPPORTUNISTIC and not endpoint.implicit_tls and not endpoint.username


def needs_verified(endpoint: Endpoint) -> bool:
    """Whether the certificate must be valid for the host's name: where demanded, and where a password is to be told."""
    return endpoint.tls is TlsDemand.VERIFIED


def auth_mechanism(offered: str) -> str:
    """`PLAIN` or `LOGIN` of the mechanisms in an EHLO line's value, empty where there is neither."""
    mechanisms = offered.upper().split()
    return next((name for name in ("PLAIN", "LOGIN") if name in mechanisms), "")


def refuse_mail(job: Job, content: bytes, extensions: Mapping[str, str]) -> PermanentFailure | None:
    """Why this hop cannot carry this mail, or None. A mail is never rewritten to fit (promise P5).

    RFC 6152 §3 (8BITMIME), RFC 6531 §3.2 (SMTPUTF8), RFC 1870 §6 (SIZE). A mail that declared an extension it does not
    use passes: what counts is what would be on the wire.
    """
    limit = extensions.get("SIZE", "")
    if limit.isdigit() and 0 < int(limit) < job.size:
        return _refusal(552, "5.3.4", f"the next hop takes at most {int(limit)} octets, the message has {job.size}")
    if job.smtputf8 and "SMTPUTF8" not in extensions and needs_utf8(job, content):
        return _refusal(553, "5.6.7", "the next hop does not take internationalized addresses or headers (SMTPUTF8)")
    if job.eight_bit and "8BITMIME" not in extensions and not content.isascii():
        return _refusal(554, "5.6.3", "the next hop does not take 8-bit content (8BITMIME)")
    return None


def needs_utf8(job: Job, content: bytes) -> bool:
    """Whether an address or the header section has octets above 127."""
    if not job.sender.isascii() or not all(recipient.address.isascii() for recipient in job.recipients):
        return True
    header, _, _ = content.partition(b"\r\n\r\n")
    return not header.isascii()


def _refusal(code: int, enhanced: str, text: str) -> PermanentFailure:
    return PermanentFailure(Reply(code, enhanced, text))


def is_forbidden(address: str) -> bool:
    """Whether no tenant's mail may make us connect there (promise P4): everything that is not a public unicast address.

    Addresses that carry an IPv4 address inside (mapped, compatible, 6to4, Teredo, NAT64) are judged by that one too.
    A text that is no address is forbidden.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return True
    if _is_special(parsed):
        return True
    return isinstance(parsed, _IPv6) and any(_is_special(inner) for inner in _embedded(parsed))


def _is_special(address: _IPv4 | _IPv6) -> bool:
    if isinstance(address, _IPv6):
        if address.ipv4_mapped is not None or address in _NAT64 or address in _SIX_TO_FOUR or address in _TEREDO:
            return False  # judged by the address inside
        if address.is_site_local or address in _NAT64_LOCAL:
            return True
    elif address in _SHARED:
        return True
    return (
        address.is_loopback
        or address.is_private
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    )


def _embedded(address: _IPv6) -> list[_IPv4]:
    number = int(address)
    found: list[_IPv4] = []
    if address.ipv4_mapped is not None:
        found.append(address.ipv4_mapped)
    if address in _NAT64 or address in _V4_COMPATIBLE:
        found.append(_IPv4(number & 0xFFFFFFFF))
    if address in _SIX_TO_FOUR:
        found.append(_IPv4(number >> 80 & 0xFFFFFFFF))
    if address.teredo is not None:
        found.extend(address.teredo)
    return found
