"""The types of single fields in manifests: durations, names, patterns. Each refuses with a text that says what to do.

Values come out in the form in which decisions compare them (lower case, A-labels), never as they were typed.
"""

import ipaddress
import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from sternpost_mail.address import AddressError, parse_address, parse_domain

MAX_LIST = 1_000
"""Entries of one list in one object."""
MAX_DNS_NAMES = 100
"""Names of one certificate; public authorities stop at 100 too."""
MAX_SMART_HOSTS = 32
MAX_REJECT_TEXT = 400
"""Characters: with code and enhanced code it stays inside SMTP's 512 octets (RFC 5321 §4.5.3.1.5)."""

_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:h|ms|m|s))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_TAG = re.compile(r"[!-~]{1,128}")
_PRINTABLE = re.compile(r"[ -~]*")


def parse_duration(value: object) -> float:
    """Seconds of a duration as Go writes it: `90s`, `1h30m`, `1.5h`, `250ms`. Raises ValueError."""
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError("must be a duration with units, such as 30s, 5m or 1h30m")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(value))


def parse_pattern(text: str) -> str:
    """An address, a domain, or `.domain` for it and all below, as `sternpost_mail.route.address_matches` reads it."""
    try:
        if "@" in text:
            address = parse_address(text)
            return f"{address.local.lower()}@{address.domain}"
        return "." + parse_domain(text[1:]) if text.startswith(".") else parse_domain(text)
    except AddressError as error:
        raise ValueError(f"must be user@example.com, example.com or .example.com ({error})") from error


def _domain(text: str) -> str:
    try:
        domain = parse_domain(text)
    except AddressError as error:
        raise ValueError(f"must be a domain name such as example.com ({error})") from error
    if domain.startswith("["):
        raise ValueError("must be a domain name, not an address literal")
    return domain


def _mailbox(text: str) -> str:
    try:
        return parse_address(text).text
    except AddressError as error:
        raise ValueError(f"must be a mailbox such as postmaster@example.com ({error})") from error


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError("must be a network such as 10.1.0.0/16 or 2001:db8::/32, without host bits") from error


def _host(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return _domain(text)


def _dns_name(text: str) -> str:
    return "*." + _domain(text[2:]) if text.startswith("*.") else _domain(text)


def _tag(text: str) -> str:
    if not _TAG.fullmatch(text):
        raise ValueError("must be 1 to 128 visible ASCII characters")
    return text


def _reject_text(text: str) -> str:
    if not _PRINTABLE.fullmatch(text):
        raise ValueError("must be printable ASCII on one line: it goes into an SMTP reply")
    return text


def _moment(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds, written as a Go duration."""
ObjectName = Annotated[
    str, StringConstraints(max_length=253, pattern=rf"^{_DNS_LABEL}(?:\.{_DNS_LABEL})*$", strict=True)
]
"""RFC 1123 subdomain, as Kubernetes wants names."""
NamespaceName = Annotated[str, StringConstraints(pattern=rf"^{_DNS_LABEL}$", strict=True)]
"""RFC 1123 label."""
DomainName = Annotated[str, AfterValidator(_domain)]
DnsName = Annotated[str, AfterValidator(_dns_name)]
"""A domain name, its first label perhaps `*`."""
HostName = Annotated[str, AfterValidator(_host)]
"""A domain name or an IP address."""
Mailbox = Annotated[str, AfterValidator(_mailbox)]
Pattern = Annotated[str, AfterValidator(parse_pattern)]
Network = Annotated[str, AfterValidator(_network)]
Tag = Annotated[str, AfterValidator(_tag)]
RejectText = Annotated[str, Field(max_length=MAX_REJECT_TEXT), AfterValidator(_reject_text)]
Moment = Annotated[datetime, Field(strict=False), AfterValidator(_moment)]
"""A time with zone, UTC where none is given."""
