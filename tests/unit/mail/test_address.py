"""Which mailboxes are mailboxes: RFC 5321 §4.1.2, RFC 6531 §3.3, and the tricks by which relays were opened."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_mail.address import Address, AddressError, parse_address, parse_domain

LOCAL_64 = "a" * 64
DOMAIN_63 = "b" * 63

VALID = [
    # text, local, domain, why
    ("first.last@example.com", "first.last", "example.com", "plain"),
    ("1234567890@example.com", "1234567890", "example.com", "digits"),
    ("a@b", "a", "b", "a single label"),
    ("user+tag@example.com", "user+tag", "example.com", "plus"),
    ("!#$%&'*+/=?^_`{|}~-@example.com", "!#$%&'*+/=?^_`{|}~-", "example.com", "every atext"),
    ("user%elsewhere.example@example.com", "user%elsewhere.example", "example.com", "the percent is a character"),
    ("elsewhere.example!user@example.com", "elsewhere.example!user", "example.com", "the bang is a character"),
    ("First.Last@EXAMPLE.Com", "First.Last", "example.com", "the domain has no case, the local part keeps it"),
    ('"quoted"@example.com', '"quoted"', "example.com", "quoted"),
    ('"with space"@example.com', '"with space"', "example.com", "space in quotes"),
    ('"a@b"@example.com', '"a@b"', "example.com", "at sign in quotes: the last one counts"),
    ('"x@elsewhere.example"@example.com', '"x@elsewhere.example"', "example.com", "an address in quotes"),
    ('"a\\"b"@example.com', '"a\\"b"', "example.com", "escaped quote"),
    ('"a\\\\b"@example.com', '"a\\\\b"', "example.com", "escaped backslash"),
    ('"\\a"@example.com', '"\\a"', "example.com", "any printable may be escaped"),
    ('""@example.com', '""', "example.com", "empty quoted string: RFC 5321 lets QcontentSMTP be none"),
    ('"..dots.."@example.com', '"..dots.."', "example.com", "dots in quotes"),
    ('"<>(),:;"@example.com', '"<>(),:;"', "example.com", "specials in quotes"),
    (f"{LOCAL_64}@example.com", LOCAL_64, "example.com", "64 octets"),
    (f"a@{DOMAIN_63}.com", "a", f"{DOMAIN_63}.com", "a label of 63"),
    ("a@xn--bcher-kva.example", "a", "xn--bcher-kva.example", "A-label"),
    ("a@123.com", "a", "123.com", "a label of digits"),
    ("a@a-b.com", "a", "a-b.com", "hyphen inside"),
    ("a@_dmarc.example.com", "a", "_dmarc.example.com", "underscores exist"),
    ("a@[192.0.2.1]", "a", "[192.0.2.1]", "IPv4 literal"),
    ("a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]", "IPv6 literal"),
    ("a@[ipv6:2001:DB8:0:0::1]", "a", "[IPv6:2001:db8::1]", "IPv6 literal in another spelling is the same"),
    ("a@[IPv6:::ffff:192.0.2.1]", "a", "[IPv6:::ffff:c000:201]", "IPv4-mapped"),
    ("dörte@sörensen.example", "dörte", "xn--srensen-90a.example", "SMTPUTF8: the domain is decided in A-labels"),
    ("a@BÜCHER.example", "a", "xn--bcher-kva.example", "U-labels have no case"),
    ("用户@例子.广告", "用户", "xn--fsqu00a.xn--4rr70v", "RFC 6531 all over"),
    ("a@ｅｘａｍｐｌｅ.com", "a", "example.com", "full width folds into what it looks like"),
    ('"ü x"@example.com', '"ü x"', "example.com", "quoted SMTPUTF8"),
]

INVALID = [
    ("", "empty"),
    ("a", "no domain"),
    ("postmaster", "bare postmaster where it is not allowed"),
    ("@", "neither"),
    ("@example.com", "no local part"),
    ("a@", "no domain"),
    ("a@@example.com", "two at signs"),
    ("a@b@example.com", "two at signs: which host is it for"),
    (".a@example.com", "leading dot"),
    ("a.@example.com", "trailing dot"),
    ("a..b@example.com", "double dot"),
    ("a b@example.com", "space"),
    (" a@example.com", "leading space"),
    ("a@example.com ", "trailing space"),
    ("a@ example.com", "space in the domain"),
    ("a(comment)@example.com", "comment"),
    ("a@example.com(comment)", "comment"),
    ("a@(comment)example.com", "comment"),
    ("<a@example.com>", "angle brackets are not part of it"),
    ("a@example.com>", "left-over bracket"),
    ("Name <a@example.com>", "a header's form"),
    ("a,b@example.com", "comma"),
    ("a;b@example.com", "semicolon"),
    ("a:b@example.com", "colon"),
    ("a[b@example.com", "bracket"),
    ('"a@example.com', "open quote"),
    ('a"b@example.com', "quote inside an atom"),
    ('"a"b@example.com', "text after the quotes"),
    ('"a".b@example.com', "obsolete local part, RFC 5321 has none"),
    ('a."b"@example.com', "obsolete local part"),
    ('"a"', "quotes alone"),
    ('"a\\"@example.com', "the escape eats the closing quote"),
    ("a\\@b@example.com", "backslash outside quotes"),
    ("a@.example.com", "leading dot"),
    ("a@example.com.", "trailing dot: two spellings of one domain evade a rule"),
    ("a@example..com", "empty label"),
    ("a@-example.com", "leading hyphen"),
    ("a@example-.com", "trailing hyphen"),
    ("a@exa mple.com", "space"),
    ("a@exam_ple!.com", "bang"),
    ("a@example.com/path", "slash"),
    ("a@example.com:25", "port"),
    (f"{LOCAL_64}a@example.com", "65 octets"),
    (f"{'ü' * 33}@example.com", "66 octets in UTF-8"),
    (f"a@{DOMAIN_63}b.com", "a label of 64"),
    (f"a@{'.'.join(['abcdefghi'] * 26)}", "longer than 254"),
    ("a@[192.0.2.1", "open literal"),
    ("a@[192.0.2.256]", "no address"),
    ("a@[192.0.2]", "too short"),
    ("a@[192.0.2.1]x", "text after the literal"),
    ("a@[192.000.002.001]", "octal or not? nobody knows"),
    ("a@[0x7f.0.0.1]", "hexadecimal"),
    ("a@[2130706433]", "one number"),
    ("a@[IPv6:2001:db8::1::2]", "two gaps"),
    ("a@[IPv6:fe80::1%eth0]x", "text after"),
    ("a@[IPv6:fe80::1%eth0]", "a zone"),
    ("a@[IPv6:fe80::1%> SIZE=1]", "a zone that would end the path and begin a parameter"),
    ("\ud800@example.com", "half a character: no octets stand for it"),
    ("a@[2001:db8::1]", "no tag"),
    ("a@[tag:whatever]", "unknown tag"),
    ("a@[]", "empty literal"),
    ("@relay.example:a@example.com", "source route"),
    ("@relay1.example,@relay2.example:a@example.com", "source routes"),
    ("a@example.com\r\nRCPT TO:<b@example.com>", "another command"),
    ("a@example.com\n", "line feed"),
    ("a\r@example.com", "carriage return"),
    ("a\0@example.com", "NUL"),
    ("a\t@example.com", "tab"),
    ("a\x7f@example.com", "DEL"),
    ('"a\r\nb"@example.com', "folding in quotes"),
    ('"a\\\nb"@example.com', "escaped line feed"),
    ("a\x85@example.com", "NEL, a line break to some"),
    ("a\u2028@example.com", "line separator"),
    ("a\u2029@example.com", "paragraph separator"),
    ("a@exam\u200bple.com\u2028", "separator in the domain"),
    ("a@\u2024example.com", "one dot leader at the start"),
    ("a@ü" + "x" * 63 + ".com", "an international label too long"),
]


@pytest.mark.parametrize(("text", "local", "domain", "why"), VALID, ids=range(len(VALID)))
def test_a_mailbox(text: str, local: str, domain: str, why: str) -> None:
    assert parse_address(text) == Address(text, local, domain), why


@pytest.mark.parametrize(("text", "why"), INVALID, ids=range(len(INVALID)))
def test_no_mailbox(text: str, why: str) -> None:
    with pytest.raises(AddressError) as refused:
        parse_address(text)
    assert str(refused.value).isascii(), why
    assert "\n" not in str(refused.value), "the text is fit for a reply"


def test_the_vectors_are_many() -> None:
    assert len(VALID) + len(INVALID) >= 60


@pytest.mark.parametrize("text", ["postmaster", "Postmaster", "POSTMASTER"])
def test_postmaster_needs_no_domain_where_that_is_allowed(text: str) -> None:
    """RFC 5321 §4.5.1."""
    assert parse_address(text, allow_bare_postmaster=True) == Address(text, text, "")
    with pytest.raises(AddressError):
        parse_address(text + "x", allow_bare_postmaster=True)


@pytest.mark.parametrize(
    ("text", "is_ascii", "is_literal"),
    [
        ("a@b.example", True, False),
        ("ü@b.example", False, False),
        ("a@ü.example", False, False),
        ("a@[192.0.2.1]", True, True),
    ],
)
def test_what_an_address_is(text: str, is_ascii: bool, is_literal: bool) -> None:
    address = parse_address(text)
    assert (address.is_ascii, address.is_literal) == (is_ascii, is_literal)


@given(st.text(max_size=80))
def test_what_is_accepted_is_one_line_with_one_domain(text: str) -> None:
    try:
        address = parse_address(text)
    except AddressError:
        return
    assert address.text == text
    assert not set(text) & set("\r\n\0\t\u2028\u2029")
    assert address.domain.isascii()
    assert address.domain == address.domain.lower() or address.is_literal
    assert text.startswith(address.local + "@")
    assert parse_domain(address.domain) == address.domain, "a decision's form stays as it is"


@given(
    st.text('abc.@"\\ %!<>[]:,;ü\u2028', max_size=14),
    st.sampled_from(["example.com", "[192.0.2.1]", "ü.example", "b.", ".b"]),
)
def test_the_domain_that_decides_is_the_one_after_the_last_at_sign(local: str, domain: str) -> None:
    text = f"{local}@{domain}"
    try:
        address = parse_address(text)
    except AddressError:
        return
    assert address.local == local
    assert address.domain == parse_domain(domain)
