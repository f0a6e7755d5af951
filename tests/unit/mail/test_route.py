"""Which rule decides: order, and what each trait matches."""

import pytest

from sternpost_mail.route import (
    Action,
    MailTraits,
    Match,
    RelayRule,
    address_matches,
    find_rule,
    in_networks,
    matches,
    order_rules,
)

MAIL = MailTraits("bulk@news.example.com", "Bob@Sub.Example.org", "robot", ("news", "weekly"), "192.0.2.7")


@pytest.mark.parametrize(
    ("patterns", "address", "expected", "why"),
    [
        (("a@example.com",), "a@example.com", True, "the address"),
        (("a@example.com",), "A@EXAMPLE.com", True, "a capital evades nothing"),
        (("a@example.com",), "b@example.com", False, "another"),
        (("example.com",), "b@example.com", True, "the domain"),
        (("example.com",), "b@sub.example.com", False, "not its subdomains"),
        (("example.com",), "b@notexample.com", False, "a suffix of letters is no domain"),
        ((".example.com",), "b@example.com", True, "with subdomains: itself"),
        ((".example.com",), "b@a.b.example.com", True, "with subdomains: all below"),
        ((".example.com",), "b@badexample.com", False, "the dot counts"),
        (("example.com",), '"x@example.com"@else.example', False, "an address in quotes is no domain"),
        (("x@y.example",), '"x@y.example"@else.example', False, "an address in quotes is no address"),
        (("example.com",), "b%example.com@else.example", False, "the percent hack"),
        (("one.example", "two.example"), "b@two.example", True, "any of them"),
        ((), "b@two.example", False, "none of none"),
        (("example.com",), "", False, "the null sender belongs to nobody"),
        ((".com",), "a@example.com", True, "a whole top level"),
    ],
)
def test_address_patterns(patterns: tuple[str, ...], address: str, expected: bool, why: str) -> None:
    assert address_matches(patterns, address) is expected, why


@pytest.mark.parametrize(
    ("match", "expected", "why"),
    [
        (Match(), True, "an empty match is everything"),
        (Match(senders=("news.example.com",)), True, "sender"),
        (Match(senders=("other.example",)), False, "another sender"),
        (Match(recipients=(".example.org",)), True, "recipient"),
        (Match(recipients=("example.org",)), False, "another recipient domain"),
        (Match(identities=("robot", "human")), True, "identity, any of"),
        (Match(identities=("Robot",)), False, "names have case"),
        (Match(tags=("weekly", "daily")), True, "one tag is enough"),
        (Match(tags=("daily",)), False, "no such tag"),
        (Match(networks=("192.0.2.0/24",)), True, "network"),
        (Match(networks=("198.51.100.0/24",)), False, "another network"),
        (Match(senders=("news.example.com",), tags=("daily",)), False, "all that are given must match"),
        (Match(senders=("news.example.com",), tags=("news",), networks=("192.0.2.7/32",)), True, "all do"),
    ],
)
def test_matches(match: Match, expected: bool, why: str) -> None:
    assert matches(match, MAIL) is expected, why


@pytest.mark.parametrize(
    ("cidrs", "client", "expected"),
    [
        (("192.0.2.0/24",), "192.0.2.255", True),
        (("192.0.2.0/24",), "192.0.3.0", False),
        (("192.0.2.0/24",), "::ffff:192.0.2.1", True),
        (("2001:db8::/32",), "2001:db8::1", True),
        (("2001:db8::/32",), "192.0.2.1", False),
        (("::/0",), "192.0.2.1", False),
        (("0.0.0.0/0",), "2001:db8::1", False),
        (("10.0.0.0/8", "192.0.2.7/32"), "192.0.2.7", True),
        (("0.0.0.0/0", "::/0"), "", False),
        ((), "192.0.2.1", False),
    ],
)
def test_networks(cidrs: tuple[str, ...], client: str, expected: bool) -> None:
    assert in_networks(cidrs, client) is expected


def make_rule(name: str, priority: int, match: Match | None = None) -> RelayRule:
    return RelayRule("t", name, priority, match or Match(), Action.DIRECT)


def test_higher_priority_first_then_by_name() -> None:
    rules = [make_rule("b", 0), make_rule("a", 0), make_rule("z", 10), make_rule("low", -5)]
    assert [rule.name for rule in order_rules(rules)] == ["z", "a", "b", "low"]


def test_the_first_match_decides() -> None:
    rules = order_rules(
        [make_rule("any", 0), make_rule("tagged", 5, Match(tags=("news",))), make_rule("other", 9, Match(tags=("x",)))]
    )
    found = find_rule(rules, MAIL)
    assert found is not None
    assert found.name == "tagged"


def test_no_rule_is_direct_delivery() -> None:
    assert find_rule((), MAIL) is None
    assert find_rule((make_rule("x", 0, Match(tags=("x",))),), MAIL) is None
