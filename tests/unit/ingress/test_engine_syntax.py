"""The syntax of MAIL and RCPT: what is read, what is refused and why."""

import pytest

from sternpost_ingress.engine_syntax import SyntaxRefused, parse_bdat, parse_helo, parse_mail, parse_rcpt

MAIL = [
    (b"FROM:<a@b.test>", "a@b.test", ""),
    (b"from: <a@b.test>", "a@b.test", ""),
    (b"FROM:<>", "", ""),
    (b'FROM:<"a > b"@c.test>', '"a > b"@c.test', ""),
    (b"FROM:<a@b.test> ", "a@b.test", ""),
    (b"FROM:a@b.test", None, "501 5.1.7"),
    (b"FROM:<a@b.test>SIZE=1", None, "501 5.1.7"),
    (b"FROM:<a@b.test", None, "501 5.1.7"),
    (b"FROM:<@x.test:a@b.test>", None, "501 5.1.7"),
    (b"FROM:<a b@c.test>", None, "501 5.1.7"),
    (b"FROM:<postmaster>", None, "501 5.1.7"),
    (b"FROM:<a@b.test> SIZE", None, "501 5.5.4"),
    (b"FROM:<a@b.test> SIZE=", None, "501 5.5.4"),
    (b"FROM:<a@b.test> SIZE=1 size=2", None, "501 5.5.4"),
    (b"FROM:<a@b.test> SMTPUTF8=yes", None, "555 5.5.4"),
    ("FROM:<ü@b.test>".encode(), None, "553 5.6.7"),
    ("FROM:<ü@b.test> SMTPUTF8".encode(), "ü@b.test", ""),
    ("FROM:<a@bücher.test> SMTPUTF8".encode(), "a@bücher.test", ""),
    (b"FROM:<\xff@b.test> SMTPUTF8", None, "501 5.1.7"),
    (b"FROM:<a@b.test> ENVID=\xff", None, "501 5.5.4"),
    (b"", None, "501 5.5.4"),
    (b"FROM", None, "501 5.5.4"),
]


@pytest.mark.parametrize(("argument", "sender", "refusal"), MAIL)
def test_mail_from(argument: bytes, sender: str | None, refusal: str) -> None:
    if sender is None:
        with pytest.raises(SyntaxRefused) as refused:
            parse_mail(argument, auth=False)
        assert f"{refused.value.code} {refused.value.enhanced}" == refusal
    else:
        found = parse_mail(argument, auth=False).sender
        assert (found.text if found else "") == sender


def test_a_bare_postmaster_is_a_recipient() -> None:
    address, recipient = parse_rcpt(b"TO:<postmaster>", smtputf8=False)
    assert (address.domain, recipient.address) == ("", "postmaster")


@pytest.mark.parametrize(
    "orcpt", [b"utf-8;\xc3\xbc@b.test", b"rfc822;\xc3\xbc", b"rfc822;", b";a", b"rfc822;" + b"a" * 501]
)
def test_orcpt_that_is_not_xtext_is_refused(orcpt: bytes) -> None:
    with pytest.raises(SyntaxRefused):
        parse_rcpt(b"TO:<a@b.test> ORCPT=" + orcpt, smtputf8=False)


def test_orcpt_in_utf8_needs_smtputf8() -> None:
    _, recipient = parse_rcpt("TO:<a@b.test> ORCPT=utf-8;ü@b.test".encode(), smtputf8=True)
    assert recipient.orcpt == "utf-8;ü@b.test"


@pytest.mark.parametrize("name", [b"", b"  ", b"a b", b"a\0", b"a\r", b"(none)", "ü.test".encode(), b"a" * 256, b"<x>"])
def test_a_name_that_could_forge_a_trace_field_is_refused(name: bytes) -> None:
    with pytest.raises(SyntaxRefused):
        parse_helo(name)


def test_bdat() -> None:
    assert parse_bdat(b"0 last") == (0, True)
    assert parse_bdat(b"17") == (17, False)
