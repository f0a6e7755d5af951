"""Writes delivery status notifications: RFC 3464 reports in an RFC 6522 multipart, honouring RFC 3461. Pure.

The null sender is never answered. Everything that comes from outside (replies, addresses, ENVID) is made safe for a header.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.generator import BytesGenerator
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import StrEnum
from io import BytesIO

from sternpost_mail.envelope import Mail, Ret
from sternpost_mail.reply import make_reply

MAX_RETURNED = 50_000
"""Octets of the original that a report returns in full (Postfix's figure); a larger one returns its header only."""
MAX_HEADER_RETURNED = 32_000
"""Octets of the original's header that are returned."""


class Action(StrEnum):
    """RFC 3464 §2.3.3."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"
    DELIVERED = "delivered"


@dataclass(frozen=True, slots=True)
class Report:
    """What one recipient's part of the notification says. `reply` is the remote's reply or our reason, as one line."""

    recipient: int
    action: Action
    reply: str
    expired: bool = False
    remote: str = ""
    will_retry_until_ms: int = 0


def status_of(report: Report) -> str:
    """RFC 3464 §2.3.4 Status: the reply's enhanced code where it agrees with the action, else the class's general one."""
    if report.action in (Action.DELIVERED, Action.RELAYED):
        return "2.0.0"
    digit = "4" if report.action is Action.DELAYED or report.expired else "5"
    if report.expired:
        return "4.4.7"  # RFC 3463: delivery time expired
    match = re.match(r"(\d{3}) (.*)", report.reply, re.DOTALL)
    if match:
        enhanced = make_reply(int(match.group(1)), [match.group(2)]).enhanced
        if enhanced.startswith(digit):
            return enhanced
    return f"{digit}.0.0"


def make_report(
    mail: Mail, content: bytes, reports: list[Report], *, hostname: str, now_ms: int, message_id: str
) -> bytes:
    """The octets of the notification for one mail. `content` is the original (or its beginning, for a large one)."""
    worst = next((r for r in reports if r.action is Action.FAILED), reports[0])
    outer = EmailMessage(policy=SMTP)
    moment = datetime.fromtimestamp(now_ms / 1000, UTC)
    outer["From"] = f"Mail Delivery System <MAILER-DAEMON@{hostname}>"
    outer["To"] = f"<{_safe(mail.envelope.sender)}>"
    outer["Subject"] = _SUBJECTS[worst.action]
    outer["Date"] = format_datetime(moment)
    outer["Message-ID"] = f"<{message_id}@{hostname}>"
    outer["Auto-Submitted"] = "auto-replied"
    outer["MIME-Version"] = "1.0"
    boundary = f"report-{message_id}"
    outer["Content-Type"] = f'multipart/report; report-type=delivery-status; boundary="{boundary}"'
    head = _octets(outer)
    parts = [
        _part("text/plain; charset=utf-8", _explain(mail, reports, hostname).encode()),
        _part("message/delivery-status", _status(mail, reports, hostname, moment).encode("utf-8", "replace")),
        _returned(mail, content),
    ]
    line = f"--{boundary}".encode()
    body = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts)
    return head + body + line + b"--\r\n"


_SUBJECTS = {
    Action.FAILED: "Undelivered Mail Returned to Sender",
    Action.DELAYED: "Delayed Mail (still being retried)",
    Action.RELAYED: "Successful Mail Delivery Report",
    Action.DELIVERED: "Successful Mail Delivery Report",
}


def _part(content_type: str, body: bytes) -> bytes:
    encoding = b"" if body.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
    return b"Content-Type: " + content_type.encode() + b"\r\n" + encoding + b"\r\n" + body


def _octets(message: EmailMessage) -> bytes:
    out = BytesIO()
    BytesGenerator(out, policy=SMTP).flatten(message)
    text = out.getvalue()
    return text if text.endswith(b"\r\n\r\n") else text.rstrip(b"\r\n") + b"\r\n\r\n"


def _explain(mail: Mail, reports: list[Report], hostname: str) -> str:
    lines = [f"This is the mail system at {hostname}.", ""]
    for report in reports:
        address = _safe(mail.envelope.recipients[report.recipient].address)
        if report.action is Action.FAILED and report.expired:
            lines.append(f"<{address}>: could not be delivered in time; the last answer was: {_safe(report.reply)}")
        elif report.action is Action.FAILED:
            lines.append(f"<{address}>: was refused: {_safe(report.reply)}")
        elif report.action is Action.DELAYED:
            lines.append(f"<{address}>: is delayed and still being tried; the last answer was: {_safe(report.reply)}")
        else:
            lines.append(f"<{address}>: was handed to a system that sends no further report: {_safe(report.reply)}")
    return "\r\n".join([*lines, "", "The mail's own header, or all of it, is attached.", ""])


def _status(mail: Mail, reports: list[Report], hostname: str, moment: datetime) -> str:
    envelope = mail.envelope
    lines = [f"Reporting-MTA: dns; {hostname}"]
    if envelope.envid:
        lines.append(f"Original-Envelope-Id: {_safe(envelope.envid)}")
    arrival = datetime.fromtimestamp(mail.accepted_ms / 1000, UTC)
    lines += [f"Arrival-Date: {format_datetime(arrival)}", ""]
    for report in reports:
        recipient = envelope.recipients[report.recipient]
        kind = "rfc822" if recipient.address.isascii() else "utf-8"  # RFC 6533 §3
        if recipient.orcpt:
            lines.append(f"Original-Recipient: {_safe(recipient.orcpt)}")
        lines += [
            f"Final-Recipient: {kind}; {_safe(recipient.address)}",
            f"Action: {report.action}",
            f"Status: {status_of(report)}",
        ]
        if report.remote:
            lines.append(f"Remote-MTA: dns; {_safe(report.remote.split(' ')[0])}")
        if re.match(r"\d{3} ", report.reply):
            lines.append(f"Diagnostic-Code: smtp; {_safe(report.reply)}")
        elif report.reply:
            lines.append(f"Diagnostic-Code: x-sternpost; {_safe(report.reply)}")
        lines.append(f"Last-Attempt-Date: {format_datetime(moment)}")
        if report.will_retry_until_ms:
            until = datetime.fromtimestamp(report.will_retry_until_ms / 1000, UTC)
            lines.append(f"Will-Retry-Until: {format_datetime(until)}")
        lines.append("")
    return "\r\n".join(lines)


def _returned(mail: Mail, content: bytes) -> bytes:
    full = mail.envelope.ret is not Ret.HDRS and mail.size <= MAX_RETURNED and len(content) == mail.size
    if full:
        return _part("message/rfc822", content)
    end = content.find(b"\r\n\r\n")
    header = content[: end + 2] if end >= 0 else content
    return _part("text/rfc822-headers", header[:MAX_HEADER_RETURNED])


def _safe(text: str) -> str:
    """One line without control characters: what a remote said must not become a header of ours."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)[:900].strip()
