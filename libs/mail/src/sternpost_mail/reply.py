"""SMTP replies: code, enhanced code and text (RFC 5321 §4.2, RFC 3463), theirs and ours."""

import re
from dataclasses import dataclass

MAX_REPLY_TEXT = 1024
"""Characters of a remote's reply that are kept: enough to diagnose, bounded because the remote chooses it."""

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?:[ \t]+|$)")


@dataclass(frozen=True, slots=True)
class Reply:
    """One complete reply. `enhanced` is `"2.1.5"` or `""`; `text` may hold several lines, joined by a line feed."""

    code: int
    enhanced: str
    text: str

    @property
    def is_positive(self) -> bool:
        """2yz or 3yz."""
        return 200 <= self.code < 400

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, self.text.replace("\n", " ")) if part)


def make_reply(code: int, lines: list[str]) -> Reply:
    """A reply from its code and the text of its lines; the enhanced code is taken off each line that repeats it.

    An enhanced code whose class contradicts the code (RFC 3463 §2) is left in the text and not believed.
    """
    match = _ENHANCED.match(lines[0]) if lines else None
    enhanced = ""
    if match and match.group(1) == str(code)[0]:
        enhanced = match.group().strip()
        lines = [line[len(enhanced) :].lstrip() if line.startswith(enhanced) else line for line in lines]
    return Reply(code, enhanced, "\n".join(lines)[:MAX_REPLY_TEXT])
