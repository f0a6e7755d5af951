"""Makes a mail's octets from the parts of a JSON request. Pure: no clock, no broker, no HTTP.

The header block is written here, value by value, because it is where injection happens; the body's MIME structure is
built by the standard library under `email.policy.SMTP`. No value with a control character, written or encoded, gets
past `_checked`. The result is 7-bit (or UTF-8 in its header where an address needs it), has CRLF everywhere and no line
over 998 octets. Who may use which address is not decided here.
"""

import base64
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from email.message import EmailMessage, MIMEPart
from email.policy import SMTP
from functools import lru_cache

from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email

from sternpost_mail.address import AddressError, parse_address
from sternpost_mail.headers import decode_words, read_header

MAX_RECIPIENTS = 1000
"""To, Cc and Bcc together; the SMTP doors take as many (RFC 5321 §4.5.3.1.8 asks for at least 100)."""
MAX_HEADERS = 50
"""Custom header fields."""
MAX_HEADER_VALUE = 8 * 1024
"""Characters of one custom header value or of the subject: a long References list fits."""
MAX_NAME = 255
"""Characters of a display name or a file name."""
MAX_ATTACHMENTS = 100
"""Attachments and inline parts; their size is bounded by the request's."""
MAX_LINE = 998
"""RFC 5322 §2.1.1, without CRLF."""
MAX_WORD = 900
"""Octets of a header word that is not broken (a URL, a message id): with the name of its field it fits into a line."""
FOLD_AT = 78
"""RFC 5322 §2.1.1: a line should not be longer."""

SPECIAL_USE_DOMAIN_NAMES.clear()
"""The library refuses .test, .local and their like by this list and names editing it as the way to allow them: a test
domain, or mail inside a cluster, is as good as any; who may be written to is a rule's business."""

_MIME_POLICY = SMTP.clone(cte_type="7bit")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")
_MIME_NAME = r"[A-Za-z0-9!#$&^_.+-]{1,127}"
_CONTENT_TYPE = re.compile(rf"({_MIME_NAME})/({_MIME_NAME})(?:; ?charset=\"?([A-Za-z0-9_.:-]{{1,40}})\"?)?")
_CONTENT_ID = re.compile(r"[A-Za-z0-9+_.@-]{1,200}")
_PLAIN_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")

_OURS = {
    "from": "use `from`",
    "to": "use `to`",
    "cc": "use `cc`",
    "bcc": "use `bcc`",
    "reply-to": "use `reply_to`",
    "subject": "use `subject`",
    "date": "it is set at acceptance",
    "message-id": "it is made from the message's id",
    "sender": "the author is `from`",
    "mime-version": "the MIME structure is made here",
    "return-path": "it is set by the last hop",
    "received": "trace fields are written by mail servers",
    "received-spf": "trace fields are written by mail servers",
    "delivered-to": "trace fields are written by mail servers",
    "authentication-results": "trace fields are written by mail servers",
    "dkim-signature": "signatures are made by mail servers",
    "domainkey-signature": "signatures are made by mail servers",
}
_OUR_PREFIXES = {
    "content-": "the MIME structure is made here",
    "resent-": "a resent mail belongs into /v1/messages/raw",
    "arc-": "signatures are made by mail servers",
}


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one member of the request; `field` is its path, such as `attachments.0.filename`."""

    field: str
    message: str


class ComposeError(ValueError):
    """The parts do not make a mail; `errors` tells all that was found."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = tuple(errors)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file; with a `content_id` it is shown inside the HTML (`<img src="cid:...">`) instead of being listed."""

    filename: str
    content: bytes
    content_type: str = "application/octet-stream"
    content_id: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """The parts of a mail. Addresses are `local@domain` or `Name <local@domain>`."""

    sender: str
    to: Sequence[str] = ()
    cc: Sequence[str] = ()
    bcc: Sequence[str] = ()
    reply_to: Sequence[str] = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    attachments: Sequence[Attachment] = ()


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A parsed address. `address` is ASCII (A-labels) unless its local part needs SMTPUTF8."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Composed:
    """The octets and the envelope they want. `fields` are the paths of the recipients in the request, in order."""

    content: bytes
    sender: str
    recipients: tuple[str, ...]
    fields: tuple[str, ...]
    smtputf8: bool


def compose(draft: Draft) -> Composed:
    """The mail of a draft. Raises ComposeError with every fault that was found."""
    errors: list[FieldError] = []
    author = _mailboxes("from", [draft.sender], errors, numbered=False)
    to = _mailboxes("to", draft.to, errors)
    cc = _mailboxes("cc", draft.cc, errors)
    bcc = _mailboxes("bcc", draft.bcc, errors)
    reply_to = _mailboxes("reply_to", draft.reply_to, errors)
    everybody = {**to, **cc, **bcc}
    if not (draft.to or draft.cc or draft.bcc):
        errors.append(FieldError("to", "no recipient is given in to, cc or bcc"))
    if len(draft.to) + len(draft.cc) + len(draft.bcc) > MAX_RECIPIENTS:
        errors.append(FieldError("to", f"more than {MAX_RECIPIENTS} recipients in to, cc and bcc together"))
    if draft.text is None and draft.html is None:
        errors.append(FieldError("text", "one of text and html is needed"))
    for name, body in (("text", draft.text), ("html", draft.html)):
        if body is not None and ("\0" in body or not _is_text(body)):
            errors.append(FieldError(name, "has a NUL or half a surrogate pair"))
    _checked("subject", draft.subject, MAX_HEADER_VALUE, errors)
    _check_headers(draft.headers, errors)
    _check_attachments(draft, errors)
    if errors:
        raise ComposeError(errors)

    lines = [f"From: {_address_list(author.values())}"]
    for label, group in (("To", to), ("Cc", cc), ("Reply-To", reply_to)):
        if group:
            lines.append(f"{label}: {_address_list(group.values())}")
    if not to and not cc:
        lines.append("To: undisclosed-recipients:;")
    lines.append(_fold("Subject", draft.subject))
    lines += [_fold(name, value) for name, value in draft.headers]
    top = "".join(line + "\r\n" for line in lines).encode()
    content = top + _mime(draft).as_bytes()

    unique: dict[str, str] = {}
    for field, mailbox in everybody.items():
        unique.setdefault(mailbox.address, field)
    sender = author["from"].address
    composed = Composed(
        content=content,
        sender=sender,
        recipients=tuple(unique),
        fields=tuple(unique.values()),
        smtputf8=not all(box.address.isascii() for box in (*author.values(), *everybody.values(), *reply_to.values())),
    )
    _verify(composed, len(lines))
    return composed


# --- checks ------------------------------------------------------------------------------------------------------


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _checked(field: str, value: str, longest: int, errors: list[FieldError]) -> bool:
    """Whether a value may go into a header: bounded, and without control characters, also inside encoded words."""
    if len(value) > longest:
        errors.append(FieldError(field, f"is longer than {longest} characters"))
    elif _CONTROL.search(value):
        errors.append(FieldError(field, "has a line break or another control character"))
    elif "=?" in value and _hides_control(value):
        errors.append(FieldError(field, "has an encoded word with a line break or another control character in it"))
    else:
        return True
    return False


_ENCODED_WORD = re.compile(r"=\?[^?\s]*\?([bBqQ])\?([^?\s]*)\?=")
_HEX = re.compile(r"=([0-9A-Fa-f]{2})")


def _hides_control(value: str) -> bool:
    """Whether an encoded word (RFC 2047) in the value decodes to a control character, in any charset that ASCII is part
    of: what a reader would make of it is not ours to bet on, so the octets themselves are looked at."""
    for word in _ENCODED_WORD.finditer(value):
        encoding, text = word[1], word[2]
        if encoding in "qQ":
            octets = _HEX.sub(lambda match: chr(int(match[1], 16)), text)
        else:
            try:
                padded = text.encode() + b"=" * (-len(text) % 4)
                octets = base64.b64decode(padded).decode("latin-1")
            except ValueError:
                continue  # not base64: no reader decodes it
        if re.search(r"[\x00-\x1f\x7f]", octets) or _CONTROL.search(decode_words(word[0].encode("utf-8", "replace"))):
            return True
        if re.search("\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]", octets):  # C1 controls and U+2028, U+2029 as UTF-8
            return True
    return False


def _mailboxes(
    field: str, texts: Sequence[str], errors: list[FieldError], *, numbered: bool = True
) -> dict[str, Mailbox]:
    found: dict[str, Mailbox] = {}
    for number, text in enumerate(texts[: MAX_RECIPIENTS + 1]):
        path = f"{field}.{number}" if numbered else field
        try:
            found[path] = parse_mailbox(text)
        except ValueError as error:
            errors.append(FieldError(path, str(error)))
    return found


def parse_mailbox(text: str) -> Mailbox:
    """`local@domain` or `Name <local@domain>`, the name quoted or not. Raises ValueError with a public text."""
    problems: list[FieldError] = []
    if not _checked("", text, MAX_NAME + 320, problems):
        raise ValueError(problems[0].message)
    text = text.strip()
    name = ""
    if text.endswith(">"):
        name, bracket, text = text[:-1].rpartition("<")
        if not bracket:
            raise ValueError("has a closing bracket without an opening one")
        name = name.strip()
        if len(name) >= 2 and name.startswith('"') and name.endswith('"'):
            name = re.sub(r"\\(.)", r"\1", name[1:-1])
        if "<" in name or ">" in name:
            raise ValueError("has angle brackets in its display name")
        if len(name) > MAX_NAME:
            raise ValueError(f"has a display name longer than {MAX_NAME} characters")
    return Mailbox(name, _address(text.strip()))


@lru_cache(maxsize=8192)
def _address(text: str) -> str:
    if "=?" in text:
        raise ValueError("is no email address: an encoded word cannot stand in one")
    try:
        valid = validate_email(
            text,
            allow_smtputf8=True,
            allow_quoted_local=False,
            allow_domain_literal=False,
            check_deliverability=False,
            globally_deliverable=False,  # a name without a dot is a host inside the network
        )
        return parse_address(valid.ascii_email or f"{valid.local_part}@{valid.ascii_domain}").text
    except EmailNotValidError as error:
        raise ValueError(f"is no email address: {error}") from None
    except AddressError as error:
        raise ValueError(f"is no email address: {error}") from None


def _check_headers(headers: Sequence[tuple[str, str]], errors: list[FieldError]) -> None:
    if len(headers) > MAX_HEADERS:
        errors.append(FieldError("headers", f"more than {MAX_HEADERS} header fields"))
        return
    for name, value in headers:
        lower = name.lower()
        shown = name if _FIELD_NAME.fullmatch(name) else "?"
        reason = _OURS.get(lower) or next((why for key, why in _OUR_PREFIXES.items() if lower.startswith(key)), "")
        field = f"headers.{shown}"
        if shown == "?":
            errors.append(FieldError("headers", "a header name must be 1 to 76 printable ASCII characters, no colon"))
        elif reason:
            errors.append(FieldError(field, f"may not be set: {reason}"))
        elif _checked(field, value, MAX_HEADER_VALUE, errors):
            longest = max(map(len, value.split()), default=0)
            if value.isascii() and longest > MAX_WORD:
                errors.append(FieldError(field, f"has a word longer than {MAX_WORD} characters"))


def _check_attachments(draft: Draft, errors: list[FieldError]) -> None:
    if len(draft.attachments) > MAX_ATTACHMENTS:
        errors.append(FieldError("attachments", f"more than {MAX_ATTACHMENTS} attachments"))
        return
    ids: set[str] = set()
    for number, part in enumerate(draft.attachments):
        field = f"attachments.{number}"
        name = part.filename
        plain = name.strip() and name not in (".", "..") and "/" not in name and "\\" not in name
        if _checked(f"{field}.filename", name, MAX_NAME, errors) and not plain:
            errors.append(FieldError(f"{field}.filename", "must be a plain file name, without a path"))
        kind = _CONTENT_TYPE.fullmatch(part.content_type)
        if kind is None:
            errors.append(FieldError(f"{field}.content_type", "must look like application/pdf"))
        elif kind[1].lower() in ("multipart", "message"):
            errors.append(FieldError(f"{field}.content_type", "multipart and message parts cannot be attached"))
        if part.content_id:
            if not _CONTENT_ID.fullmatch(part.content_id):
                errors.append(FieldError(f"{field}.content_id", "must be 1 to 200 letters, digits and + _ . @ -"))
            elif part.content_id in ids:
                errors.append(FieldError(f"{field}.content_id", "is used twice"))
            elif draft.html is None:
                errors.append(FieldError(f"{field}.content_id", "needs html, which shows the part"))
            ids.add(part.content_id)


def _verify(composed: Composed, fields: int) -> None:
    """The last look at what was made: a fault here is ours, so it is no ComposeError."""
    header = read_header(composed.content)
    block = composed.content[: header.header_octets]
    names = [line for line in block.split(b"\r\n") if line and line[:1] not in b" \t"]
    mime = [name for name in names[fields:] if not name.lower().startswith((b"content-", b"mime-version:"))]
    if header.from_fields != 1 or header.from_error or mime or len(names) < fields:
        raise RuntimeError("a composed header is not what was meant")
    if max(map(len, composed.content.split(b"\r\n"))) > MAX_LINE:
        raise RuntimeError(f"a composed line is longer than {MAX_LINE} octets")


# --- the header block ----------------------------------------------------------------------------------------------


def _fold(name: str, value: str) -> str:
    """A field with unstructured text. ASCII words are never broken (a long URL or message id must survive); other text,
    and text that looks like an encoded word without being one, becomes encoded words."""
    words = value.strip().split(" ")
    if not value.isascii() or (name == "Subject" and ("=?" in value or max(map(len, words)) > MAX_WORD)):
        return f"{name}: {_encoded(value)}"
    line, lines = f"{name}:", []
    for word in words:
        if word and len(line) + 1 + len(word) > FOLD_AT and line.strip() and not line.endswith(":"):
            lines.append(line)
            line = ""
        line += " " + word
    lines.append(line)
    return "\r\n".join(lines)


def _encoded(text: str) -> str:
    """The text as encoded words of at most 75 characters (RFC 2047 §2), no character split between two."""
    words: list[str] = []
    chunk = b""
    for char in text:
        octets = char.encode()
        if len(chunk) + len(octets) > 45:  # 45 octets are 60 in base64; with `=?utf-8?b?` and `?=` that is 72
            words.append(base64.b64encode(chunk).decode())
            chunk = b""
        chunk += octets
    words.append(base64.b64encode(chunk).decode())
    return "\r\n ".join(f"=?utf-8?b?{word}?=" for word in words)


def _address_list(mailboxes: Iterable[Mailbox]) -> str:
    return ",\r\n ".join(_mailbox(box) for box in mailboxes)


def _mailbox(box: Mailbox) -> str:
    if not box.name:
        return box.address
    if not box.name.isascii() or "=?" in box.name:
        phrase = _encoded(box.name)
    elif _PLAIN_PHRASE.fullmatch(box.name):
        phrase = box.name
    else:
        phrase = '"' + re.sub(r'(["\\])', r"\\\1", box.name) + '"'
    return f"{phrase} <{box.address}>" if len(phrase) < FOLD_AT else f"{phrase}\r\n <{box.address}>"


# --- the body --------------------------------------------------------------------------------------------------------


def _mime(draft: Draft) -> EmailMessage:
    message = EmailMessage(policy=_MIME_POLICY)
    inline = [part for part in draft.attachments if part.content_id]
    listed = [part for part in draft.attachments if not part.content_id]
    if draft.text is not None:
        message.set_content(draft.text)
        if draft.html is not None:
            message.add_alternative(draft.html, subtype="html")
    else:
        message.set_content(draft.html or "", subtype="html")
    if inline:
        html = message.get_body(("html",))
        assert isinstance(html, MIMEPart)  # noqa: S101 - a content id without html was refused
        for part in inline:
            _add(html.add_related, part, disposition="inline", cid=f"<{part.content_id}>")
    for part in listed:
        _add(message.add_attachment, part)
    return message


def _add(add: Callable[..., None], part: Attachment, **more: str) -> None:
    kind = _CONTENT_TYPE.fullmatch(part.content_type)
    assert kind is not None  # noqa: S101 - was checked
    params = {"charset": kind[3]} if kind[3] else None
    add(part.content, maintype=kind[1], subtype=kind[2], filename=part.filename, params=params, **more)
