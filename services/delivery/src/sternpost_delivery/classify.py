"""What a reply means for a recipient. Pure, and the only place where that is decided; unknown means temporary.

It does not know what happens next: retry, the next host and reports are decided elsewhere.
"""

import re
from collections.abc import Sequence
from enum import StrEnum

from sternpost_mail.outcome import Delivered, Outcome, PermanentFailure, TemporaryFailure
from sternpost_mail.reply import Reply

MAX_RETRY_AFTER = 86400.0
"""Seconds: a remote's wish beyond a day is not a wish but a mistake."""


class Stage(StrEnum):
    """Where in the dialogue a reply came."""

    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "the final dot"


SESSION_STAGES = frozenset({Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH})
"""No mail was named yet, so a refusal says nothing about a mail: it is the site's trouble, or our configuration's.

RFC 5321 §3.1 lets a server greet with 554, meaning "not here": the next MX is tried, and the mail waits.
"""
OURS_TO_MEND: dict[int, str] = {
    503: "bad sequence: the dialogue went wrong, or the server wants AUTH first",
    530: "the server demands STARTTLS or AUTH (RFC 3207 §4, RFC 4954 §6)",
    534: "the mechanism is too weak (RFC 4954 §6)",
    535: "our credential is wrong (RFC 4954 §6)",
    538: "the mechanism needs encryption (RFC 4954 §6)",
}
"""5yz codes that blame our session rather than the mail: an administrator can mend them before the mail expires."""

_CONTRADICTION = re.compile(r"\W*4\.\d{1,3}\.\d{1,3}\b")
_TOO_MANY = re.compile(r"too many", re.IGNORECASE)
_AGAIN = re.compile(
    r"\b(?:again|retry|delay(?:ed)?|wait|back|greylist(?:ed|ing)?|graylist(?:ed|ing)?)\b[^\d\n]{0,40}?"
    r"(?:(?P<h>\d{1,2}):(?P<m>[0-5]\d):(?P<s>[0-5]\d)|(?P<count>\d{1,6})\s*(?P<unit>s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?)\b)",
    re.IGNORECASE,
)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def classify(stage: Stage, reply: Reply) -> Outcome:
    """The outcome for a recipient whose fate this reply decides.

    Success is only a 2yz to the final dot; anything positive elsewhere is a breach of protocol, and temporary.
    """
    if stage is Stage.CONTENT and 200 <= reply.code < 300:
        return Delivered(reply)
    if is_permanent(stage, reply):
        return PermanentFailure(reply)
    return TemporaryFailure(reply, retry_after(reply))


def is_permanent(stage: Stage, reply: Reply) -> bool:
    """Whether the reply ends the recipient for good: 5yz to a command that names the mail, with nothing against it."""
    if not 500 <= reply.code < 600 or stage in SESSION_STAGES or reply.code in OURS_TO_MEND:
        return False
    if not reply.enhanced and _CONTRADICTION.match(reply.text):
        return False  # `552 4.2.2 mailbox full`: it says both, so it is not certain
    return not is_too_many_recipients(stage, reply)


def is_too_many_recipients(stage: Stage, reply: Reply) -> bool:
    """RFC 5321 §4.5.3.1.10: old servers say 552 where they mean 452, and the recipient is to be tried again."""
    return (
        stage is Stage.RCPT
        and reply.code == 552
        and (reply.enhanced == "5.5.3" or (not reply.enhanced and bool(_TOO_MANY.search(reply.text))))
    )


def retry_after(reply: Reply) -> float:
    """Seconds after which the server wants to be asked again ("try again in 5 minutes"), 0 where it does not say."""
    match = _AGAIN.search(reply.text)
    if match is None:
        return 0.0
    if match["count"] is None:
        wish = int(match["h"]) * 3600.0 + int(match["m"]) * 60.0 + int(match["s"])
    else:
        wish = int(match["count"]) * _SECONDS[match["unit"][0].lower()]
    return min(wish, MAX_RETRY_AFTER)


def judge(
    mail: Reply, recipients: Sequence[Reply], data: Reply | None, final: Reply | None, count: int
) -> tuple[Outcome, ...]:
    """The outcomes of a mail's `count` recipients from the replies of its transaction, in the order of RCPT.

    A recipient that was refused keeps that refusal whatever came later; those accepted share the fate of the content.
    """
    if mail.code >= 300:
        return (classify(Stage.MAIL, mail),) * count
    if final is not None:
        shared: Outcome | None = classify(Stage.CONTENT, final)
    else:
        shared = classify(Stage.DATA, data) if data is not None and data.code >= 400 else None
    return tuple(
        [shared if shared is not None and reply.code < 300 else classify(Stage.RCPT, reply) for reply in recipients]
    )
