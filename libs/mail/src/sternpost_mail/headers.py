"""Reading the header of a mail (RFC 5322 §2.2, §3.6): the few facts that doors decide by, in one pass over its lines.

This file alone knows header syntax. It changes nothing and judges nobody: it counts and reads so that no reader of the
mail can see a From that was not counted here. Where two readers could disagree, `from_error` says so, and `accept`
refuses. It never looks into the body.
"""

import base64
import binascii
import quopri
import re
from dataclasses import dataclass

from sternpost_mail.address import Address, AddressError, parse_address

MAX_HEADER_OCTETS = 100 * 1024
"""As Postfix (header_size_limit): real mail stays below a tenth of it."""
MAX_HEADER_FIELDS = 1000
"""As Sendmail and Exchange: a hundred hops with ten trace fields each."""
MAX_HEADER_LINE = 2048
"""Octets. RFC 5322 §2.1.1 allows a composer 998; mail with an unfolded References line is longer and as Postfix
(line_length_limit) we take it, because refusing it would lose mail that nearly every receiver takes."""
MAX_FROM_ADDRESSES = 50
"""Authors of one mail; each is checked against the policy."""
MAX_FROM_OCTETS = 16 * 1024
"""Octets of one From field that are parsed."""
MAX_COMMENT_DEPTH = 8
"""Comments may nest without end (RFC 5322 §3.2.2); nobody does."""
MAX_DISPLAY = 255
"""Characters of Subject and Message-ID that are kept for display."""


class HeaderError(ValueError):
    """A header that no door takes; the text says what is wrong and is fit for a public reply."""


@dataclass(frozen=True, slots=True)
class HeaderLimits:
    """What a door takes at most. Octets, fields, octets of one line without its CRLF."""

    octets: int = MAX_HEADER_OCTETS
    fields: int = MAX_HEADER_FIELDS
    line: int = MAX_HEADER_LINE


DEFAULT_LIMITS = HeaderLimits()


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What a header says. Texts are decoded for display, without control characters, at most 255 characters long."""

    from_addresses: tuple[str, ...]
    """Every address of every From field, `local@domain` as written, comments and display names removed."""
    from_fields: int
    """How many From fields there are; a mail that is well formed has one."""
    from_error: str
    """Why From cannot be read, or not by everybody alike; empty where it can. Fit for a public reply."""
    message_id: str
    subject: str
    has_date: bool
    has_message_id: bool
    received_count: int
    """Received fields: how many hops the mail has behind it."""
    header_octets: int
    """Length of the header with the CRLF of its last line, without the empty line that follows."""
    eight_bit: bool
    """Some octet of the whole content is above 127."""
    header_eight_bit: bool
    """Some octet of the header is above 127: the mail needs SMTPUTF8 (RFC 6532)."""


_CONTINUES, _READ, _ODD = 1, 2, 3
_FIRST = bytearray(_ODD if octet <= 0x20 or octet >= 0x7F else 0 for octet in range(256))
"""What the first octet of a line tells: of most fields, that they need no second look."""
for _octet in b" \t":
    _FIRST[_octet] = _CONTINUES
for _octet in b"fFdDmMsSrR":
    _FIRST[_octet] = _READ

_READ_NAMES = frozenset({b"from", b"date", b"message-id", b"subject", b"received"})
_SPELLINGS = {name.title(): name for name in _READ_NAMES} | {b"Message-ID": b"message-id", b"MIME-Version": b""}
"""How most mail writes the names that are read, and a common one that only begins like them."""
_NOT_IN_NAMES = bytes(octet for octet in range(256) if octet <= 0x20 or octet >= 0x7F)
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")


def read_header(content: bytes, limits: HeaderLimits = DEFAULT_LIMITS) -> HeaderFacts:
    """The facts of a mail's header.

    Raises HeaderError where it is over a limit, has NUL, a bare CR or a bare LF, or begins with a continuation line
    (which would become part of the trace field that a door puts above it).
    """
    end = content.find(b"\r\n\r\n", 0, limits.octets + 4)
    if content.startswith(b"\r\n"):
        end = 0
    elif end < 0:
        end = len(content)
        if content.endswith(b"\r\n"):
            end -= 2
    if end > limits.octets:
        raise HeaderError(f"header is longer than {limits.octets} octets")
    header = content[:end]
    breaks = header.count(b"\r\n")
    if header.count(b"\n") != breaks or header.count(b"\r") != breaks:
        raise HeaderError("header has a bare CR or LF")
    if b"\0" in header:
        raise HeaderError("header has a NUL")
    lines = header.split(b"\r\n") if header else []
    if lines and _FIRST[lines[0][0]] == _CONTINUES:
        raise HeaderError("header begins with a continuation line")
    found, fields = _find(lines)
    if fields > limits.fields:
        raise HeaderError(f"header has more than {limits.fields} fields")
    if lines and len(max(lines, key=len)) > limits.line:
        raise HeaderError(f"header has a line longer than {limits.line} octets")

    senders: tuple[str, ...] = ()
    error = ""
    froms = found.get(b"from", ())
    for at in froms:
        try:
            for line in lines[: at + 1]:
                if not _FIELD.match(line) and _FIRST[line[0]] != _CONTINUES:
                    raise HeaderError("From stands on or below a line that is no header field")
            senders += read_mailboxes(_value(lines, at))
        except HeaderError as problem:
            error = error or str(problem)
    subjects, ids = found.get(b"subject"), found.get(b"message-id")
    return HeaderFacts(
        from_addresses=senders,
        from_fields=len(froms),
        from_error=error,
        message_id=_display(_value(lines, ids[0])) if ids else "",
        subject=decode_text(_value(lines, subjects[0])) if subjects else "",
        has_date=b"date" in found,
        has_message_id=ids is not None,
        received_count=len(found.get(b"received", ())),
        header_octets=min(end + 2, len(content)) if header else 0,
        eight_bit=not content.isascii(),
        header_eight_bit=not header.isascii(),
    )


def _find(lines: list[bytes]) -> tuple[dict[bytes, list[int]], int]:
    """The line numbers of the fields that are read, by lower-case name, and the number of all fields."""
    found: dict[bytes, list[int]] = {}
    continued = 0
    first, known = _FIRST, _SPELLINGS
    for at, line in enumerate(lines):
        kind = first[line[0]]
        if not kind:
            continue
        if kind == _CONTINUES:
            continued += 1
            continue
        colon = line.find(b":")
        name = known.get(line[:colon])
        if name is None and colon > 0:
            # `From :` is a From (RFC 5322 §4.5), and so is any name that a lenient reader might take for one.
            name = line[:colon].lower().translate(None, _NOT_IN_NAMES)
        if name in _READ_NAMES and colon > 0:
            if name in found:
                found[name].append(at)
            else:
                found[name] = [at]
    return found, len(lines) - continued


def _value(lines: list[bytes], at: int) -> bytes:
    """The value of the field that begins at a line, unfolded."""
    value = lines[at].partition(b":")[2]
    for line in lines[at + 1 :]:
        if _FIRST[line[0]] != _CONTINUES:
            break
        value += line
    return value


# --- mailboxes --------------------------------------------------------------------------------------------------------

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]"
_SIMPLE = re.compile(
    rb"[ \t]*(?:(?:[^][<>\"(),:;@\\\x00-\x08\x0a-\x1f\x7f]*|\"[^\"\\\x00-\x1f\x7f]*\"[ \t]*)<(A+@[A-Za-z0-9.-]+)>"
    rb"|(A+@[A-Za-z0-9.-]+))[ \t]*".replace(b"A+", _ATOM.encode() + b"+")
)
"""What nearly every From looks like: `a@b`, `<a@b>`, `Name <a@b>`, `"Name" <a@b>`."""


def read_mailboxes(value: bytes) -> tuple[str, ...]:
    """The addresses of a From value (RFC 5322 §3.4 mailbox-list; RFC 6854 lets it hold groups).

    Raises HeaderError where it cannot be read or where readers may disagree about who is meant.
    """
    simple = _SIMPLE.fullmatch(value)
    if simple:
        return (_checked((simple[1] or simple[2]).decode("ascii")).text,)
    if len(value) > MAX_FROM_OCTETS:
        raise HeaderError(f"From is longer than {MAX_FROM_OCTETS} octets")
    return _MailboxList(value.decode("utf-8", "surrogateescape")).read()


def _checked(text: str) -> Address:
    if "=?" in text and "?=" in text:
        raise HeaderError("From has an encoded word inside an address (RFC 2047 §5)")
    try:
        text.encode()  # an octet that is no UTF-8 was decoded to a lone surrogate
        return parse_address(text)
    except UnicodeEncodeError:
        raise HeaderError("From has an address that is not UTF-8") from None
    except AddressError as error:
        raise HeaderError(f"From has an address that is not valid: {error}") from None


_TOKEN = re.compile(
    r"(?P<space>[ \t]+)"
    r'|(?P<quoted>"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[ -~\t\x80-\U0010ffff])*")'
    r"|(?P<literal>\[[^][\\\x00-\x20\x7f]*\])"
    r"|(?P<atom>[^][<>\"(),:;@\\\x00-\x20\x7f]+)"
    r"|(?P<special>[<>,:;@(])"
)
_IN_COMMENT = re.compile(r"[^()\\\x00-\x08\x0a-\x1f\x7f]+|\\[ -~\t\x80-\U0010ffff]|[()]")


class _MailboxList:
    """The careful reader: one loop over tokens, no recursion, strict inside an address, lenient in display names."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: list[str] = []
        self._in_group = False

    def read(self) -> tuple[str, ...]:
        words: list[str] = []  # tokens since the last separator, with "" for space or a comment between them
        angle = ""  # the address of this mailbox where it stood in angle brackets
        while True:
            kind, token = self._next()
            if kind in ("", ",", ";"):
                self._mailbox(words, angle)
                words, angle = [], ""
                if kind == ";" and not self._in_group:
                    raise HeaderError("From has a semicolon outside a group")
                if kind == "":
                    break
                self._in_group = self._in_group and kind != ";"
            elif kind == "space":
                words.append("")
            elif angle:
                raise HeaderError("From has text behind an address in angle brackets")
            elif kind == "<":
                angle = self._angle()
            elif kind == ":":
                if self._in_group or not any(words) or "@" in words:
                    raise HeaderError("From has a colon in a place where none may be")
                self._in_group, words = True, []
            elif kind == ">":
                raise HeaderError("From has a closing bracket without an opening one")
            else:
                words.append(token)
        if self._in_group:
            raise HeaderError("From has a group that is not closed")
        if not self._found:
            raise HeaderError("From names nobody")
        return tuple(self._found)

    def _mailbox(self, words: list[str], angle: str) -> None:
        plain = "".join(words)
        if angle:
            # `a@b <a@b>` is common and says one thing; `a@b <c@d>` shows one author to some and another to others.
            if "@" in words and plain.lower() != angle.lower():
                raise HeaderError("From has two addresses without a comma between them")
        elif plain:
            if "" in _trim(words):
                raise HeaderError("From has a name without an address, or a space inside an address")
            angle = _checked(plain).text
        if angle:
            self._found.append(angle)
            if len(self._found) > MAX_FROM_ADDRESSES:
                raise HeaderError(f"From has more than {MAX_FROM_ADDRESSES} addresses")

    def _angle(self) -> str:
        parts: list[str] = []
        while True:
            kind, token = self._next()
            if kind == ">":
                break
            if kind in ("", "<", ",", ":", ";"):
                raise HeaderError("From has an angle bracket that is not closed, or a source route")
            parts.append("" if kind == "space" else token)
        parts = _trim(parts)
        if "" in parts:
            raise HeaderError("From has a space or a comment inside an address")
        return _checked("".join(parts)).text

    def _next(self) -> tuple[str, str]:
        """Kind and text of the next token: a special is its own kind, a comment counts as space, the end is empty."""
        if self._at == len(self._text):
            return "", ""
        match = _TOKEN.match(self._text, self._at)
        if match is None:
            raise HeaderError("From has a character that must be quoted, or a quote that is not closed")
        self._at = match.end()
        kind = match.lastgroup or ""
        if match.group() == "(":
            self._skip_comment()
            return "space", ""
        return (match.group() if kind == "special" else kind), match.group()

    def _skip_comment(self) -> None:
        depth = 1
        while depth:
            match = _IN_COMMENT.match(self._text, self._at)
            if match is None:
                raise HeaderError("From has a comment that is not closed")
            self._at = match.end()
            depth += {"(": 1, ")": -1}.get(match.group(), 0)
            if depth > MAX_COMMENT_DEPTH:
                raise HeaderError("From has comments nested too deeply")


def _trim(parts: list[str]) -> list[str]:
    """Without the empty parts (space, comments) at both ends."""
    inner = [at for at, part in enumerate(parts) if part]
    return parts[inner[0] : inner[-1] + 1] if inner else []


# --- text for display -------------------------------------------------------------------------------------------------

_ENCODED_WORD = re.compile(rb"=\?([A-Za-z0-9_.:-]{1,40})(?:\*[A-Za-z0-9-]*)?\?([bBqQ])\?([!->@-~ ]*)\?=")
_BETWEEN_WORDS = re.compile(rb"(\?=)[ \t]+(?==\?)")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
MAX_ENCODED = 4 * 1024
"""Octets of a header value that are decoded for display: more than 255 characters ever need."""


def decode_text(value: bytes) -> str:
    """An unstructured value (RFC 2047 encoded words) as a person reads it; never fails, cut to 255 characters."""
    return _clean(decode_words(value[:MAX_ENCODED]))


def decode_words(value: bytes) -> str:
    """A value with its encoded words decoded and everything that was hidden in them: not fit for display."""
    if b"=?" not in value:
        return value.decode("utf-8", "replace")
    parts: list[str] = []
    at = 0
    value = _BETWEEN_WORDS.sub(rb"\1", value)  # space between encoded words is not text (RFC 2047 §6.2)
    for word in _ENCODED_WORD.finditer(value):
        parts += (value[at : word.start()].decode("utf-8", "replace"), _decode_word(word))
        at = word.end()
    parts.append(value[at:].decode("utf-8", "replace"))
    return "".join(parts)


def _decode_word(word: re.Match[bytes]) -> str:
    charset, encoding, text = word.groups()
    try:
        if encoding in b"bB":
            octets = base64.b64decode(text + b"=" * (-len(text) % 4))
        else:
            octets = quopri.decodestring(text, header=True)
        return octets.decode(charset.decode("ascii"), "replace")
    except (LookupError, UnicodeError, binascii.Error, ValueError):
        return word.group().decode("utf-8", "replace")  # shown as it stands


def _display(value: bytes) -> str:
    return _clean(value[:MAX_ENCODED].decode("utf-8", "replace"))


def _clean(text: str) -> str:
    text = text.strip()
    if not text.isprintable():
        text = _CONTROLS.sub(" ", text).strip()
    return text[:MAX_DISPLAY]
