"""What the sink keeps: each message octet for octet, within a bound, the oldest forgotten first. No I/O, no clock."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAX_MESSAGES = 50_000
"""Messages kept: more than any test sends in one go."""
MAX_OCTETS = 512 * 1024 * 1024
"""Octets of content kept; the newest message is always kept, however large."""
MAX_HEADER_OCTETS = 64 * 1024
"""Part of a message that is searched for Message-ID and Subject."""

_FIELD = re.compile(rb"^(message-id|subject)[ \t]*:[ \t]*((?:[^\n]|\n[ \t])*)", re.IGNORECASE | re.MULTILINE)
_FOLD = re.compile(r"\r?\n[ \t]+")


@dataclass(frozen=True, slots=True)
class Received:
    """One message as it arrived. `mail_options` and `rcpt_options` are the ESMTP parameters as they were written."""

    number: int
    """1 for the first; never given again."""
    sender: str
    recipients: tuple[str, ...]
    mail_options: tuple[str, ...]
    rcpt_options: tuple[tuple[str, ...], ...]
    peer: str
    helo: str
    session: int
    """Number of the connection, so that reuse can be seen."""
    tls: str
    """Version of TLS, empty for plain."""
    received_ms: int
    content: bytes
    sha256: str
    message_id: str
    subject: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the SMTP side knows of a message besides its content."""

    sender: str
    recipients: tuple[str, ...]
    mail_options: tuple[str, ...]
    rcpt_options: tuple[tuple[str, ...], ...]
    peer: str
    helo: str
    session: int
    tls: str
    received_ms: int


class Store:
    """Messages by number, bounded in count and octets."""

    def __init__(self, max_messages: int = MAX_MESSAGES, max_octets: int = MAX_OCTETS) -> None:
        self._max_messages = max_messages
        self._max_octets = max_octets
        self._messages: OrderedDict[int, Received] = OrderedDict()
        self._octets = 0
        self._last = 0
        self._forgotten = 0

    def add(self, envelope: Envelope, content: bytes) -> Received:
        """Keep a message; the oldest ones go when there is no room."""
        self._last += 1
        fields = header_fields(content)
        message = Received(
            number=self._last,
            sender=envelope.sender,
            recipients=envelope.recipients,
            mail_options=envelope.mail_options,
            rcpt_options=envelope.rcpt_options,
            peer=envelope.peer,
            helo=envelope.helo,
            session=envelope.session,
            tls=envelope.tls,
            received_ms=envelope.received_ms,
            content=content,
            sha256=hashlib.sha256(content).hexdigest(),
            message_id=fields.get("message-id", ""),
            subject=fields.get("subject", ""),
        )
        self._messages[message.number] = message
        self._octets += len(content)
        while len(self._messages) > 1 and (len(self._messages) > self._max_messages or self._octets > self._max_octets):
            _, oldest = self._messages.popitem(last=False)
            self._octets -= len(oldest.content)
            self._forgotten += 1
        return message

    def get(self, number: int) -> Received | None:
        """One message, None where there never was one or it is forgotten."""
        return self._messages.get(number)

    def find(self, *, recipient: str = "", message_id: str = "", after: int = 0) -> Iterator[Received]:
        """Messages in the order of arrival. Empty filters do not restrict; addresses are compared without case.

        `message_id` is compared without its angle brackets; `after` is the number that the last page ended with.
        """
        wanted, wanted_id = recipient.lower(), message_id.strip("<>")
        for message in self._messages.values():
            if message.number <= after:
                continue
            if wanted and wanted not in (address.lower() for address in message.recipients):
                continue
            if wanted_id and message.message_id.strip("<>") != wanted_id:
                continue
            yield message

    def clear(self) -> int:
        """Forget everything; how many messages that were. Numbers go on."""
        count = len(self._messages)
        self._messages.clear()
        self._octets = 0
        return count

    @property
    def counts(self) -> dict[str, int]:
        """`received` ever, `kept` now, `forgotten` for want of room, `octets` kept."""
        return {
            "received": self._last,
            "kept": len(self._messages),
            "forgotten": self._forgotten,
            "octets": self._octets,
        }


def header_fields(content: bytes) -> dict[str, str]:
    """Message-ID and Subject as they stand, unfolded, the first of each, by lower-case name."""
    head = content[:MAX_HEADER_OCTETS]
    end = head.find(b"\r\n\r\n")
    found: dict[str, str] = {}
    for name, value in _FIELD.findall(head[: end + 2] if end >= 0 else head):
        text = _FOLD.sub(" ", value.decode("utf-8", "replace")).strip()
        found.setdefault(name.decode().lower(), text)
    return found


def split_options(argument: str) -> tuple[str, tuple[str, ...]]:
    """`FROM:<a@b> RET=HDRS SIZE=3` as the address part and its parameters, which keep their case."""
    address, *options = _outside_quotes(argument)
    return address, tuple(options)


def _outside_quotes(argument: str) -> Sequence[str]:
    words, start, quoted, escaped = [], 0, False, False
    for place, char in enumerate(argument):
        if escaped:
            escaped = False
        elif char == "\\" and quoted:
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == " " and not quoted:
            words.append(argument[start:place])
            start = place + 1
    words.append(argument[start:])
    kept = [word for word in words if word]
    # `FROM: <a@b>`: a blank after the colon is common and harmless
    if len(kept) > 1 and kept[0].endswith(":"):
        kept[:2] = [kept[0] + kept[1]]
    return kept or [""]
