"""Writes delivery status notifications: RFC 3464 reports in an RFC 6522 multipart, honouring RFC 3461. Pure.

The null sender is never answered. Everything that comes from outside (replies, addresses, ENVID) is made safe for a
header.
"""

import re
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import StrEnum

from sternpost_mail.envelope import Mail, Ret
from sternpost_mail.reply import make_reply

MAX_RETURNED = 50_000
"""Octets of the original that a report returns in full (Postfix's figure); a larger one returns its header only."""
MAX_HEADER_RETURNED = 32_000
"""Octets of the original's header that are returned."""
MAX_FIELD = 900
"""Characters of one field of a report; a line of a mail has 998 octets (RFC 5322 §2.1.1)."""


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
    """RFC 3464 §2.3.4 Status: the reply's enhanced code where it agrees with the action, else its general one."""
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
    """The octets of the notification for one mail.

    `content` is the whole original, or empty where it could not be read. The status part is always ASCII; the returned
    original and an SMTPUTF8 sender's address are not where they were not before.
    """
    worst = next((r for r in reports if r.action is Action.FAILED), reports[0])
    moment = datetime.fromtimestamp(now_ms / 1000, UTC)
    boundary = f"report-{message_id}"
    head = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{_line(mail.envelope.sender)}>",
        f"Subject: {_SUBJECTS[worst.action]}",
        f"Date: {format_datetime(moment)}",
        f"Message-ID: <{message_id}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
        "",
        "",
    ]
    parts = [
        _part("text/plain; charset=utf-8", _explain(mail, reports, hostname).encode("utf-8", "replace")),
        _part("message/delivery-status", _status(mail, reports, hostname, moment).encode("ascii")),
        _returned(mail, content),
    ]
    line = f"--{boundary}".encode()
    body = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts)
    return "\r\n".join(head).encode("utf-8", "replace") + body + line + b"--\r\n"


_SUBJECTS = {
    Action.FAILED: "Undelivered Mail Returned to Sender",
    Action.DELAYED: "Delayed Mail (still being retried)",
    Action.RELAYED: "Successful Mail Delivery Report",
    Action.DELIVERED: "Successful Mail Delivery Report",
}


def _part(content_type: str, body: bytes) -> bytes:
    encoding = b"" if body.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
    return b"Content-Type: " + content_type.encode() + b"\r\n" + encoding + b"\r\n" + body


def _explain(mail: Mail, reports: list[Report], hostname: str) -> str:
    lines = [f"This is the mail system at {hostname}."]
    for report in reports:
        address = _line(mail.envelope.recipients[report.recipient].address)
        if report.action is Action.FAILED and report.expired:
            lines += ["", f"<{address}>", "could not be delivered in time; the last answer was:"]
        elif report.action is Action.FAILED:
            lines += ["", f"<{address}>", "was refused:"]
        elif report.action is Action.DELAYED:
            lines += ["", f"<{address}>", "is delayed and still being tried; the last answer was:"]
        else:
            lines += ["", f"<{address}>", "was handed to a system that sends no further report:"]
        reply = _line(report.reply) or "(none)"
        lines += textwrap.wrap(
            reply, 72, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
        )  # a line of 72 characters stays below 998 octets, whatever they are
    return "\r\n".join([*lines, "", "The mail's own header, or all of it, is attached.", ""])


def _status(mail: Mail, reports: list[Report], hostname: str, moment: datetime) -> str:
    envelope = mail.envelope
    lines = [f"Reporting-MTA: dns; {hostname}"]
    if envelope.envid:
        lines.append(f"Original-Envelope-Id: {_field(_from_xtext(envelope.envid))}")
    arrival = datetime.fromtimestamp(mail.accepted_ms / 1000, UTC)
    lines += [f"Arrival-Date: {format_datetime(arrival)}", ""]
    for report in reports:
        recipient = envelope.recipients[report.recipient]
        if recipient.orcpt:
            kind, _, address = recipient.orcpt.partition(";")
            lines.append(f"Original-Recipient: {_field(kind)}; {_address(kind, _from_xtext(address))}")
        kind = "rfc822" if recipient.address.isascii() else "utf-8"
        lines += [
            f"Final-Recipient: {kind}; {_address(kind, recipient.address)}",
            f"Action: {report.action}",
            f"Status: {status_of(report)}",
        ]
        if report.remote:
            lines.append(f"Remote-MTA: dns; {_field(report.remote.split(' ')[0])}")
        if re.match(r"\d{3} ", report.reply):
            lines.append(f"Diagnostic-Code: smtp; {_field(report.reply)}")
        elif report.reply:
            lines.append(f"Diagnostic-Code: x-sternpost; {_field(report.reply)}")
        lines.append(f"Last-Attempt-Date: {format_datetime(moment)}")
        if report.will_retry_until_ms:
            until = datetime.fromtimestamp(report.will_retry_until_ms / 1000, UTC)
            lines.append(f"Will-Retry-Until: {format_datetime(until)}")
        lines.append("")
    return "\r\n".join(lines)


def _returned(mail: Mail, content: bytes) -> bytes:
    end = content.find(b"\r\n\r\n")
    header = content[: end + 2] if end >= 0 else content
    international = not header.isascii()  # RFC 6532: such a header is no message/rfc822
    if mail.envelope.ret is not Ret.HDRS and mail.size <= MAX_RETURNED and len(content) == mail.size:
        return _part("message/global" if international else "message/rfc822", content)
    if len(header) > MAX_HEADER_RETURNED:
        header = header[: header.rfind(b"\r\n", 0, MAX_HEADER_RETURNED) + 2]  # whole lines only
    return _part("message/global-headers" if international else "text/rfc822-headers", header)


def _line(text: str) -> str:
    """One line without control characters: what a remote said must not become a header of ours."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text)[:MAX_FIELD].strip()


def _field(text: str) -> str:
    """The same in ASCII, for the status part."""
    return _NOT_ASCII.sub(_embedded, _line(text))[:MAX_FIELD]


def _address(kind: str, address: str) -> str:
    """An address of the status part: international ones in the ASCII form of RFC 6533 §3 (utf-8-addr-xtext)."""
    if kind.lower() == "utf-8" and not address.isascii():
        return _NOT_QUCHAR.sub(_embedded, _line(address))
    return _field(address)


def _embedded(match: re.Match[str]) -> str:
    return f"\\x{{{ord(match.group()):X}}}"


_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
_NOT_QUCHAR = re.compile(r"[^\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e]")


def _from_xtext(text: str) -> str:
    """RFC 3461 §4: xtext is for the SMTP command only, a report shows what it stands for."""
    return re.sub(r"\+([0-9A-F]{2})", lambda match: chr(int(match.group(1), 16)), text) if text.isascii() else text
