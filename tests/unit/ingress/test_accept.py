"""The accept decision as a table, and the mail that an acceptance makes."""

import email
from dataclasses import replace

import pytest

from sternpost_ingress.accept import (
    MAX_HOPS,
    Client,
    check_content,
    check_recipient,
    check_sender,
    make_mail,
    refuse_header,
)
from sternpost_mail.address import Address, parse_address
from sternpost_mail.config import EMPTY_CONFIG, Config, Domain, build_config
from sternpost_mail.envelope import Door, Envelope, Lane, Mail, Notify, Recipient
from sternpost_mail.headers import HeaderError, HeaderFacts, read_header
from sternpost_mail.identity import Identity
from sternpost_mail.route import Action, Match, RelayRule
from sternpost_runtime.codec import decode_facts

CONFIG = build_config(
    [
        Domain("shop", "shop", "shop.example"),
        Domain("shop", "mail", "mail.shop.example"),
        Domain("bank", "bank", "bank.example", postmaster="ops@elsewhere.example"),
        RelayRule(
            "shop", "blocked", 10, Match(recipients=("blocked.example",)), Action.REJECT, reject_text="No\r\n250 ok"
        ),
        RelayRule("shop", "tagged", 5, Match(tags=("never",)), Action.REJECT),
        RelayRule("sternpost", "closed", 9, Match(networks=("10.9.0.0/16",)), Action.REJECT, reject_text="Closed"),
        RelayRule("sternpost", "office", 1, Match(networks=("10.0.0.0/8", "fd00::/8")), Action.DIRECT),
        RelayRule("bank", "open", 1, Match(networks=("0.0.0.0/0",)), Action.DIRECT),
    ],
    1,
    "sternpost",
)
SHOP = Identity("shop", "app", ())
NARROW = Identity("shop", "narrow", ("news@shop.example", ".mail.shop.example"), Lane.BULK)
STRANGER = Client(Door.MX, "203.0.113.5", None, False, "stranger.example")
OFFICE = Client(Door.MX, "10.1.2.3", None, False, "printer.office")


def submitter(identity: Identity | None = SHOP, door: Door = Door.SUBMISSION) -> Client:
    return Client(door, "192.0.2.7", identity, True, "laptop")


def address(text: str) -> Address | None:
    return parse_address(text, allow_bare_postmaster=True) if text else None


def known(text: str) -> Address:
    return parse_address(text, allow_bare_postmaster=True)


SENDERS = [
    (submitter(), "a@shop.example", "", "own domain"),
    (submitter(), "A@SHOP.example", "", "case of a domain does not matter"),
    (submitter(), "a@mail.shop.example", "", "a subdomain that is declared"),
    (submitter(), "a@other.shop.example", "553 5.7.1", "a subdomain that is not declared"),
    (submitter(), "a@bank.example", "553 5.7.1", "another tenant's domain"),
    (submitter(), "a@nobody.example", "553 5.7.1", "nobody's domain"),
    (submitter(), "a@[192.0.2.1]", "553 5.7.1", "an address literal"),
    (submitter(), "", "", "the null path; From is checked later"),
    (submitter(NARROW), "news@shop.example", "", "an address that the credential names"),
    (submitter(NARROW), "NEWS@shop.example", "", "the local part without regard to case"),
    (submitter(NARROW), "other@shop.example", "553 5.7.1", "the tenant's, not the credential's"),
    (submitter(NARROW), "any@mail.shop.example", "", "a domain pattern"),
    (submitter(None), "a@shop.example", "530 5.7.0", "no identity at a submission door"),
    (submitter(None, Door.HTTP), "a@shop.example", "530 5.7.0", "no identity over HTTP"),
    (submitter(Identity("", "odd", ())), "a@nobody.example", "553 5.7.1", "an empty tenant owns nothing"),
    (STRANGER, "a@nobody.example", "", "the MX door decides at RCPT"),
]


@pytest.mark.parametrize(("client", "sender", "expected", "why"), SENDERS, ids=[row[3] for row in SENDERS])
def test_mail_from_is_bound_to_the_identity(client: Client, sender: str, expected: str, why: str) -> None:
    assert _verdict(check_sender(client, address(sender), CONFIG)) == expected, why


RECIPIENTS = [
    (submitter(), "a@shop.example", "x@remote.example", "", "submitters reach everybody"),
    (submitter(), "a@shop.example", "x@[192.0.2.1]", "550 5.1.2", "no literals"),
    (submitter(), "a@shop.example", "x@[IPv6:::1]", "550 5.1.2", "no literals"),
    (submitter(), "a@shop.example", "x%remote.example@shop.example", "", "the percent hack is a local part"),
    (submitter(), "a@shop.example", "x@blocked.example", "550 5.7.1", "a rule rejects"),
    (submitter(), "a@shop.example", "Postmaster", "", "bare postmaster"),
    (submitter(None), "a@shop.example", "x@remote.example", "530 5.7.0", "no identity"),
    (STRANGER, "a@remote.example", "x@remote.example", "550 5.7.1", "no open relay"),
    (STRANGER, "a@shop.example", "x@remote.example", "550 5.7.1", "a declared sender opens nothing"),
    (STRANGER, "a@shop.example", "x@shop.example", "550 5.7.1", "we have no mailboxes"),
    (STRANGER, "", "x@remote.example", "550 5.7.1", "nor the null path"),
    (STRANGER, "a@remote.example", "PostMaster@shop.example", "", "postmaster of a declared domain"),
    (STRANGER, "", "postmaster", "", "bare postmaster (RFC 5321 4.5.1)"),
    (STRANGER, "a@remote.example", "postmaster@remote.example", "550 5.7.1", "not their postmaster"),
    (STRANGER, "a@remote.example", "postmaster%remote.example@shop.example", "550 5.7.1", "not a postmaster"),
    (OFFICE, "a@shop.example", "x@remote.example", "", "an allowed network"),
    (OFFICE, "", "x@remote.example", "", "an allowed network's reports"),
    (OFFICE, "a@remote.example", "x@remote.example", "550 5.7.1", "an allowed network, a foreign sender"),
    (OFFICE, "a@shop.example", "x@blocked.example", "550 5.7.1", "the tenant's rule holds here too"),
    (OFFICE, "a@shop.example", "x@[10.0.0.1]", "550 5.1.2", "no literals for networks either"),
    (replace(OFFICE, address="::ffff:10.1.2.3"), "a@shop.example", "x@remote.example", "", "a mapped address"),
    (replace(OFFICE, address="fd00::1"), "a@shop.example", "x@remote.example", "", "IPv6"),
    (replace(OFFICE, address="10.9.1.1"), "a@shop.example", "x@remote.example", "550 5.7.1", "a rejected network"),
    (replace(OFFICE, address="10.9.1.1"), "a@shop.example", "postmaster@shop.example", "", "postmaster always"),
    (replace(STRANGER, address=""), "a@shop.example", "x@remote.example", "550 5.7.1", "an unknown address"),
]


@pytest.mark.parametrize(
    ("client", "sender", "recipient", "expected", "why"),
    RECIPIENTS,
    ids=[f"{r[4]}-{i}" for i, r in enumerate(RECIPIENTS)],
)
def test_recipients(client: Client, sender: str, recipient: str, expected: str, why: str) -> None:
    assert _verdict(check_recipient(client, address(sender), known(recipient), CONFIG)) == expected, why


def test_another_tenants_network_rule_opens_nothing() -> None:
    assert "0.0.0.0/0" in CONFIG.rules_of("bank")[0].match.networks
    refusal = check_recipient(STRANGER, address("a@bank.example"), known("x@remote.example"), CONFIG)
    assert refusal is not None
    assert refusal.problem == "relaying-denied"


def test_a_rules_text_cannot_end_the_reply() -> None:
    refusal = check_recipient(submitter(), address("a@shop.example"), known("x@blocked.example"), CONFIG)
    assert refusal is not None
    assert refusal.text == "No?250 ok"


def test_a_rule_by_tag_rejects_where_the_door_knows_tags() -> None:
    refusal = check_recipient(
        submitter(), address("a@shop.example"), known("x@remote.example"), CONFIG, tags=("never",)
    )
    assert refusal is not None
    assert refusal.problem == "rejected-by-rule"


def test_nobody_is_postmaster_where_no_domain_is_declared() -> None:
    empty = build_config([], 1, "sternpost")
    assert _verdict(check_recipient(STRANGER, None, known("postmaster"), empty)) == "550 5.1.1"


CONTENTS = [
    (submitter(), "a@shop.example", "From: a@shop.example", "", "own From"),
    (submitter(), "a@shop.example", "From: X <b@mail.shop.example>", "", "another of their domains"),
    (submitter(), "a@shop.example", "From: a@bank.example", "550 5.7.1", "foreign From"),
    (submitter(), "a@shop.example", "From: a@shop.example, b@bank.example", "550 5.7.1", "one of two is foreign"),
    (submitter(), "a@shop.example", "From: a@shop.example, b@shop.example", "", "two of their own"),
    (submitter(), "a@shop.example", "From: a@shop.example\r\nFrom: b@shop.example", "550 5.6.0", "two From fields"),
    (submitter(), "a@shop.example", "Subject: x", "550 5.6.0", "no From"),
    (submitter(), "a@shop.example", "From: a b c", "550 5.6.0", "an unreadable From"),
    (submitter(), "a@shop.example", "From: G: a@shop.example, b@bank.example;", "550 5.7.1", "foreign in a group"),
    (submitter(), "", "From: a@shop.example", "", "null path, own From"),
    (submitter(), "", "From: a@bank.example", "550 5.7.1", "null path, foreign From"),
    (submitter(NARROW), "news@shop.example", "From: other@shop.example", "550 5.7.1", "not this credential's"),
    (submitter(None), "a@shop.example", "From: a@shop.example", "530 5.7.0", "no identity"),
    (OFFICE, "a@shop.example", "From: a@shop.example", "", "a network with a declared domain"),
    (OFFICE, "a@shop.example", "From: a@bank.example", "550 5.7.1", "a network may not mix tenants"),
    (OFFICE, "", "From: a@bank.example", "", "a network's report"),
    (OFFICE, "", "From: a@bank.example, b@shop.example", "550 5.7.1", "a report of two tenants"),
    (OFFICE, "", "From: a@remote.example", "550 5.7.1", "a report of nobody here"),
    (submitter(), "a@shop.example", "Received: x\r\n" * (MAX_HOPS + 1) + "From: a@shop.example", "554 5.4.6", "a loop"),
]


@pytest.mark.parametrize(("client", "sender", "header", "expected", "why"), CONTENTS, ids=[row[4] for row in CONTENTS])
def test_every_author_is_bound_to_the_identity(
    client: Client, sender: str, header: str, expected: str, why: str
) -> None:
    assert _verdict(check_content(client, address(sender), facts(header), CONFIG)) == expected, why


def test_mail_for_postmaster_is_taken_whatever_its_from_says() -> None:
    header = facts("From: a@remote.example\r\nFrom: broken")
    alone = Envelope("", (Recipient("postmaster@shop.example"), Recipient("postmaster")))
    assert check_content(STRANGER, None, header, CONFIG, alone) is None
    mixed = Envelope("", (Recipient("postmaster@shop.example"), Recipient("x@remote.example")))
    assert _verdict(check_content(OFFICE, None, header, CONFIG, mixed)) == "550 5.6.0"


def test_nothing_is_decided_before_the_configuration_is_complete() -> None:
    for refusal in (
        check_sender(submitter(), address("a@shop.example"), EMPTY_CONFIG),
        check_recipient(STRANGER, None, known("postmaster"), EMPTY_CONFIG),
        check_content(submitter(), None, facts("From: a@shop.example"), EMPTY_CONFIG),
    ):
        assert refusal is not None
        assert refusal.code == 451
        assert refusal.is_temporary


def test_a_foreign_domain_is_not_told_from_an_undeclared_one() -> None:
    texts = {
        refusal.text.replace(domain, "?")
        for domain in ("bank.example", "nobody.example")
        if (refusal := check_sender(submitter(), address(f"a@{domain}"), CONFIG))
    }
    assert len(texts) == 1


def test_a_broken_header_is_a_public_refusal() -> None:
    refusal = refuse_header(HeaderError("header has a NUL"))
    assert (refusal.code, refusal.enhanced, refusal.text) == (550, "5.6.0", "Header has a NUL")


# --- the mail ---------------------------------------------------------------------------------------------------------

CONTENT = b"From: a@shop.example\r\nSubject: hi\r\n\r\nbody\r\n"


def test_the_octets_stay_below_what_is_put_on_top() -> None:
    mail = make(submitter(), Envelope("a@shop.example", (Recipient("x@remote.example"),)))
    assert mail.content.endswith(CONTENT)
    assert mail.size == len(mail.content)
    top = mail.content[: -len(CONTENT)].decode()
    assert top == (
        "Received: from laptop ([192.0.2.7])\r\n"
        "\tby mx.sternpost.example with ESMTPSA id 01testid\r\n"
        "\tfor <x@remote.example>;\r\n"
        "\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
        "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        "Message-ID: <01testid@shop.example>\r\n"
    )


def test_a_date_and_message_id_that_are_there_are_left_alone() -> None:
    content = b"Date: never\r\nMessage-Id: <x@y>\r\n" + CONTENT
    mail = make(submitter(), Envelope("", (Recipient("x@remote.example"),)), content)
    assert mail.content.count(b"\r\nDate:") == 1
    assert mail.content.lower().count(b"\r\nmessage-id:") == 1
    assert decode_facts(mail.facts).message_id == "<x@y>"


def test_several_recipients_are_not_told_of_each_other() -> None:
    mail = make(submitter(), Envelope("", (Recipient("x@remote.example"), Recipient("y@remote.example"))))
    assert b"remote.example" not in mail.content


PROTOCOLS = [
    (STRANGER, False, "ESMTP"),
    (replace(STRANGER, tls=True), False, "ESMTPS"),
    (replace(STRANGER, esmtp=False), False, "SMTP"),
    (replace(submitter(), tls=False), False, "ESMTPA"),
    (submitter(), True, "UTF8SMTPSA"),
    (replace(STRANGER, tls=True), True, "UTF8SMTPS"),
    (submitter(door=Door.HTTP), False, "HTTPS"),
    (replace(submitter(door=Door.HTTP), tls=False), True, "HTTP"),
]


@pytest.mark.parametrize(("client", "utf8", "protocol"), PROTOCOLS)
def test_the_trace_field_names_the_registered_protocol(client: Client, utf8: bool, protocol: str) -> None:
    mail = make(client, Envelope("", (Recipient("postmaster@shop.example"),), smtputf8=utf8))
    assert f" with {protocol} id " in mail.content.decode()


@pytest.mark.parametrize("helo", ["a b", "x\r\nEvil: 1", "(", "", "ü", "x" * 300, "a;b"])
def test_a_strange_helo_never_reaches_the_trace_field(helo: str) -> None:
    mail = make(replace(STRANGER, helo=helo, address="2001:db8::1"), Envelope("", (Recipient("postmaster"),)))
    assert mail.content.startswith(b"Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n\tby ")
    assert email.message_from_bytes(mail.content)["Evil"] is None


def test_the_identity_gives_tenant_and_lane() -> None:
    mail = make(submitter(NARROW), Envelope("news@shop.example", (Recipient("x@remote.example"),)))
    assert (mail.tenant, mail.identity, mail.lane) == ("shop", "narrow", Lane.BULK)


TENANTS = [
    (OFFICE, "a@shop.example", ["x@remote.example"], "shop", "the sender's"),
    (
        OFFICE,
        "a@shop.example",
        ["postmaster@bank.example", "x@remote.example"],
        "shop",
        "the sender's, if one is relayed",
    ),
    (OFFICE, "", ["x@remote.example"], "sternpost", "the namespace whose rule opened the door"),
    (STRANGER, "a@shop.example", ["postmaster@bank.example"], "bank", "a stranger's MAIL FROM proves nothing"),
    (STRANGER, "", ["postmaster"], "shop", "the home domain's"),
]


@pytest.mark.parametrize(("client", "sender", "recipients", "tenant", "why"), TENANTS, ids=[row[4] for row in TENANTS])
def test_a_mail_without_identity_belongs_to_a_tenant(
    client: Client, sender: str, recipients: list[str], tenant: str, why: str
) -> None:
    mail = make(client, Envelope(sender, tuple(map(Recipient, recipients))), hostname="mx.mail.shop.example")
    assert mail.tenant == tenant, why


def test_postmasters_mail_goes_where_the_domain_wants_it() -> None:
    recipients = (
        Recipient("POSTMASTER@bank.example", Notify.FAILURE),
        Recipient("postmaster"),
        Recipient("postmaster@shop.example"),
    )
    mail = make(STRANGER, Envelope("", recipients), hostname="mx.shop.example")
    assert mail.envelope.recipients == (
        Recipient("ops@elsewhere.example", Notify.FAILURE),
        Recipient("postmaster@shop.example"),
    )
    sent = make(submitter(), Envelope("", (Recipient("postmaster@bank.example"),)))
    assert sent.envelope.recipients == (Recipient("postmaster@bank.example"),)


def test_facts_times_and_eight_bit() -> None:
    content = "From: a@shop.example\r\nSubject: =?utf-8?q?J=C3=B6?=\r\n\r\nbödy\r\n".encode()
    mail = make(
        submitter(),
        Envelope("a@shop.example", (Recipient("x@remote.example"),)),
        content,
        not_before_ms=1_700_000_100_000,
    )
    told = decode_facts(mail.facts)
    assert (told.subject, told.header_from, told.client) == ("Jö", "a@shop.example", "192.0.2.7")
    assert told.recipients == ("x@remote.example",)
    assert mail.envelope.eight_bit
    assert mail.expires_ms == 1_700_000_100_000 + 5 * 86_400_000


def facts(header: str) -> HeaderFacts:
    return read_header(header.encode() + b"\r\n\r\nbody\r\n")


def make(
    client: Client,
    envelope: Envelope,
    content: bytes = CONTENT,
    *,
    hostname: str = "mx.sternpost.example",
    config: Config = CONFIG,
    not_before_ms: int = 0,
) -> Mail:
    return make_mail(
        client,
        envelope,
        content,
        read_header(content),
        config,
        mail_id="01testid",
        now_ms=1_700_000_000_000,
        hostname=hostname,
        not_before_ms=not_before_ms,
    )


def _verdict(refusal: object) -> str:
    code, enhanced = getattr(refusal, "code", ""), getattr(refusal, "enhanced", "")
    return f"{code} {enhanced}".strip()
