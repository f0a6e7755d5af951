"""The text of one mail as it arrives, by DATA or by BDAT: where it ends, how big it grows, whether it is clean lines.

Pure. Only CR LF . CR LF ends DATA; any other sequence that some server takes for an end is text, and refused as such.
"""

import io

from sternpost_ingress.engine_types import Budget, EngineLimits
from sternpost_mail.reply import Reply

END_OF_DATA = b"\r\n.\r\n"
STORAGE_BUSY = Reply(452, "4.3.1", "Too much mail is in flight here, try again")


class Text:
    """Collects the text of one transaction after the other; after a failure it only looks for the end."""

    __slots__ = ("_budget", "_buffer", "_charged", "_limits", "_octets", "failure")

    def __init__(self, limits: EngineLimits, budget: Budget) -> None:
        self.failure: Reply | None = None
        """What the text will be answered, when that is already certain."""
        self._limits = limits
        self._budget = budget
        self._buffer = bytearray()
        self._octets = 0
        self._charged = 0

    def begin(self) -> None:
        """DATA was said."""
        self._buffer = bytearray(b"\r\n")  # so that a dot on the first line stands behind a line break like any other

    def take_lines(self, data: bytes, at: int) -> tuple[int, bytes | None]:
        """Take `data[at:]` up to the end of data: how many octets were taken, and the text when it is complete."""
        buffer = self._buffer
        before = len(buffer)
        buffer += data[at:] if at else data
        end = buffer.find(END_OF_DATA, max(0, before - 4))
        taken = (end + 5 if end >= 0 else len(buffer)) - before
        self._charge(taken)
        if end < 0:
            if self.failure is not None:
                del buffer[:-4]  # only the end is still of interest
            return taken, None
        with memoryview(buffer) as view:
            text = bytes(view[: end + 2])
        self._buffer = bytearray()
        if b"\r\n." in text:
            text = text.replace(b"\r\n.", b"\r\n")  # RFC 5321 §4.5.2
        return taken, text[2:]

    def take_octets(self, octets: bytes) -> None:
        """Take a piece of a chunk."""
        self._charge(len(octets))
        if self.failure is None:
            self._buffer += octets

    def take_all(self) -> bytes:
        """The text of all chunks."""
        text = self._buffer
        self._buffer = bytearray()
        if text and not text.endswith(b"\r\n"):
            text += b"\r\n"  # a mail is lines; over DATA it would get the same end (RFC 3030 §3)
        return bytes(text)

    def judge(self, text: bytes) -> Reply | None:
        """Why the complete text is refused, or None."""
        if self.failure is not None:
            return self.failure
        if len(text) > self._limits.message:
            return too_big(self._limits)
        fault = find_text_fault(text, self._limits.text_line)
        return Reply(550, "5.6.0", fault) if fault else None

    def reset(self) -> None:
        """Forget everything and give back what was charged."""
        self.failure = None
        self._octets = 0
        self._release()

    def _charge(self, octets: int) -> None:
        if self.failure is not None:
            return
        self._octets += octets
        limit = self._limits.message
        if self._octets > limit + limit // 3 + 8:  # at worst every fourth octet is a dot that was added for transport
            self.failure = too_big(self._limits)
        elif self._budget.take(octets):
            self._charged += octets
            return
        else:
            self.failure = STORAGE_BUSY
        tail = self._buffer[-4:]
        self._release()
        self._buffer = tail

    def _release(self) -> None:
        self._budget.give(self._charged)
        self._charged = 0
        self._buffer = bytearray()


def too_big(limits: EngineLimits) -> Reply:
    """The answer to a mail over the limit, announced or sent."""
    return Reply(552, "5.3.4", f"The mail is larger than {limits.message} octets")


def find_text_fault(content: bytes, max_line: int) -> str:
    """Why a text cannot be relayed as lines of SMTP, or nothing: lone CR or LF, NUL, a line over `max_line` octets.

    A lone CR or LF is what end-of-data smuggling is made of (RFC 5321 §2.3.8): it is refused, never repaired.
    """
    # The standard library's newline decoder notes which kinds of line ends it saw: a quarter of the time of counting.
    decoder = io.IncrementalNewlineDecoder(None, translate=False)
    decoder.decode(content.decode("latin-1"), final=True)
    kinds = decoder.newlines
    if kinds is not None and kinds != "\r\n":
        bare = "LF" if "\n" in kinds else "CR"
        return f"The text has a bare {bare}; lines end in CR LF"
    if b"\0" in content:
        return "The text has a NUL"
    at, last = 0, len(content) - max_line - 2
    while at < last:  # hop from the last line break within reach to the next one
        found = content.rfind(b"\r\n", at, at + max_line + 2)
        if found < 0:
            return f"The text has a line longer than {max_line} octets"
        at = found + 2
    return ""
