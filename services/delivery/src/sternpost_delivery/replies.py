"""Octets in, replies out (RFC 5321 §4.2). No I/O: it knows neither sockets nor what a reply means.

Everything a remote may send is bounded here, because the remote chooses it: the length of a line and the number of
lines of one reply.
"""

from functools import lru_cache

from sternpost_mail.reply import Reply, make_reply

MAX_LINE_OCTETS = 2048
"""RFC 5321 §4.5.3.1.5 says 512; servers with long policy texts exceed it, four times as much is still small."""
MAX_LINES = 128
"""Lines of one reply: the longest EHLO replies known have about thirty."""
CACHED_OCTETS = 96
"""Only short lines are remembered: those that repeat (`250 2.1.5 Ok`) are short."""
CACHED_LINES = 1024

_CONTROLS = {code: "?" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029) if code != 0x0A} | {0x09: " "}


class ReplyError(Exception):
    """What the remote sent is not an SMTP reply, or is beyond a limit; the text is fit for a timeline."""


class ReplyReader:
    """Collects octets until they make complete replies."""

    __slots__ = ("_code", "_lines", "_rest", "last_lines")

    def __init__(self) -> None:
        self._rest = b""
        self._code = 0
        self._lines: list[str] = []
        self.last_lines: list[str] = []
        """The unshortened lines of the latest reply that had several: what EHLO is read from."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing half-read is left: true between replies."""
        return not self._rest and not self._lines

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that these octets complete. Raises ReplyError; the reader is of no use after that."""
        if self._rest:
            data = self._rest + data
        lines = data.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_LINE_OCTETS:
            raise ReplyError(f"the reply has a line of more than {MAX_LINE_OCTETS} octets")
        found: list[Reply] = []
        for line in lines:
            if not self._lines and line[3:4] != b"-":
                found.append(_cached(line) if len(line) <= CACHED_OCTETS else _single(line))
                continue
            code, text = _split(line)
            if self._lines and code != self._code:
                raise ReplyError(f"the lines of a reply disagree on its code: {self._code} and {code}")
            self._code = code
            self._lines.append(text)
            if len(self._lines) > MAX_LINES:
                raise ReplyError(f"the reply has more than {MAX_LINES} lines")
            if line[3:4] != b"-":
                found.append(make_reply(code, self._lines))
                self.last_lines, self._lines = self._lines, []
        return found


def _single(line: bytes) -> Reply:
    code, text = _split(line)
    return make_reply(code, [text])


_cached = lru_cache(maxsize=CACHED_LINES)(_single)


def _split(line: bytes) -> tuple[int, str]:
    if len(line) > MAX_LINE_OCTETS:
        raise ReplyError(f"the reply has a line of more than {MAX_LINE_OCTETS} octets")
    if line.endswith(b"\r"):
        line = line[:-1]
    digits = line[:3]
    if len(digits) != 3 or not digits.isdigit() or not b"200" <= digits <= b"599" or line[3:4] not in b" -":
        raise ReplyError(f"not an SMTP reply: {clean(line[:80])!r}")
    return int(digits), clean(line[4:])


def clean(raw: bytes) -> str:
    """A remote's octets as text that is safe in a timeline, a header of a report and a log: no control characters."""
    text = raw.decode("utf-8", "replace")
    return text if text.isprintable() else text.translate(_CONTROLS)
