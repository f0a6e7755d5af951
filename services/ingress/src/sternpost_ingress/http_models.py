"""What the HTTP API takes and gives, as pydantic models: shapes, bounds and descriptions. No decision lives here."""

import binascii
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from sternpost_ingress.compose import MAX_ATTACHMENTS, MAX_HEADER_VALUE, MAX_HEADERS, MAX_RECIPIENTS

MAX_TAGS = 10
"""Tags of one mail: they travel with every event."""
MAX_METADATA = 20
"""Pairs of metadata of one mail: they travel with every event."""
TAG_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}$"
ADDRESS_LENGTH = 600
"""Characters of an address with its display name."""


def _decode_base64(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("must be a base64 string")
    try:
        data = value.encode("ascii")
        if b"\n" in data:
            data = data.translate(None, b"\r\n")
        return binascii.a2b_base64(data, strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("is not base64 (RFC 4648 §4; line breaks may be in it)") from None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Base64 = Annotated[bytes, BeforeValidator(_decode_base64), WithJsonSchema({"type": "string", "format": "byte"})]
AddressText = Annotated[
    str, StringConstraints(max_length=ADDRESS_LENGTH), Field(examples=["Ada Lovelace <ada@example.com>"])
]
AddressTexts = Annotated[
    list[AddressText],
    BeforeValidator(_as_list),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "maxItems": MAX_RECIPIENTS}]}
    ),
]
Tag = Annotated[str, StringConstraints(pattern=TAG_PATTERN)]
Metadata = dict[
    Annotated[str, StringConstraints(min_length=1, max_length=64)], Annotated[str, StringConstraints(max_length=512)]
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AttachmentModel(_Strict):
    """A file of the mail."""

    filename: str = Field(description="plain file name, without a path", examples=["invoice.pdf"])
    content: Base64 = Field(description="the file, base64")
    content_type: str = Field(default="application/octet-stream", max_length=300)
    content_id: str = Field(default="", description="shows the file inside the HTML as `cid:<content_id>`")


class _Common(_Strict):
    tags: list[Tag] = Field(default_factory=list, max_length=MAX_TAGS, description="found again in events and lists")
    metadata: Metadata = Field(
        default_factory=dict, max_length=MAX_METADATA, description="kept with the message and given back, never sent"
    )
    send_at: AwareDatetime | None = Field(
        default=None, description="not sent before this time (RFC 3339 with an offset); a past one means at once"
    )


class SendRequest(_Common):
    """A mail in parts; its MIME structure is made here."""

    sender: AddressText = Field(alias="from", description="the one author; its domain must be declared for you")
    to: AddressTexts = Field(default_factory=list)
    cc: AddressTexts = Field(default_factory=list)
    bcc: AddressTexts = Field(default_factory=list, description="recipients that no copy of the mail names")
    reply_to: AddressTexts = Field(default_factory=list)
    subject: str = Field(default="", max_length=MAX_HEADER_VALUE)
    text: str | None = None
    html: str | None = None
    headers: dict[str, str] = Field(
        default_factory=dict,
        max_length=MAX_HEADERS,
        description="further header fields",
        examples=[{"X-Campaign": "7"}],
    )
    attachments: list[AttachmentModel] = Field(default_factory=list, max_length=MAX_ATTACHMENTS)


class RawRequest(_Common):
    """A finished mail (RFC 5322) and its envelope."""

    sender: str | None = Field(
        default=None,
        alias="from",
        max_length=ADDRESS_LENGTH,
        description="MAIL FROM; the header's From where it is left out, empty for the null reverse-path",
    )
    to: AddressTexts = Field(min_length=1, max_length=MAX_RECIPIENTS, description="RCPT TO; the header's To has no say")
    content: Base64 = Field(description="the mail, base64; it is sent as it stands")


class Accepted(BaseModel):
    """The mail is stored durably, and it is ours to deliver."""

    id: str = Field(description="names the message in every later request", examples=["01kb3c9q0zj8s2m4v6x8y0a2c4"])
    status: str = Field(description="`queued`, or `scheduled` where send_at lies ahead")
    send_at: AwareDatetime | None = Field(default=None, description="only with `scheduled`")


class Cancelling(BaseModel):
    """The mark is set: what has not been delivered when it is looked at next will not be sent."""

    id: str
    status: str = Field(default="cancelling")


class RecipientModel(BaseModel):
    """One recipient as it stands. Times are milliseconds since the epoch, 0 for none."""

    address: str
    state: str
    attempts: int
    last_reply: str
    remote: str
    next_attempt_ms: int


class TimelineModel(BaseModel):
    """One line of the timeline."""

    at_ms: int
    kind: str = Field(description="`accepted`, `attempt`, `decision` or `cancel_requested`")
    recipient: str
    state: str
    outcome: str
    reply: str
    remote: str
    tls: str
    attempt: int
    duration_ms: int
    next_attempt_ms: int


class MessageModel(BaseModel):
    """A message, its recipients and, asked for alone, its timeline."""

    id: str
    tenant: str
    state: str = Field(description="the least finished state of its recipients")
    sender: str
    accepted_ms: int
    size: int
    header_from: str
    subject: str
    message_id: str
    door: str
    client: str
    identity: str
    tags: list[str]
    metadata: dict[str, str]
    recipients: list[RecipientModel]
    timeline: list[TimelineModel]


class MessagePage(BaseModel):
    """Messages, newest first, without timelines."""

    messages: list[MessageModel]
    next_before: str = Field(description="pass it as `before` for the next page; empty at the end")
