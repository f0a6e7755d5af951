"""From a request's body to a submission: an envelope and octets, checked for what HTTP adds. Pure.

Whether the client may send it is the accept decision's business; storing it is `http_send`'s.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from sternpost_ingress.accept import Client, Refusal, check_content, check_recipient, check_sender, refuse_header
from sternpost_ingress.compose import (
    MAX_RECIPIENTS,
    Attachment,
    ComposeError,
    Draft,
    FieldError,
    compose,
    parse_mailbox,
)
from sternpost_ingress.http_models import RawRequest, SendRequest
from sternpost_ingress.http_settings import HttpSettings
from sternpost_ingress.problems import Problem, problem_of, problem_of_validation
from sternpost_mail.address import parse_address
from sternpost_mail.config import Config
from sternpost_mail.envelope import Envelope, Recipient
from sternpost_mail.headers import HeaderError, HeaderFacts, read_header

MAX_RAW_LINE = 2048
"""Octets of one line of a raw mail, as the SMTP doors take (RFC 5322 says 998; what is signed may not be folded)."""
DAY_MS = 86_400_000
_LONG_LINE = re.compile(rb"[^\n]{%d}" % (MAX_RAW_LINE + 2))


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client wants sent. `fields` are the paths of the recipients in the request."""

    envelope: Envelope
    fields: tuple[str, ...]
    content: bytes
    header: HeaderFacts
    tags: tuple[str, ...]
    metadata: tuple[tuple[str, str], ...]
    send_at_ms: int
    """0 means at once."""


def from_parts(body: bytes) -> Submission:
    """The submission of a JSON body of POST /v1/messages. Raises Problem."""
    try:
        request = SendRequest.model_validate_json(body)
    except ValidationError as error:
        raise problem_of_validation(error) from None
    draft = Draft(
        sender=request.sender,
        to=request.to,
        cc=request.cc,
        bcc=request.bcc,
        reply_to=request.reply_to,
        subject=request.subject,
        text=request.text,
        html=request.html,
        headers=tuple(request.headers.items()),
        attachments=tuple(
            [Attachment(a.filename, a.content, a.content_type, a.content_id) for a in request.attachments]
        ),
    )
    try:
        composed = compose(draft)
    except ComposeError as error:
        raise _invalid(error.errors) from None
    return Submission(
        envelope=Envelope(
            composed.sender,
            tuple([Recipient(address) for address in composed.recipients]),
            smtputf8=composed.smtputf8,
        ),
        fields=composed.fields,
        content=composed.content,
        header=read_header(composed.content),
        tags=tuple(request.tags),
        metadata=tuple(request.metadata.items()),
        send_at_ms=_millis(request.send_at),
    )


def from_raw_json(body: bytes) -> Submission:
    """The submission of a JSON body of POST /v1/messages/raw. Raises Problem."""
    try:
        request = RawRequest.model_validate_json(body)
    except ValidationError as error:
        raise problem_of_validation(error) from None
    return _raw(request)


def from_raw(
    content: bytes, sender: str | None, to: Sequence[str], tags: Sequence[str], send_at: str | None
) -> Submission:
    """The submission of a message/rfc822 body; the envelope comes from the query. Raises Problem."""
    try:
        given = {"from": sender, "to": list(to), "tags": list(tags), "send_at": send_at or None, "content": ""}
        request = RawRequest.model_validate(given)
    except ValidationError as error:
        raise problem_of_validation(error) from None
    return _raw(request.model_copy(update={"content": content}))


def _raw(request: RawRequest) -> Submission:
    content = request.content
    if b"\r" not in content:
        # A file from a Unix disk: every line ends in LF alone, so what is meant is certain (RFC 2046 §4.1.1).
        content = content.replace(b"\n", b"\r\n")
    breaks = content.count(b"\r\n")
    if content.count(b"\r") != breaks or content.count(b"\n") != breaks:
        raise _invalid([FieldError("content", "has a bare CR or LF among its CRLF line ends")])
    if b"\0" in content:
        raise _invalid([FieldError("content", "has a NUL")])
    if _LONG_LINE.search(content):
        raise _invalid([FieldError("content", f"has a line longer than {MAX_RAW_LINE} octets")])
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"  # DATA needs it, and nothing else could be meant
    try:
        header = read_header(content)
    except HeaderError as error:
        raise problem_of([("content", refuse_header(error))]) from None
    errors: list[FieldError] = []
    sender = request.sender
    if sender is None:
        sender = header.from_addresses[0] if len(header.from_addresses) == 1 else ""
        if not sender:
            errors.append(FieldError("from", "is needed: the header names not exactly one author"))
    elif sender:
        sender = _bare("from", sender, errors)
    recipients: dict[str, str] = {}
    for number, text in enumerate(request.to[:MAX_RECIPIENTS]):
        recipients.setdefault(_bare(f"to.{number}", text, errors), f"to.{number}")
    if errors:
        raise _invalid(errors)
    ascii_only = sender.isascii() and all(map(str.isascii, recipients)) and not header.header_eight_bit
    return Submission(
        envelope=Envelope(sender, tuple([Recipient(text) for text in recipients]), smtputf8=not ascii_only),
        fields=tuple(recipients.values()),
        content=content,
        header=header,
        tags=tuple(request.tags),
        metadata=tuple(request.metadata.items()),
        send_at_ms=_millis(request.send_at),
    )


def check(client: Client, submission: Submission, config: Config, settings: HttpSettings, now_ms: int) -> None:
    """The accept decision on a whole submission. Raises Problem with every recipient that is refused."""
    if len(submission.content) > settings.max_mail_octets:
        raise Problem("too-large", f"The mail is larger than {settings.max_mail_octets} octets.")
    if submission.send_at_ms > now_ms + settings.max_schedule_days * DAY_MS:
        raise _invalid([FieldError("send_at", f"lies more than {settings.max_schedule_days} days ahead")])
    envelope = submission.envelope
    sender = parse_address(envelope.sender) if envelope.sender else None
    refusals: list[tuple[str, Refusal]] = []
    refusal = check_sender(client, sender, config) or check_content(client, sender, submission.header, config, envelope)
    if refusal:
        refusals.append(("", refusal))
    for recipient, field in zip(envelope.recipients, submission.fields, strict=True):
        address = parse_address(recipient.address)
        if refusal := check_recipient(client, sender, address, config, tags=submission.tags):
            refusals.append((field, refusal))
    if refusals:
        raise problem_of(refusals)


def _bare(field: str, text: str, errors: list[FieldError]) -> str:
    try:
        return parse_mailbox(text).address
    except ValueError as error:
        errors.append(FieldError(field, str(error)))
        return ""


def _invalid(errors: Sequence[FieldError]) -> Problem:
    detail = "One member is not valid." if len(errors) == 1 else f"{len(errors)} members are not valid."
    return Problem("invalid-message", detail, errors=errors)


def _millis(moment: datetime | None) -> int:
    return max(1, int(moment.timestamp() * 1000)) if moment else 0
