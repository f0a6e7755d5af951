"""From domains to addresses, against a DNS server whose zones are the test's data."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from sternpost_delivery.resolve import MAX_ADDRESSES, MAX_HOSTS, ResolveFailed, Resolver
from sternpost_mail.dispatch import Route
from sternpost_mail.outcome import PermanentFailure, Unreached
from sternpost_mail.route import SmartHost, TlsDemand
from tests.support.dns_server import REFUSED, SERVFAIL, SILENT, TRUNCATED, DnsServer, Zone, running_dns

LONG = [f"{n} a-rather-long-host-name-{n:03}.mail.example.com." for n in range(12)]
MANY = {f"m{n}.test": {"A": [f"8.1.{n}.{k}" for k in range(1, 5)]} for n in range(8)}
ZONE: Zone = {
    "two.test": {"MX": ["20 b.test.", "10 a.test."]},
    "a.test": {"A": ["8.0.0.1"], "AAAA": ["2a00::1"]},
    "b.test": {"A": ["8.0.0.2"]},
    "plain.test": {"A": ["8.0.0.3"]},
    "alias.test": {"CNAME": ["two.test."]},
    "null.test": {"MX": ["0 ."], "A": ["8.0.0.4"]},
    "nothing.test": {"TXT": ['"x"']},
    "dead.test": {"MX": ["10 gone.test."]},
    "broken.test": SERVFAIL,
    "refused.test": REFUSED,
    "silent.test": SILENT,
    "halfbroken.test": {"MX": ["10 gone.test.", "20 broken.test."]},
    "mostlybroken.test": {"MX": ["10 broken.test.", "20 b.test."]},
    "private.test": {"MX": ["10 inside.test."]},
    "inside.test": {"A": ["10.0.0.1"], "AAAA": ["::ffff:127.0.0.1", "fe80::1"]},
    "mixed.test": {"MX": ["10 inside.test.", "20 b.test."]},
    "ours.test": {"MX": ["10 US.test."]},
    "backup.test": {"MX": ["10 a.test.", "20 us.test.", "20 b.test.", "30 plain.test."]},
    "byaddress.test": {"MX": ["10 b.test.", "20 alsous.test.", "30 plain.test."]},
    "alsous.test": {"A": ["8.0.0.99"]},
    "many.test": {"MX": [f"{n} m{n}.test." for n in range(8)]},
    "long.test": {"MX": LONG},
    "cut.test": {"MX": ["10 a.test.", TRUNCATED]},
    **MANY,
}


@pytest.fixture
async def dns() -> AsyncIterator[DnsServer]:
    async with running_dns(ZONE) as server:
        yield server


def make_resolver(dns: DnsServer, **changes: Any) -> Resolver:
    given: dict[str, Any] = {"own_names": ["us.test"], "own_addresses": ["8.0.0.99"], "lifetime": 5.0}
    return Resolver(nameservers=[dns.address], **(given | changes))


async def hosts(resolver: Resolver, domain: str, **changes: Any) -> list[tuple[str, str]]:
    route = Route(domain=domain, **changes)
    return [(endpoint.host, address) async for endpoint, address in resolver.targets(route)]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("two.test", [("a.test", "8.0.0.1"), ("a.test", "2a00::1"), ("b.test", "8.0.0.2")]),
        ("plain.test", [("plain.test", "8.0.0.3")]),
        ("alias.test", [("a.test", "8.0.0.1"), ("a.test", "2a00::1"), ("b.test", "8.0.0.2")]),
        ("mostlybroken.test", [("b.test", "8.0.0.2")]),
        ("mixed.test", [("b.test", "8.0.0.2")]),
        ("backup.test", [("a.test", "8.0.0.1"), ("a.test", "2a00::1")]),
        ("byaddress.test", [("b.test", "8.0.0.2")]),
        ("cut.test", [("a.test", "8.0.0.1"), ("a.test", "2a00::1")]),
        ("[8.0.0.7]", [("8.0.0.7", "8.0.0.7")]),
        ("[IPv6:2a00::7]", [("2a00::7", "2a00::7")]),
    ],
)
async def test_the_addresses_of_a_domain_in_order(dns: DnsServer, domain: str, expected: list[tuple[str, str]]) -> None:
    assert await hosts(make_resolver(dns), domain) == expected


@pytest.mark.parametrize(
    ("domain", "code", "enhanced"),
    [
        ("null.test", 556, "5.1.10"),
        ("nowhere.test", 550, "5.1.2"),
        ("nothing.test", 550, "5.4.4"),
        ("dead.test", 550, "5.4.4"),
        ("private.test", 550, "5.4.4"),
        ("[127.0.0.1]", 550, "5.4.4"),
        ("[IPv6:::ffff:10.0.0.1]", 550, "5.4.4"),
        ("ours.test", 554, "5.4.6"),
        ("alsous.test", 554, "5.4.6"),
        ("x" * 64 + ".test", 550, "5.1.2"),
    ],
)
async def test_what_will_never_work_is_permanent(dns: DnsServer, domain: str, code: int, enhanced: str) -> None:
    with pytest.raises(ResolveFailed) as failed:
        await hosts(make_resolver(dns), domain)
    assert isinstance(failed.value.outcome, PermanentFailure)
    assert (failed.value.outcome.reply.code, failed.value.outcome.reply.enhanced) == (code, enhanced)


@pytest.mark.parametrize("domain", ["broken.test", "refused.test", "silent.test", "halfbroken.test"])
async def test_trouble_of_nameservers_is_temporary_and_never_taken_for_a_missing_name(
    dns: DnsServer, domain: str
) -> None:
    with pytest.raises(ResolveFailed) as failed:
        await hosts(make_resolver(dns, lifetime=0.5), domain)
    assert isinstance(failed.value.outcome, Unreached)


async def test_no_more_hosts_and_addresses_are_tried_than_the_limits_say(dns: DnsServer) -> None:
    found = await hosts(make_resolver(dns), "many.test")
    assert len(found) == MAX_ADDRESSES
    assert len({host for host, _ in found}) <= MAX_HOSTS
    assert found[0][0] == "m0.test"


async def test_a_rule_that_the_administrator_allowed_may_reach_inside(dns: DnsServer) -> None:
    route = Route(smart_hosts=(SmartHost("inside.test", 25, TlsDemand.DISABLED),))
    resolver = make_resolver(dns)
    with pytest.raises(ResolveFailed):
        await anext(resolver.targets(route))
    allowed = Route(smart_hosts=route.smart_hosts, allow_forbidden_addresses=True)
    _, address = await anext(resolver.targets(allowed))
    assert address == "10.0.0.1"


async def test_a_smart_host_is_not_looked_up_as_mx_and_may_be_ourselves(dns: DnsServer) -> None:
    route = Route(domain="ignored.test", smart_hosts=(SmartHost("alsous.test", 2526, TlsDemand.DISABLED),))
    resolver = make_resolver(dns)
    endpoint, address = await anext(resolver.targets(route))
    assert (endpoint.host, endpoint.port, address) == ("alsous.test", 2526, "8.0.0.99")
    assert not any(kind == "MX" for _, kind in dns.asked)


async def test_ipv6_first_where_it_is_preferred(dns: DnsServer) -> None:
    found = await hosts(make_resolver(dns, prefer_ipv6=True), "two.test")
    assert found[0] == ("a.test", "2a00::1")


async def test_answers_and_failures_are_remembered(dns: DnsServer) -> None:
    resolver = make_resolver(dns)
    for _ in range(3):
        await hosts(resolver, "two.test")
        with pytest.raises(ResolveFailed):
            await hosts(resolver, "nowhere.test")
    assert dns.asked["two.test", "MX"] == 1
    assert dns.asked["a.test", "A"] == 1
    assert dns.asked["nowhere.test", "MX"] == 1


async def test_sites_share_a_name_by_their_mail_exchangers(dns: DnsServer) -> None:
    resolver = make_resolver(dns)
    two, alias = await resolver.site("two.test"), await resolver.site("alias.test")
    assert two.name == alias.name == "a.test,b.test"
    assert 0 < two.ttl <= 60
    assert (await resolver.site("plain.test")).name == "plain.test"


async def test_a_domain_without_route_never_shares_a_site_with_those_whose_mail_exchanger_it_is(dns: DnsServer) -> None:
    resolver = make_resolver(dns)
    for domain in ("null.test", "nowhere.test", "broken.test"):
        assert (await resolver.site(domain)).name == f"unroutable/{domain}"


async def test_a_long_set_of_mail_exchangers_has_a_short_name(dns: DnsServer) -> None:
    name = (await make_resolver(dns).site("long.test")).name
    assert name.startswith("mx-")
    assert len(name) < 64
