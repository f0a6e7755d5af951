"""What a header says, and that nobody's From goes uncounted."""

import email
import email.policy

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sternpost_mail.headers import (
    HeaderError,
    HeaderLimits,
    decode_text,
    read_header,
    read_mailboxes,
)

BODY = b"\r\n\r\nFrom: body@evil.example\r\n"


def mail(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + BODY


GOOD_FROM = [
    (b"a@b.example", ["a@b.example"], "bare"),
    (b"<a@b.example>", ["a@b.example"], "angle"),
    (b"Joe Q. Public <a@b.example>", ["a@b.example"], "a dot in a phrase (RFC 5322 4.1)"),
    (b'"Joe, Public" <a@b.example>', ["a@b.example"], "quoted name"),
    (b'"evil@bank.example" <a@b.example>', ["a@b.example"], "an address in a quoted name is a name"),
    (b'"say \\"hi\\" <x@y.example>" <a@b.example>', ["a@b.example"], "quoted pairs"),
    (b"=?utf-8?q?evil=40bank=2Eexample?= <a@b.example>", ["a@b.example"], "encoded word in a name"),
    (b"J\xc3\xb6e <a@b.example>", ["a@b.example"], "UTF-8 in a name"),
    (b"J\xf6e <a@b.example>", ["a@b.example"], "Latin-1 in a name"),
    (b"a@b.example (comment (nested) \\) x@y.example)", ["a@b.example"], "comment behind"),
    (b"(x@y.example) a@b.example", ["a@b.example"], "comment in front"),
    (b"a@b.example, Joe <c@d.example>", ["a@b.example", "c@d.example"], "two authors"),
    (b",a@b.example,,", ["a@b.example"], "empty list members (obs-addr-list)"),
    (b"Team: a@b.example, c@d.example;", ["a@b.example", "c@d.example"], "group (RFC 6854)"),
    (b"Team: a@b.example;, e@f.example", ["a@b.example", "e@f.example"], "group and mailbox"),
    (b"a@b.example <A@B.example>", ["A@B.example"], "a name that repeats the address"),
    (b"[Team] Joe <a@b.example>", ["a@b.example"], "brackets in a name are common"),
    (b'"a b"@b.example', ['"a b"@b.example'], "quoted local part"),
    ("ü@bücher.example".encode(), ["ü@bücher.example"], "RFC 6532"),
    (b"<a@[192.0.2.1]>", ["a@[192.0.2.1]"], "address literal"),
    (b"\ta@b.example \t", ["a@b.example"], "space around"),
    (b"user%other.example@b.example", ["user%other.example@b.example"], "a percent sign is a character"),
]

BAD_FROM = [
    (b"", "nobody"),
    (b"Undisclosed:;", "nobody"),
    (b"a@b.example <c@d.example>", "two addresses"),
    (b"<a@b.example> <c@d.example>", "behind an address"),
    (b"<a@b.example> c@d.example", "behind an address"),
    (b"a@b.example c@d.example", "space inside"),
    (b"<@x.example,@y.example:a@b.example>", "source route"),
    (b"<a@b.example", "not closed"),
    (b"a@b.example>", "without an opening"),
    (b'"Joe <a@b.example>', "quote that is not closed"),
    (b"(Joe <a@b.example>", "comment that is not closed"),
    (b"(" * 9 + b")" * 9 + b"a@b.example", "nested too deeply"),
    (b"Doe, Joe <a@b.example>", "not valid"),
    (b"a (x) @b.example", "space inside"),
    (b"<a@ b.example>", "space or a comment inside"),
    (b"=?utf-8?q?evil=40bank.example=3E?=@b.example", "encoded word inside an address"),
    (b"Team: a@b.example", "group that is not closed"),
    (b"a@b.example;", "semicolon"),
    (b"a@b.example: c@d.example;", "colon"),
    (b"a@b.example\x0b", "must be quoted"),
    (b"a\xf6@b.example", "not UTF-8"),
    (b"a@b..example", "not valid"),
    (b"<>", "not valid"),
    (b"a@b.example, " * 60, "more than 50"),
]


@pytest.mark.parametrize(("value", "expected", "why"), GOOD_FROM, ids=[row[2] for row in GOOD_FROM])
def test_a_from_value_is_read(value: bytes, expected: list[str], why: str) -> None:
    assert list(read_mailboxes(value)) == expected, why


@pytest.mark.parametrize(("value", "why"), BAD_FROM, ids=[row[0].decode("latin-1")[:40] for row in BAD_FROM])
def test_a_from_value_that_readers_may_see_differently_is_refused(value: bytes, why: str) -> None:
    with pytest.raises(HeaderError, match=why):
        read_mailboxes(value)
    facts = read_header(mail(b"From:" + value))
    assert facts.from_fields == 1
    assert why in facts.from_error


def test_a_from_value_without_end_is_not_parsed() -> None:
    with pytest.raises(HeaderError, match="longer than"):
        read_mailboxes(b"Joe, " * 4000 + b"<a@b.example>")


FROM_FIELDS = [
    ((b"From: a@b.example",), 1, ("a@b.example",), False),
    ((b"FROM:a@b.example",), 1, ("a@b.example",), False),
    ((b"From : a@b.example",), 1, ("a@b.example",), False),
    ((b"From\t : a@b.example",), 1, ("a@b.example",), False),
    ((b"From:", b" Joe", b"\t<a@b.example>"), 1, ("a@b.example",), False),
    ((b"From: a@b.example", b"from: c@d.example"), 2, ("a@b.example", "c@d.example"), False),
    ((b"From: a@b.example", b"From\t: c@d.example"), 2, ("a@b.example", "c@d.example"), False),
    ((b"From: a@b.example", b" \t", b"From: c@d.example"), 2, ("a@b.example", "c@d.example"), False),
    ((b"From: a@b.example", b"no colon here", b"From: c@d.example"), 2, ("a@b.example",), True),
    ((b"no colon here", b"From: a@b.example"), 1, (), True),
    ((b"X Y: z", b"From: a@b.example"), 1, (), True),
    ((b"From a@b.example Mon Jan  1", b"From: a@b.example"), 1, (), True),
    ((b"\x0bFrom: a@b.example",), 1, (), True),
    ((b"From\xe2\x80\x8b: a@b.example",), 1, (), True),
    ((b"From: a@b.example", b"\xe2\x80\x8bFrom: c@d.example"), 2, ("a@b.example",), True),
    ((b"From: a@b.example", b" From: c@d.example"), 1, (), True),
    ((b"Subject: x", b" From: c@d.example", b"From: a@b.example"), 1, ("a@b.example",), False),
    ((b"From: a@b.example", b"no colon here"), 1, ("a@b.example",), False),
    ((b"Resent-From: c@d.example", b"From: a@b.example", b"Sender: e@f.example"), 1, ("a@b.example",), False),
    ((b"X-From: c@d.example",), 0, (), False),
]


@pytest.mark.parametrize(("lines", "count", "addresses", "bad"), FROM_FIELDS)
def test_every_from_field_is_counted(
    lines: tuple[bytes, ...], count: int, addresses: tuple[str, ...], bad: bool
) -> None:
    facts = read_header(mail(*lines))
    assert (facts.from_fields, facts.from_addresses, bool(facts.from_error)) == (count, addresses, bad)


def test_a_typical_header_gives_its_facts() -> None:
    content = (
        b"Received: from x by y;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\nReceived: from z by x; now\r\n"
        b"Message-ID:  <id@b.example> \r\nDate: today\r\nSubject: =?utf-8?b?R3LDvMOfZQ==?= =?utf-8?q?_an_alle?= x\r\n"
        b"From: a@b.example\r\n\r\nbody \xc3\xbc"
    )
    facts = read_header(content)
    assert facts.received_count == 2
    assert facts.message_id == "<id@b.example>"
    assert facts.has_message_id
    assert facts.has_date
    assert facts.subject == "Grüße an alle x"
    assert facts.header_octets == content.index(b"\r\n\r\n") + 2
    assert facts.eight_bit
    assert not facts.header_eight_bit


@pytest.mark.parametrize("content", [b"", b"\r\n", b"\r\nFrom: a@b.example\r\n\r\nx"])
def test_a_mail_without_a_header_has_no_from(content: bytes) -> None:
    facts = read_header(content)
    assert (facts.from_fields, facts.header_octets, facts.has_date) == (0, 0, False)


@pytest.mark.parametrize("content", [b"From: a@b.example", b"From: a@b.example\r\n", b"From: a@b.example\r\n\r\n"])
def test_a_mail_may_be_nothing_but_a_header(content: bytes) -> None:
    assert read_header(content).from_addresses == ("a@b.example",)


REFUSED = [
    (b"From: a@b.example\nFrom: c@d.example\r\n\r\n", "bare"),
    (b"From: a@b.example\r\n\nFrom: c@d.example\r\n\r\n", "bare"),
    (b"From: a@b.example\rFrom: c@d.example\r\n\r\n", "bare"),
    (b"From: a@b.example\0\r\n\r\n", "NUL"),
    (b" From: a@b.example\r\n\r\n", "continuation"),
    (b"\tx\r\nFrom: a@b.example\r\n\r\n", "continuation"),
    (b"From: a@b.example\r\n" + b"X: y\r\n" * 1000 + b"\r\n", "1000 fields"),
    (b"From: a@b.example\r\nX: " + b"y" * 2046 + b"\r\n\r\n", "2048 octets"),
    (b"X: y\r\n" * 20000 + b"\r\n", "102400 octets"),
    (b"X" * 200000, "102400 octets"),
]


@pytest.mark.parametrize(("content", "why"), REFUSED, ids=[f"{i}-{row[1]}" for i, row in enumerate(REFUSED)])
def test_a_header_that_no_door_takes_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(HeaderError, match=why):
        read_header(content)


def test_limits_are_taken_to_the_octet() -> None:
    limits = HeaderLimits(octets=40, fields=2, line=20)
    assert read_header(b"From: a@b.example\r\nX: " + b"y" * 17 + b"\r\n\r\n", limits).from_fields == 1
    with pytest.raises(HeaderError, match="longer than 20"):
        read_header(b"X: " + b"y" * 18 + b"\r\n\r\n", limits)
    with pytest.raises(HeaderError, match="more than 2 fields"):
        read_header(b"A: 1\r\nB: 2\r\n 2\r\nC: 3\r\n\r\n", limits)
    assert read_header(b"X: y\r\n" + b" 234567\r\n" * 4 + b"\r\n", limits).header_octets == 42
    with pytest.raises(HeaderError, match="longer than 40"):
        read_header(b"X: yz\r\n" + b" 234567\r\n" * 4 + b"\r\n", limits)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b" plain ", "plain"),
        (b"=?utf-8?q?a=0Ab=00?=", "a b"),
        (b"=?iso-8859-1?q?Gr=FC=DFe?=", "Grüße"),
        (b"=?utf-8?b?a?= x", "=?utf-8?b?a?= x"),
        (b"=?nonsense?q?abc?=", "=?nonsense?q?abc?="),
        (b"=?zlib?q?abc?=", "=?zlib?q?abc?="),
        (b"=?utf-8*en?q?a_b?=", "a b"),
        (b"\xff\xfe", "��"),
        (b"x" * 300, "x" * 255),
    ],
)
def test_text_is_decoded_for_display(value: bytes, shown: str) -> None:
    assert decode_text(value) == shown


@given(st.binary(max_size=300))
@example(b"=?utf-16?b?AA==?=")
@example(b"=?idna?q?xn--a?=")
def test_display_never_fails_and_never_shows_controls(value: bytes) -> None:
    shown = decode_text(value)
    assert len(shown) <= 255
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in shown)
    shown.encode()


_SYNTAX = [b"From", b"from", b"X", b":", b" ", b"\t", b"\r\n", b"<", b">", b",", b'"', b"(", b")", b"\\", b";"]
_TEXTS = [b"a@b.example", b"Subject: ", b"=?utf-8?q?a?=", b"\xc3\xbc", b"\xff", b"\x0b", b"\r\nFrom: c@d.example\r\n"]
_PIECES = st.sampled_from([*_SYNTAX, *_TEXTS])


@given(st.lists(_PIECES, max_size=25).map(b"".join))
def test_the_standard_library_sees_no_author_that_was_not_counted(header: bytes) -> None:
    content = header + BODY
    try:
        facts = read_header(content)
    except HeaderError:
        return
    seen = email.message_from_bytes(content, policy=email.policy.compat32).get_all("From") or []
    assert facts.from_fields >= len(seen)
    if not facts.from_error and facts.from_fields == 1:
        assert facts.from_addresses
