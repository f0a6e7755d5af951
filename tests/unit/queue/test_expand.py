"""From a mail to steps: which recipients share a fate and a way."""

import pytest

from sternpost_mail.config import EMPTY_CONFIG, Domain
from sternpost_mail.dispatch import Route
from sternpost_mail.retry import DEFAULT_RETRY, RetryPolicy
from sternpost_mail.route import Action, Match, RelayRule, SmartHost, TlsDemand
from sternpost_queue.expand import Fate, Step, expand, route_of, smart_site, wire_address
from tests.unit.queue.build import make_config, make_mail

HOSTS = (SmartHost("relay2.example", 587), SmartHost("relay1.example", 2525))


def rule(name: str, action: Action, match: Match, priority: int = 0, **more: object) -> RelayRule:
    return RelayRule("team-a", name, priority, match, action, **more)  # type: ignore[arg-type]


def shape(steps: list[Step]) -> list[tuple[Fate, tuple[int, ...], str]]:
    return [(step.fate, step.recipients, step.domain) for step in steps]


def test_without_rules_recipients_are_grouped_by_domain_whatever_its_case() -> None:
    mail = make_mail("a@One.example", "b@two.example", "c@one.EXAMPLE")
    steps = expand(mail, range(3), EMPTY_CONFIG)
    assert shape(steps) == [(Fate.SEND, (0, 2), "one.example"), (Fate.SEND, (1,), "two.example")]
    assert steps[0].addresses == ("a@One.example", "c@one.EXAMPLE")
    assert steps[0].retry is DEFAULT_RETRY
    assert route_of(steps[0]) == Route(domain="one.example")


def test_only_open_recipients_are_expanded() -> None:
    mail = make_mail("a@one.example", "b@two.example", "c@three.example")
    assert shape(expand(mail, [2], EMPTY_CONFIG)) == [(Fate.SEND, (2,), "three.example")]


@pytest.mark.parametrize(
    ("action", "fate"),
    [
        (Action.DIRECT, Fate.SEND),
        (Action.SMART_HOST, Fate.SEND),
        (Action.REJECT, Fate.REJECT),
        (Action.HOLD, Fate.HOLD),
        (Action.DISCARD, Fate.DISCARD),
    ],
)
def test_each_action_has_its_fate(action: Action, fate: Fate) -> None:
    config = make_config(rule("r", action, Match(), smart_hosts=HOSTS if action is Action.SMART_HOST else ()))
    [step] = expand(make_mail("b@there.example"), [0], config)
    assert step.fate is fate
    assert step.rule is not None
    assert step.rule.name == "r"


def test_smart_hosts_take_recipients_of_all_domains_together() -> None:
    config = make_config(rule("out", Action.SMART_HOST, Match(), smart_hosts=HOSTS, tls=TlsDemand.REQUIRED))
    [step] = expand(make_mail("a@one.example", "b@two.example"), range(2), config)
    assert (step.recipients, step.domain) == ((0, 1), "")
    assert step.rule is not None
    assert route_of(step).smart_hosts == HOSTS
    assert smart_site(step.rule) == "relay1.example:2525,relay2.example:587"


def test_a_direct_rule_keeps_domains_apart_and_brings_its_demands() -> None:
    retry = RetryPolicy(first=1)
    config = make_config(
        rule("strict", Action.DIRECT, Match(recipients=(".example",)), tls=TlsDemand.VERIFIED, retry=retry)
    )
    steps = expand(make_mail("a@one.example", "b@two.example", "c@other.test"), range(3), config)
    assert shape(steps) == [
        (Fate.SEND, (0,), "one.example"),
        (Fate.SEND, (1,), "two.example"),
        (Fate.SEND, (2,), "other.test"),
    ]
    assert route_of(steps[0]) == Route(domain="one.example", tls=TlsDemand.VERIFIED)
    assert [step.retry for step in steps] == [retry, retry, DEFAULT_RETRY]


def test_recipients_of_one_mail_may_meet_different_rules() -> None:
    config = make_config(
        rule("drop", Action.DISCARD, Match(recipients=("drop.example",)), priority=5),
        rule("stop", Action.REJECT, Match(recipients=("x@one.example",)), priority=5, reject_text="not here"),
        rule("rest", Action.SMART_HOST, Match(), smart_hosts=HOSTS),
    )
    mail = make_mail("x@one.example", "y@one.example", "z@drop.example", "v@two.example")
    steps = expand(mail, range(4), config)
    assert shape(steps) == [(Fate.REJECT, (0,), ""), (Fate.SEND, (1, 3), ""), (Fate.DISCARD, (2,), "")]
    assert steps[0].reject_text == "550 5.7.1 not here"


def test_a_reject_without_a_text_still_says_why() -> None:
    [step] = expand(make_mail("b@x.example"), [0], make_config(rule("r", Action.REJECT, Match())))
    assert step.reject_text == "550 5.7.1 refused by a relay rule"


def test_another_tenants_rules_do_not_count() -> None:
    config = make_config(rule("drop", Action.DISCARD, Match()))
    assert shape(expand(make_mail("b@x.example", tenant="team-b"), [0], config)) == [(Fate.SEND, (0,), "x.example")]


@pytest.mark.parametrize("spelling", ["b@bücher.example", "b@BÜCHER.example", "b@xn--bcher-kva.example"])
def test_no_spelling_of_an_international_domain_evades_a_rule(spelling: str) -> None:
    config = make_config(rule("stop", Action.REJECT, Match(recipients=("xn--bcher-kva.example",))))
    assert shape(expand(make_mail(spelling), [0], config)) == [(Fate.REJECT, (0,), "")]
    [direct] = expand(make_mail(spelling), [0], EMPTY_CONFIG)
    assert direct.domain == "xn--bcher-kva.example"
    assert direct.addresses == (spelling,)


def test_a_network_rule_looks_at_the_client() -> None:
    config = make_config(rule("lan", Action.HOLD, Match(networks=("192.0.2.0/24",))))
    assert expand(make_mail(), [0], config, "192.0.2.7")[0].fate is Fate.HOLD
    assert expand(make_mail(), [0], config, "198.51.100.7")[0].fate is Fate.SEND
    assert expand(make_mail(), [0], config)[0].fate is Fate.SEND


@pytest.mark.parametrize(
    ("address", "expected", "why"),
    [
        ("postmaster@home.example", "ops@else.example", "where the domain says"),
        ("PostMaster@HOME.example", "ops@else.example", "in whatever case"),
        ("postmaster@silent.example", "postmaster@silent.example", "a domain that says nothing"),
        ("postmaster@foreign.example", "postmaster@foreign.example", "a domain that is not ours"),
        ("postmaster2@home.example", "postmaster2@home.example", "somebody else"),
        ("b@home.example", "b@home.example", "everybody else"),
    ],
)
def test_where_mail_for_postmaster_goes(address: str, expected: str, why: str) -> None:
    config = make_config(
        Domain("team-a", "home", "home.example", postmaster="ops@else.example"),
        Domain("team-a", "silent", "silent.example"),
    )
    assert wire_address(address, config) == expected, why
    [step] = expand(make_mail(address), [0], config)
    assert step.addresses == (expected,), why
    assert step.domain == expected.rpartition("@")[2]
