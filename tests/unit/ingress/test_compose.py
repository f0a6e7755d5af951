"""From parts to octets, and that no part can become more than it is."""

import email
import email.policy
from collections.abc import Callable
from dataclasses import replace
from email.header import decode_header, make_header
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_ingress.compose import (
    MAX_ATTACHMENTS,
    MAX_HEADERS,
    MAX_LINE,
    MAX_RECIPIENTS,
    Attachment,
    ComposeError,
    Draft,
    Mailbox,
    compose,
    parse_mailbox,
)
from sternpost_mail.headers import read_header

PLAIN = Draft("Ada <ada@shop.example>", ["bob@remote.example"], subject="Hello", text="Hi\n")
FULL = Draft(
    sender="Ada <ada@shop.example>",
    to=["bob@remote.example"],
    cc=["carol@remote.example"],
    bcc=["dave@remote.example"],
    reply_to=["help@shop.example"],
    subject="Hello",
    text="Hi\n",
    html='<img src="cid:logo">\n',
    headers=[("X-Campaign", "7")],
    attachments=[
        Attachment("a.pdf", b"%PDF", "application/pdf"),
        Attachment("logo.png", b"PNG", "image/png", "logo"),
    ],
)
FULL_FIELDS = ["From", "To", "Cc", "Reply-To", "Subject", "X-Campaign", "MIME-Version", "Content-Type"]


def parse(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    return message


def errors(draft: Draft) -> dict[str, str]:
    with pytest.raises(ComposeError) as caught:
        compose(draft)
    return {error.field: error.message for error in caught.value.errors}


def test_a_plain_mail() -> None:
    made = compose(PLAIN)
    message = parse(made.content)
    assert message.get_content_type() == "text/plain"
    assert message["From"] == "Ada <ada@shop.example>"
    assert message["Subject"] == "Hello"
    assert message.get_content() == "Hi\r\n"
    assert (made.sender, made.recipients, made.fields) == ("ada@shop.example", ("bob@remote.example",), ("to.0",))
    assert not made.smtputf8


def test_all_parts_find_their_place() -> None:
    made = compose(FULL)
    message = parse(made.content)
    assert message.keys() == FULL_FIELDS
    assert message.get_content_type() == "multipart/mixed"
    alternative, pdf = message.iter_parts()
    assert alternative.get_content_type() == "multipart/alternative"
    plain, related = alternative.iter_parts()
    assert plain.get_content_type() == "text/plain"
    assert related.get_content_type() == "multipart/related"
    html, logo = related.iter_parts()
    assert html.get_content_type() == "text/html"
    assert (logo["Content-ID"], logo.get_content_disposition(), logo.get_payload(decode=True)) == (
        "<logo>",
        "inline",
        b"PNG",
    )
    assert (pdf.get_filename(), pdf.get_content_disposition(), pdf.get_payload(decode=True)) == (
        "a.pdf",
        "attachment",
        b"%PDF",
    )
    assert made.recipients == ("bob@remote.example", "carol@remote.example", "dave@remote.example")
    assert made.fields == ("to.0", "cc.0", "bcc.0")


def test_html_alone_with_an_inline_part() -> None:
    message = parse(compose(replace(FULL, text=None, attachments=FULL.attachments[1:])).content)
    assert message.get_content_type() == "multipart/related"


def test_bcc_is_in_no_header() -> None:
    assert b"dave" not in compose(FULL).content
    hidden = compose(replace(PLAIN, to=[], bcc=["dave@remote.example"]))
    assert b"dave" not in hidden.content
    assert hidden.recipients == ("dave@remote.example",)
    assert parse(hidden.content)["To"] == "undisclosed-recipients:;"


def test_a_recipient_named_twice_gets_one_copy() -> None:
    made = compose(replace(PLAIN, to=["bob@remote.example", "Bob <bob@REMOTE.example>"], cc=["bob@remote.example"]))
    assert made.recipients == ("bob@remote.example",)


MAILBOXES = [
    ("a@b.example", Mailbox("", "a@b.example")),
    ("  Joe Doe <a@B.example> ", Mailbox("Joe Doe", "a@b.example")),
    ('"Doe, Joe" <a@b.example>', Mailbox("Doe, Joe", "a@b.example")),
    ("Doe, Joe <a@b.example>", Mailbox("Doe, Joe", "a@b.example")),
    ('"say \\"hi\\"" <a@b.example>', Mailbox('say "hi"', "a@b.example")),
    ("a@bücher.example", Mailbox("", "a@xn--bcher-kva.example")),
    ("jürgen@bücher.example", Mailbox("", "jürgen@xn--bcher-kva.example")),
    ("x@y.test", Mailbox("", "x@y.test")),
    ("x@pod.svc.cluster.local", Mailbox("", "x@pod.svc.cluster.local")),
]


@pytest.mark.parametrize(("text", "expected"), MAILBOXES)
def test_addresses_are_parsed(text: str, expected: Mailbox) -> None:
    assert parse_mailbox(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "x", "a@", "@b.example", "a@b.example>", "Joe <a@b.example", "<a@b.example><c@d.example>", "postmaster",
     "J <x> <a@b.example>", "=?utf-8?q?a?=@b.example",
     "a b@c.example", "a@b.example, c@d.example", "a@[192.0.2.1]", '"a b"@c.example', "a@b..example", "a..b@c.example",
     "a@-b.example", "x" * 700 + "@b.example", "J" * 300 + " <a@b.example>", "a@b.example\r\nX: y"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(has|is) "):
        parse_mailbox(text)


NAMES = ["Doe, Joe", 'a "b" \\ c', "Jürgen", "=?utf-8?q?evil=40x?=", "a@b.example", "x" * 255]


@pytest.mark.parametrize("name", NAMES)
def test_a_display_name_arrives_as_it_was_written(name: str) -> None:
    made = compose(replace(PLAIN, sender=f"{name} <ada@shop.example>", to=[f"{name} <b@r.example>"] * 3))
    message = parse(made.content)
    assert read_header(made.content).from_addresses == ("ada@shop.example",)
    assert [box.display_name for box in message["From"].addresses] == [name]
    assert [box.display_name for box in message["To"].addresses] == [name] * 3


def test_a_display_name_of_several_encoded_words_is_one_name() -> None:
    # email.policy.SMTP reads spaces between them, against RFC 2047 section 6.2; the older reader is right.
    name = "日本" * 60
    content = compose(replace(PLAIN, sender=f"{name} <ada@shop.example>")).content
    value = email.message_from_bytes(content, policy=email.policy.compat32)["From"]
    assert str(make_header(decode_header(value))) == f"{name} <ada@shop.example>"


SUBJECTS = [
    "",
    " ",
    "plain",
    "two  spaces",
    "Grüße " * 60,
    "=?utf-8?q?not_an_encoded_word?=",
    "word " * 200,
    "x" * 3000,
    "日" * 500,
]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subject_arrives_as_it_was_written(subject: str) -> None:
    content = compose(replace(PLAIN, subject=subject)).content
    decoded = str(parse(content)["Subject"])
    assert decoded.strip() == subject.strip()


def test_a_long_word_of_a_header_is_not_broken() -> None:
    value = "<https://shop.example/" + "x" * 800 + ">, <mailto:leave@shop.example>"
    content = compose(replace(PLAIN, headers=[("List-Unsubscribe", value)])).content
    assert value.split()[0].encode() in content
    assert parse(content)["List-Unsubscribe"] == value


@pytest.mark.parametrize(
    "text", ["a\r\nb\rc\nd", "x" * 5000, "From me\n.\n..\n", "ümlaut", "", "a\x0bb\x0cc\x85d\u2028e", "x\n" * 3]
)
def test_a_body_is_seven_bit_with_short_lines_and_crlf(text: str) -> None:
    content = compose(replace(PLAIN, text=text, html=text)).content
    assert content.isascii()
    assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
    assert max(map(len, content.split(b"\r\n"))) <= MAX_LINE
    body = parse(content).get_body(("plain",))
    assert isinstance(body, EmailMessage)
    expected = text.replace("\r\n", "\n").replace("\r", "\n")
    assert body.get_content().replace("\r\n", "\n").rstrip("\n") == expected.rstrip("\n")


def test_an_address_beyond_ascii_needs_smtputf8() -> None:
    made = compose(replace(PLAIN, to=["Jürgen <jürgen@bücher.example>"]))
    assert made.smtputf8
    assert made.recipients == ("jürgen@xn--bcher-kva.example",)
    assert not compose(replace(PLAIN, to=["Jürgen <j@bücher.example>"])).smtputf8


FORBIDDEN = ["From", "to", "CC", "Bcc", "Sender", "Reply-To", "Subject", "Date", "Message-ID", "Received",
             "Return-Path", "DKIM-Signature", "MIME-Version", "Content-Type", "Content-Transfer-Encoding",
             "content-anything", "Resent-From", "ARC-Seal", "Authentication-Results", "Delivered-To"]  # fmt: skip


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_header_that_is_ours_may_not_be_set(name: str) -> None:
    assert errors(replace(PLAIN, headers=[(name, "x")])).keys() == {f"headers.{name}"}


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "a\r\nb", "x" * 77, "From ", "\tFrom", "From\0"])
def test_a_header_name_must_be_a_field_name(name: str) -> None:
    assert errors(replace(PLAIN, headers=[(name, "x")])).keys() == {"headers"}


FAULTS: list[tuple[Draft, str]] = [
    (replace(PLAIN, to=[]), "to"),
    (replace(PLAIN, text=None), "text"),
    (replace(PLAIN, text="a\0b"), "text"),
    (replace(PLAIN, html="\ud800"), "html"),
    (replace(PLAIN, to=["b@r.example"] * (MAX_RECIPIENTS + 1)), "to"),
    (replace(PLAIN, headers=[(f"X-{n}", "x") for n in range(MAX_HEADERS + 1)]), "headers"),
    (replace(PLAIN, headers=[("X-Long", "x" * 901)]), "headers.X-Long"),
    (replace(PLAIN, subject="x" * 9000), "subject"),
    (replace(PLAIN, attachments=[Attachment("a", b"")] * (MAX_ATTACHMENTS + 1)), "attachments"),
    (replace(PLAIN, attachments=[Attachment("../a", b"")]), "attachments.0.filename"),
    (replace(PLAIN, attachments=[Attachment("a\\b", b"")]), "attachments.0.filename"),
    (replace(PLAIN, attachments=[Attachment("..", b"")]), "attachments.0.filename"),
    (replace(PLAIN, attachments=[Attachment(" ", b"")]), "attachments.0.filename"),
    (replace(PLAIN, attachments=[Attachment("x" * 256, b"")]), "attachments.0.filename"),
    (replace(PLAIN, attachments=[Attachment("a", b"", "pdf")]), "attachments.0.content_type"),
    (replace(PLAIN, attachments=[Attachment("a", b"", "a/b\r\nX: y")]), "attachments.0.content_type"),
    (replace(PLAIN, attachments=[Attachment("a", b"", "multipart/mixed")]), "attachments.0.content_type"),
    (replace(PLAIN, attachments=[Attachment("a", b"", "message/rfc822")]), "attachments.0.content_type"),
    (replace(PLAIN, attachments=[Attachment("a", b"", "a/b", "id")]), "attachments.0.content_id"),
    (replace(FULL, attachments=[Attachment("a", b"", "a/b", "id>\r\n")]), "attachments.0.content_id"),
    (replace(FULL, attachments=[Attachment("a", b"", "a/b", "id")] * 2), "attachments.1.content_id"),
]


@pytest.mark.parametrize(("draft", "field"), FAULTS, ids=[f"{n}-{row[1]}" for n, row in enumerate(FAULTS)])
def test_a_fault_names_its_field(draft: Draft, field: str) -> None:
    assert list(errors(draft)) == [field]


def test_all_faults_are_told_at_once() -> None:
    found = errors(Draft("x", ["y", "b@r.example"], ["z"], subject="a\nb"))
    assert set(found) == {"from", "to.0", "cc.0", "subject", "text"}


def test_an_attachment_may_have_any_name_and_charset() -> None:
    name = 'Größe "x"; y=1%.csv'
    content = compose(replace(PLAIN, attachments=[Attachment(name, b"a;b", 'text/csv; charset="utf-8"')])).content
    part = next(parse(content).iter_attachments())
    assert part.get_filename() == name
    assert part.get_content_charset() == "utf-8"
    assert part.get_payload(decode=True) == b"a;b"


# --- injection ------------------------------------------------------------------------------------------------------

BREAKS = ["\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\x7f",
          "=?utf-8?q?=0D=0A?=", "=?utf-8?q?=0a?=", "=?utf-8?b?DQo=?=", "=?utf-8?Q?x=00y?=", "=?iso-8859-1?q?=85?=",
          "=?utf-8?q?=E2=80=A8?=", "=?nonsense?q?=0A?=", "=?utf-16?b?AAoADQ==?=", "=?utf-7?q?+AAo-?=",
          "=?utf-8*en?q?=0A?=", "=?us-ascii?b?Cg?=", "''%0D%0A", "utf-8''%0D%0AEvil:%201"]  # fmt: skip

PLACES: dict[str, Callable[[str], Draft]] = {
    "from": lambda text: replace(FULL, sender=f"{text} <ada@shop.example>"),
    "from address": lambda text: replace(FULL, sender=f"ada{text}@shop.example"),
    "to": lambda text: replace(FULL, to=[f'"{text}" <bob@remote.example>']),
    "to domain": lambda text: replace(FULL, to=[f"bob@remote.example{text}"]),
    "cc": lambda text: replace(FULL, cc=[f"{text} <bob@remote.example>"]),
    "bcc": lambda text: replace(FULL, bcc=[f"{text} <bob@remote.example>"]),
    "reply_to": lambda text: replace(FULL, reply_to=[f"{text} <bob@remote.example>"]),
    "subject": lambda text: replace(FULL, subject=text),
    "text": lambda text: replace(FULL, text=text),
    "html": lambda text: replace(FULL, html=text),
    "header": lambda text: replace(FULL, headers=[("X-Campaign", text)]),
    "header name": lambda text: replace(FULL, headers=[(f"X-Campaign{text}", "7")]),
    "filename": lambda text: replace(FULL, attachments=[Attachment(text, b"x", "a/b"), FULL.attachments[1]]),
    "content_type": lambda text: replace(FULL, attachments=[Attachment("a", b"x", f"a/b{text}"), FULL.attachments[1]]),
    "charset": lambda text: replace(FULL, attachments=[Attachment("a", b"x", f"a/b; charset={text}")]),
    "content_id": lambda text: replace(FULL, attachments=[Attachment("a", b"x", "a/b", text), FULL.attachments[1]]),
}  # fmt: skip


@given(
    st.sampled_from(sorted(PLACES)),
    st.lists(
        st.one_of(st.sampled_from([*BREAKS, "Evil: 1", "evil@bank.example", ": ", " ", "<", ">"]), st.text(max_size=8)),
        max_size=8,
    ),
)
def test_no_value_ever_adds_a_header_field(place: str, pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        made = compose(PLACES[place](text))
    except ComposeError:
        return
    assert_sound(made.content, FULL_FIELDS if place != "header name" else None)


@pytest.mark.parametrize("place", sorted(PLACES))
@pytest.mark.parametrize("piece", BREAKS)
def test_every_kind_of_line_break_in_every_place(place: str, piece: str) -> None:
    for text in (
        piece,
        f"a{piece}Evil: 1",
        f"a{piece} Evil: 1",
        f"a{piece}{piece}From: evil@bank.example",
        f"{piece}x",
    ):
        draft = PLACES[place](text)
        try:
            made = compose(draft)
        except ComposeError:
            continue
        assert_sound(made.content, FULL_FIELDS if place != "header name" else None)


@pytest.mark.parametrize("piece", [piece for piece in BREAKS if "''" not in piece and "utf-7" not in piece])
@pytest.mark.parametrize("place", ["from", "to", "cc", "bcc", "reply_to", "subject", "header", "filename"])
def test_a_control_character_is_refused_not_repaired(place: str, piece: str) -> None:
    with pytest.raises(ComposeError, match="control character"):
        compose(PLACES[place](f"a{piece}Evil: 1"))


def assert_sound(content: bytes, fields: list[str] | None) -> None:
    """What every reader must agree on: the fields are ours, in number and name, in the mail and in all its parts."""
    assert content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")
    assert b"\0" not in content
    for policy in (email.policy.SMTP, email.policy.compat32):
        message = email.message_from_bytes(content, policy=policy)
        if fields is not None:
            assert [key for key in message if key != "Content-Transfer-Encoding"] == fields
        for part in message.walk():
            assert "Evil" not in part
            if part is not message:
                assert part["From"] is None
                assert {key.lower() for key in part} <= {
                    "content-type", "content-transfer-encoding", "content-disposition", "content-id", "mime-version"
                }  # fmt: skip
    header = read_header(content)
    assert (header.from_fields, header.from_error) == (1, "")
