"""Mailboxes as SMTP speaks of them (RFC 5321 §4.1.2, RFC 6531 §3.3). One parser: policy and routing see the same address.

This file knows nothing of header syntax; `sternpost_mail.headers` reads From lines.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

MAX_LOCAL_OCTETS = 64
"""RFC 5321 §4.5.3.1.1."""
MAX_DOMAIN_OCTETS = 255
"""RFC 5321 §4.5.3.1.2."""
MAX_ADDRESS_OCTETS = 254
"""RFC 5321 §4.5.3.1.3 gives 256 for the path with its angle brackets."""
ADDRESS_CACHE = 8192
"""How many parsed addresses a process keeps: senders and recipients repeat, parsing is on the hot path."""

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-"
_DOT_STRING = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~\u0080-\U0010ffff]|\\[ -~])*"')
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\x80-\x9f\u2028\u2029\ud800-\udfff]")


class AddressError(ValueError):
    """An address that cannot be a mailbox; the text says what is wrong and is fit for a public reply."""


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox. `text` is what the client wrote (it goes on the wire), `domain` is lower case A-labels (it decides)."""

    text: str
    local: str
    domain: str

    @property
    def is_ascii(self) -> bool:
        """Whether the address can be sent without SMTPUTF8."""
        return self.text.isascii()

    @property
    def is_literal(self) -> bool:
        """Whether the domain is an address literal such as `[192.0.2.1]`."""
        return self.domain.startswith("[")


def parse_address(text: str, *, allow_bare_postmaster: bool = False) -> Address:
    """Read `local@domain` without angle brackets.

    Source routes, the percent hack's empty parts, control characters and unterminated quotes are refused with AddressError;
    a `%` or `!` inside the local part is just a character (nothing here ever rewrites it into a route).
    """
    return _parse(text, allow_bare_postmaster)


@lru_cache(maxsize=ADDRESS_CACHE)
def _parse(text: str, allow_bare_postmaster: bool) -> Address:
    if _FORBIDDEN.search(text):
        raise AddressError("address has a control character")
    if allow_bare_postmaster and text.lower() == "postmaster":
        return Address(text, text, "")
    if text.startswith("@"):
        raise AddressError("source routes are not accepted")
    if len(text.encode("utf-8", "surrogatepass")) > MAX_ADDRESS_OCTETS:
        raise AddressError(f"address is longer than {MAX_ADDRESS_OCTETS} octets")
    match = _QUOTED.match(text) if text.startswith('"') else _DOT_STRING.match(text)
    if match is None:
        raise AddressError("local part is not valid")
    local, rest = match.group(), text[match.end() :]
    if not rest.startswith("@"):
        raise AddressError("address has no domain" if not rest else "local part is not valid")
    if len(local.encode("utf-8", "surrogatepass")) > MAX_LOCAL_OCTETS:
        raise AddressError(f"local part is longer than {MAX_LOCAL_OCTETS} octets")
    return Address(text, local, parse_domain(rest[1:]))


def parse_domain(text: str) -> str:
    """A domain name or address literal in the form in which decisions compare it: lower case, IDNA A-labels.

    Raises AddressError. Literals are `[192.0.2.1]` and `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3).
    """
    if text.startswith("["):
        return _parse_literal(text)
    if text.endswith("."):
        raise AddressError("domain ends in a dot")
    if not text.isascii():
        try:
            text = text.encode("idna").decode("ascii")
        except UnicodeError as error:
            raise AddressError("domain is not a valid internationalized name") from error
    if not text or len(text) > MAX_DOMAIN_OCTETS:
        raise AddressError("domain is empty" if not text else f"domain is longer than {MAX_DOMAIN_OCTETS} octets")
    for label in text.split("."):
        if not _LABEL.fullmatch(label):
            raise AddressError("domain is not valid")
    return text.lower()


def _parse_literal(text: str) -> str:
    inner = text[1:-1]
    if not text.endswith("]"):
        raise AddressError("address literal is not closed")
    if "%" in inner:  # a zone, which Python's parser lets be any text at all
        raise AddressError("address literal is not valid")
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError as error:
        raise AddressError("address literal is not valid") from error
