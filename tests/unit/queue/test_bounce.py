"""Every report parses back, says what RFC 3464 wants, and lets no stranger write its headers."""

import email
import email.policy
import re
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_mail.address import AddressError, parse_address
from sternpost_mail.envelope import Mail, Recipient, Ret
from sternpost_queue.bounce import MAX_HEADER_RETURNED, MAX_RETURNED, Action, Report, make_report, status_of
from tests.unit.queue.build import CONTENT, NOW, make_mail

REFUSED = Report(0, Action.FAILED, "550 5.1.1 no such user")
HEADER = b"From: a@sender.example\r\nSubject: hello\r\n"


def octets(mail: Mail, *reports: Report, content: bytes | None = None) -> bytes:
    return make_report(
        mail,
        mail.content if content is None else content,
        list(reports) or [REFUSED],
        hostname="mx.home.example",
        now_ms=NOW + 60_000,
        message_id="01jexample",
    )


def parsed(data: bytes) -> EmailMessage:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    assert [part.defects for part in message.walk() if part.defects] == []
    return message


def parts(data: bytes) -> tuple[EmailMessage, EmailMessage, EmailMessage]:
    message = parsed(data)
    found = list(message.iter_parts())
    assert len(found) == 3
    human, status, returned = found
    assert isinstance(human, EmailMessage)
    assert isinstance(status, EmailMessage)
    assert isinstance(returned, EmailMessage)
    return human, status, returned


def status_fields(data: bytes) -> list[dict[str, str]]:
    """The groups of fields of message/delivery-status: the message's own, then one per recipient."""
    body = data.split(b"Content-Type: message/delivery-status\r\n\r\n")[1].split(b"\r\n--report-")[0]
    groups = []
    for block in body.decode("ascii").strip("\r\n").split("\r\n\r\n"):
        lines = block.split("\r\n")
        assert all(re.fullmatch(r"[A-Za-z-]+: [\x20-\x7e]+", line) for line in lines), lines
        pairs = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        assert len({name for name, _ in pairs}) == len(pairs), "RFC 3464: no field twice in a group"
        groups.append(dict(pairs))
    return groups


def is_sound(data: bytes) -> None:
    """CRLF only, no NUL, no line above 998 octets (RFC 5322 §2.1.1, RFC 5321 §2.3.8)."""
    assert data.endswith(b"\r\n")
    assert b"\0" not in data
    assert re.search(rb"\r(?!\n)|(?<!\r)\n", data) is None
    assert max(len(line) for line in data.split(b"\r\n")) <= 998


def test_the_header_says_that_it_is_a_report_and_wants_no_answer() -> None:
    message = parsed(octets(make_mail()))
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["To"] == "a@sender.example"
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@mx.home.example>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-ID"] == "<01jexample@mx.home.example>"
    assert message["Date"].datetime.timestamp() == NOW // 1000 + 60
    assert message["Subject"] == "Undelivered Mail Returned to Sender"


def test_the_parts_are_a_text_the_status_and_the_original() -> None:
    human, status, returned = parts(octets(make_mail()))
    assert [p.get_content_type() for p in (human, status, returned)] == [
        "text/plain",
        "message/delivery-status",
        "message/rfc822",
    ]
    assert "<b@there.example>\nwas refused:\n    550 5.1.1 no such user" in human.get_content().replace("\r\n", "\n")


def test_the_status_of_a_refusal() -> None:
    assert status_fields(octets(make_mail())) == [
        {
            "Reporting-MTA": "dns; mx.home.example",
            "Arrival-Date": "Thu, 09 Oct 2025 08:53:20 +0000",
        },
        {
            "Final-Recipient": "rfc822; b@there.example",
            "Action": "failed",
            "Status": "5.1.1",
            "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
            "Last-Attempt-Date": "Thu, 09 Oct 2025 08:54:20 +0000",
        },
    ]


def test_each_recipient_has_a_group_of_its_own() -> None:
    mail = make_mail("b@there.example", "c@there.example", "d@else.example")
    data = octets(
        mail,
        Report(0, Action.FAILED, "550 5.1.1 no such user"),
        Report(2, Action.FAILED, "no route to host", expired=True, remote="mx.else.example [192.0.2.1]:25"),
    )
    _, first, second = status_fields(data)
    assert (first["Final-Recipient"], first["Status"]) == ("rfc822; b@there.example", "5.1.1")
    assert second["Final-Recipient"] == "rfc822; d@else.example"
    assert second["Status"] == "4.4.7"
    assert second["Remote-MTA"] == "dns; mx.else.example"
    assert second["Diagnostic-Code"] == "x-sternpost; no route to host"
    assert b"c@there.example" not in data.split(b"message/rfc822")[0]


def test_a_delay_says_until_when_it_is_tried() -> None:
    data = octets(make_mail(), Report(0, Action.DELAYED, "451 4.7.1 later", will_retry_until_ms=NOW + 5 * 86_400_000))
    assert parsed(data)["Subject"] == "Delayed Mail (still being retried)"
    fields = status_fields(data)[1]
    assert (fields["Action"], fields["Status"]) == ("delayed", "4.7.1")
    assert fields["Will-Retry-Until"] == "Tue, 14 Oct 2025 08:53:20 +0000"


def test_a_success_is_relayed_never_delivered_to_a_mailbox() -> None:
    data = octets(make_mail(), Report(0, Action.RELAYED, "250 2.0.0 queued"))
    assert parsed(data)["Subject"] == "Successful Mail Delivery Report"
    assert (status_fields(data)[1]["Action"], status_fields(data)[1]["Status"]) == ("relayed", "2.0.0")


@pytest.mark.parametrize(
    ("report", "status", "why"),
    [
        (Report(0, Action.FAILED, "550 5.7.1 no"), "5.7.1", "the remote's own"),
        (Report(0, Action.FAILED, "550 no"), "5.0.0", "none given"),
        (Report(0, Action.FAILED, "550 4.7.1 no"), "5.0.0", "an enhanced code that contradicts is not believed"),
        (Report(0, Action.FAILED, "host not found"), "5.0.0", "no reply at all"),
        (Report(0, Action.FAILED, "451 4.3.0 later"), "5.0.0", "the action decides the class"),
        (Report(0, Action.FAILED, "451 4.3.0 later", expired=True), "4.4.7", "delivery time expired"),
        (Report(0, Action.DELAYED, "451 4.3.0 later"), "4.3.0", "the remote's own"),
        (Report(0, Action.DELAYED, "no route to host"), "4.0.0", "nobody answered"),
        (Report(0, Action.RELAYED, "250 2.6.0 ok"), "2.0.0", "success has one"),
        (Report(0, Action.FAILED, "550 5.999.999999 x"), "5.0.0", "not the syntax of RFC 3463"),
    ],
)
def test_the_status_code(report: Report, status: str, why: str) -> None:
    assert status_of(report) == status, why


@pytest.mark.parametrize(
    ("ret", "size", "kind"),
    [
        (Ret.DEFAULT, 100, "message/rfc822"),
        (Ret.FULL, 100, "message/rfc822"),
        (Ret.HDRS, 100, "text/rfc822-headers"),
        (Ret.FULL, MAX_RETURNED + 1, "text/rfc822-headers"),
        (Ret.DEFAULT, MAX_RETURNED - 100, "message/rfc822"),
    ],
)
def test_how_much_of_the_original_comes_back(ret: Ret, size: int, kind: str) -> None:
    """RFC 3461 §4.3."""
    body = b"0123456789abc\r\n" * (size // 15 + 1)
    mail = make_mail(content=HEADER + b"\r\n" + body, ret=ret)
    data = octets(mail)
    is_sound(data)
    _, _, returned = parts(data)
    assert returned.get_content_type() == kind
    assert (body[:30] in data) is (kind == "message/rfc822")
    assert HEADER in data


def test_the_original_comes_back_octet_for_octet() -> None:
    content = HEADER + b"Content-Transfer-Encoding: 8bit\r\n\r\n.dots\r\n..\r\n\xff\xfe raw\r\n"
    data = octets(make_mail(content=content))
    assert b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + content in data


def test_without_its_content_the_report_still_goes() -> None:
    data = octets(make_mail(), content=b"")
    is_sound(data)
    assert parts(data)[2].get_content_type() == "text/rfc822-headers"
    assert len(status_fields(data)) == 2


@pytest.mark.parametrize("cut", range(-4, 5))
def test_a_huge_header_is_cut_between_lines(cut: int) -> None:
    line = b"X-Filler: " + b"x" * 88 + b"\r\n"
    filler = b"X-First: " + b"y" * (100 - len(b"X-First: \r\n") + cut) + b"\r\n" + line * 400
    data = octets(make_mail(content=filler + b"\r\nbody\r\n", ret=Ret.HDRS))
    is_sound(data)
    returned = data.split(b"text/rfc822-headers\r\n\r\n")[1].split(b"\r\n--report")[0]
    assert MAX_HEADER_RETURNED - 100 <= len(returned) <= MAX_HEADER_RETURNED
    assert all(part.startswith(b"X-F") for part in returned.rstrip(b"\r\n").split(b"\r\n"))


@pytest.mark.parametrize(
    ("envid", "expected"),
    [
        ("QQ314159", "QQ314159"),
        ("a+2Bb+3Dc", "a+b=c"),
        ("x+20y", "x y"),
        ("bad+0D+0AStatus: 2.0.0", "bad Status: 2.0.0"),
    ],
)
def test_the_envelope_id_is_shown_as_what_its_xtext_stands_for(envid: str, expected: str) -> None:
    """RFC 3461 §4.4, RFC 3464 §2.2.1."""
    assert status_fields(octets(make_mail(envid=envid)))[0]["Original-Envelope-Id"] == expected


@pytest.mark.parametrize(
    ("orcpt", "expected"),
    [
        ("rfc822;First.Last@example.com", "rfc822; First.Last@example.com"),
        ("rfc822;user+2Btag@example.com", "rfc822; user+tag@example.com"),
        ("x400;/C+3Dgb", "x400; /C=gb"),
        ("utf-8;dörte@example.com", "utf-8; d\\x{F6}rte@example.com"),
        ("rfc822;a@b+0D+0AAction:+20delivered", "rfc822; a@b Action: delivered"),
    ],
)
def test_the_original_recipient_is_shown(orcpt: str, expected: str) -> None:
    """RFC 3461 §4.2, RFC 3464 §2.3.1."""
    data = octets(make_mail(Recipient("b@there.example", orcpt=orcpt)))
    fields = status_fields(data)[1]
    assert fields["Original-Recipient"] == expected
    assert next(iter(fields)) == "Original-Recipient"
    assert fields["Action"] == "failed"


def test_an_international_recipient_has_the_ascii_form_of_rfc_6533() -> None:
    mail = make_mail("dö+x=y@bücher.example", sender="jörg@straße.example", smtputf8=True)
    data = octets(mail, Report(0, Action.FAILED, "550 5.1.1 Empfänger unbekannt"))
    fields = status_fields(data)[1]
    assert fields["Final-Recipient"] == r"utf-8; d\x{F6}\x{2B}x\x{3D}y@b\x{FC}cher.example"
    assert fields["Diagnostic-Code"] == r"smtp; 550 5.1.1 Empf\x{E4}nger unbekannt"
    assert "dö+x=y@bücher.example" in parts(data)[0].get_content()
    assert "To: <jörg@straße.example>\r\n".encode() in data
    is_sound(data)


def test_an_original_with_an_international_header_is_no_rfc822_message() -> None:
    content = "Subject: größer\r\n\r\nx\r\n".encode()
    assert b"Content-Type: message/global\r\n" in octets(make_mail(content=content))
    assert b"Content-Type: message/global-headers\r\n" in octets(make_mail(content=content, ret=Ret.HDRS))


HOSTILE = [
    "550 5.1.1 no\r\nStatus: 2.0.0",
    "550 5.1.1 no\r\n\r\nFinal-Recipient: rfc822; other@example.com\r\nAction: delivered",
    "550 no\nBcc: x@evil.example",
    "550 no\rBcc: x@evil.example",
    "550 no\0hidden",
    "550 no\r\n--report-01jexample--\r\n",
    "550 no\u2028Bcc: x",
    "550 no\x85Bcc: x",
    "550 " + "x" * 5000,
    "550 " + "ü" * 5000,
    "550 " + "\U0001f4a5" * 5000,
    "550 \ud800 lone surrogate",
    "\r\n",
    "",
]


@pytest.mark.parametrize("reply", HOSTILE)
def test_a_hostile_reply_stays_one_field(reply: str) -> None:
    data = octets(make_mail(), Report(0, Action.FAILED, reply))
    is_sound(data)
    groups = status_fields(data)
    assert len(groups) == 2
    assert groups[1]["Action"] == "failed"
    assert groups[1]["Status"].startswith("5.")
    assert groups[1]["Final-Recipient"] == "rfc822; b@there.example"
    assert parsed(data).keys() == parsed(octets(make_mail())).keys()
    assert len(parts(data)) == 3


@given(reply=st.text(max_size=200), envid=st.text(max_size=60), orcpt=st.text(max_size=60), remote=st.text(max_size=40))
def test_nothing_from_outside_breaks_a_report(reply: str, envid: str, orcpt: str, remote: str) -> None:
    mail = make_mail(Recipient("b@there.example", orcpt=orcpt), envid=envid)
    data = octets(mail, Report(0, Action.FAILED, reply, remote=remote))
    assert re.search(rb"\r(?!\n)|(?<!\r)\n", data) is None
    status = data.split(b"Content-Type: message/delivery-status\r\n\r\n")[1].split(b"\r\n--report-")[0]
    status.decode("ascii")
    assert status.count(b"\r\n\r\n") == 1
    assert status.count(b"\r\nFinal-Recipient: ") == 1
    assert status.count(b"\r\nAction: ") == 1


@given(
    local=st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=20), quoted=st.booleans()
)
def test_whatever_sender_a_door_accepts_can_be_written_to(local: str, quoted: bool) -> None:
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    sender = f'"{escaped}"@sender.example' if quoted else f"{local}@sender.example"
    try:
        parse_address(sender)
    except AddressError:
        return
    data = octets(make_mail(sender=sender))
    is_sound(data)
    [line] = [line for line in data.split(b"\r\n\r\n")[0].split(b"\r\n") if line.startswith(b"To: ")]
    assert line == f"To: <{sender}>".encode()


def test_the_report_is_the_same_for_the_same_facts() -> None:
    assert octets(make_mail()) == octets(make_mail())
    assert CONTENT in octets(make_mail())
