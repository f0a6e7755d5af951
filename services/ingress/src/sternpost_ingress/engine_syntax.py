"""The syntax of MAIL, RCPT, EHLO and BDAT (RFC 5321 §4.1, RFC 1870, 3461, 6152, 6531): octets in, values out.

Pure. It judges form only; whether a sender or recipient is welcome is the policy's business, and the order of commands
the engine's.
"""

import re
from dataclasses import dataclass

from sternpost_mail.address import Address, AddressError, parse_address
from sternpost_mail.envelope import Notify, Recipient, Ret

MAX_ENVID = 100
"""Octets of ENVID after decoding (RFC 3461 §4.4)."""
MAX_ORCPT = 500
"""Octets of ORCPT (RFC 3461 §4.2)."""
MAX_DIGITS = 20
"""Digits of a SIZE value (RFC 1870 §3)."""
MAX_CHUNK_DIGITS = 10
"""Digits of a BDAT size: ten gigabytes are more than anybody sends, and the engine must count what it throws away."""

_HELO = re.compile(rb"[A-Za-z0-9_.:%+\[\]-]{1,255}")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+")
_XTEXT_CODED = re.compile(r"\+([0-9A-F]{2})")
_ADDR_TYPE = re.compile(r"[A-Za-z0-9-]{1,30}")
_NOTIFY = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY}


class SyntaxRefused(Exception):
    """A command that cannot be understood or obeyed, with the reply that says why."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.enhanced = enhanced
        self.text = text


@dataclass(frozen=True, slots=True)
class MailCommand:
    """MAIL FROM. `sender` is None for the null reverse-path, `size` is 0 where none was declared (octets)."""

    sender: Address | None
    size: int = 0
    eight_bit: bool = False
    smtputf8: bool = False
    ret: Ret = Ret.DEFAULT
    envid: str = ""
    """As received, in xtext."""


def parse_helo(argument: bytes) -> str:
    """The name in EHLO or HELO; it is shown in the Received field, so only characters that stay harmless there pass."""
    name = argument.strip(b" ")
    if not _HELO.fullmatch(name):
        raise SyntaxRefused(501, "5.5.2", "A host name or an address literal is needed")
    return name.decode("ascii")


def parse_mail(argument: bytes, *, auth: bool) -> MailCommand:
    """`FROM:<path> [parameters]`. With `auth` the AUTH parameter (RFC 4954 §5) is understood, and not believed.

    Raises SyntaxRefused.
    """
    if argument[:5].upper() != b"FROM:":
        raise SyntaxRefused(501, "5.5.4", "Syntax: MAIL FROM:<address>")
    path, parameters = _split_path(argument, "5.1.7")
    if not parameters:
        return MailCommand(_sender(path, False))
    size, eight_bit, smtputf8, ret, envid = 0, False, False, Ret.DEFAULT, ""
    for name, value in _parameters(parameters):
        match name:
            case "SIZE":
                if not (value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS):
                    raise SyntaxRefused(501, "5.5.4", "SIZE is not a number")
                size = int(value)
            case "BODY":
                if value.upper() not in ("7BIT", "8BITMIME"):
                    raise SyntaxRefused(501, "5.5.4", "BODY is neither 7BIT nor 8BITMIME")
                eight_bit = value.upper() == "8BITMIME"
            case "SMTPUTF8" if not value:
                smtputf8 = True
            case "RET":
                if value.upper() not in ("FULL", "HDRS"):
                    raise SyntaxRefused(501, "5.5.4", "RET is neither FULL nor HDRS")
                ret = Ret(value.upper())
            case "ENVID":
                envid = _xtext(value, "ENVID", MAX_ENVID)
            case "AUTH" if auth:
                if value != "<>":
                    _xtext(value, "AUTH", MAX_ORCPT)
            case _:
                raise SyntaxRefused(555, "5.5.4", "A parameter of MAIL FROM is not recognized")
    return MailCommand(_sender(path, smtputf8), size, eight_bit, smtputf8, ret, envid)


def parse_rcpt(argument: bytes, *, smtputf8: bool) -> tuple[Address, Recipient]:
    """`TO:<path> [parameters]`; a bare `<postmaster>` is a recipient (RFC 5321 §4.5.1). Raises SyntaxRefused."""
    if argument[:3].upper() != b"TO:":
        raise SyntaxRefused(501, "5.5.4", "Syntax: RCPT TO:<address>")
    path, parameters = _split_path(argument, "5.1.3")
    if not path:
        raise SyntaxRefused(501, "5.1.3", "A recipient is needed")
    address = _address(path, smtputf8, "5.1.3")
    if not parameters:
        return address, Recipient(address.text)
    notify, orcpt = Notify.DEFAULT, ""
    for name, value in _parameters(parameters):
        match name:
            case "NOTIFY":
                notify = _notify(value)
            case "ORCPT":
                orcpt = _orcpt(value, smtputf8)
            case _:
                raise SyntaxRefused(555, "5.5.4", "A parameter of RCPT TO is not recognized")
    return address, Recipient(address.text, notify, orcpt)


def parse_bdat(argument: bytes) -> tuple[int, bool]:
    """`<octets> [LAST]` (RFC 3030 §2). Raises SyntaxRefused; then nobody knows where the next command begins."""
    count, _, last = argument.partition(b" ")
    if not (count.isdigit() and len(count) <= MAX_CHUNK_DIGITS) or last.upper() not in (b"", b"LAST"):
        raise SyntaxRefused(501, "5.5.4", "Syntax: BDAT octets [LAST]")
    return int(count), bool(last)


def _split_path(argument: bytes, enhanced: str) -> tuple[bytes, bytes]:
    """The path without its angle brackets, and the parameters behind it."""
    start = argument.find(b":") + 1
    while argument[start : start + 1] == b" ":  # not RFC 5321, but many clients
        start += 1
    if argument[start : start + 1] != b"<":
        raise SyntaxRefused(501, enhanced, "The address must stand in angle brackets")
    start += 1
    at = start
    if argument[at : at + 1] == b'"':
        at = _end_of_quotes(argument, at)
    end = argument.find(b">", at)
    if end < 0 or argument[end + 1 : end + 2] not in (b"", b" "):
        raise SyntaxRefused(501, enhanced, "The address must stand in angle brackets")
    return argument[start:end], argument[end + 1 :]


def _end_of_quotes(argument: bytes, at: int) -> int:
    at += 1
    while at < len(argument) and argument[at] != 0x22:
        at += 2 if argument[at] == 0x5C else 1
    return at


def _parameters(text: bytes) -> list[tuple[str, str]]:
    try:
        words = text.decode("utf-8").split(" ")
    except UnicodeDecodeError:
        raise SyntaxRefused(501, "5.5.4", "Parameters are not UTF-8") from None
    found: dict[str, str] = {}
    for word in words:
        if not word:
            continue
        name, equals, value = word.partition("=")
        name = name.upper()
        if name in found or (equals and not value) or not word.isprintable():
            raise SyntaxRefused(501, "5.5.4", "A parameter is repeated or malformed")
        found[name] = value
    return list(found.items())


def _sender(path: bytes, smtputf8: bool) -> Address | None:
    return _address(path, smtputf8, "5.1.7") if path else None


def _address(path: bytes, smtputf8: bool, enhanced: str) -> Address:
    try:
        text = path.decode("utf-8")
        address = parse_address(text, allow_bare_postmaster=enhanced == "5.1.3")
    except UnicodeDecodeError:
        raise SyntaxRefused(501, enhanced, "The address is not UTF-8") from None
    except AddressError as error:
        raise SyntaxRefused(501, enhanced, f"Address refused: {error}") from None
    if not smtputf8 and not text.isascii():
        raise SyntaxRefused(553, "5.6.7", "An address that is not ASCII needs SMTPUTF8")
    return address


def _xtext(value: str, name: str, limit: int) -> str:
    if not _XTEXT.fullmatch(value):
        raise SyntaxRefused(501, "5.5.4", f"{name} is not xtext")
    if len(value) - 2 * value.count("+") > limit:
        raise SyntaxRefused(501, "5.5.4", f"{name} is longer than {limit} octets")
    for code in _XTEXT_CODED.findall(value):
        if not 0x20 <= int(code, 16) < 0x7F:
            raise SyntaxRefused(501, "5.5.4", f"{name} has a control character")
    return value


def _notify(value: str) -> Notify:
    if value.upper() == "NEVER":
        return Notify.NEVER
    notify = Notify.DEFAULT
    for word in value.upper().split(","):
        if word not in _NOTIFY or _NOTIFY[word] & notify:
            raise SyntaxRefused(501, "5.5.4", "NOTIFY is NEVER, or some of SUCCESS, FAILURE and DELAY")
        notify |= _NOTIFY[word]
    return notify


def _orcpt(value: str, smtputf8: bool) -> str:
    kind, _, address = value.partition(";")
    if not _ADDR_TYPE.fullmatch(kind):
        raise SyntaxRefused(501, "5.5.4", "ORCPT has no address type")
    if kind.lower() == "utf-8" and smtputf8:  # RFC 6533 §3: utf-8-addr-unitext
        if not address or len(value.encode()) > MAX_ORCPT or not address.isprintable():
            raise SyntaxRefused(501, "5.5.4", "ORCPT is malformed")
        return value
    _xtext(address, "ORCPT", MAX_ORCPT)
    return value
