"""Limits per client address, with a clock of ours."""

from typing import Any

from sternpost_ingress.smtp_limits import ClientLimits


def limits(**changes: Any) -> ClientLimits:
    wanted: dict[str, Any] = {
        "connections": 2,
        "connections_per_minute": 4,
        "mails_per_minute": 3,
        "exempt": ("10.0.0.0/8",),
        "size": 1000,
    }
    return ClientLimits(**(wanted | changes))


def test_open_connections_are_limited_and_given_back() -> None:
    clients = limits()
    assert [clients.enter("192.0.2.1", 0) for _ in range(3)] == ["", "", "connections"]
    clients.leave("192.0.2.1")
    assert clients.enter("192.0.2.1", 1) == ""
    assert clients.enter("192.0.2.2", 1) == ""


def test_new_connections_are_limited_in_a_minute() -> None:
    clients = limits(connections=0)
    assert [clients.enter("192.0.2.1", 0) for _ in range(5)] == ["", "", "", "", "connection-rate"]
    assert clients.enter("192.0.2.1", 59) == "connection-rate"
    assert clients.enter("192.0.2.1", 60) == ""


def test_mails_are_limited_in_a_minute() -> None:
    clients = limits()
    assert [clients.take_mail("192.0.2.1", 0) for _ in range(4)] == [True, True, True, False]
    assert clients.take_mail("192.0.2.1", 61)


def test_one_ipv6_network_is_one_client() -> None:
    clients = limits(connections=1)
    assert clients.enter("2001:db8::1", 0) == ""
    assert clients.enter("2001:db8::ffff:2", 0) == "connections"
    assert clients.enter("2001:db8:0:1::1", 0) == ""


def test_exempt_networks_and_limits_of_zero_are_not_counted() -> None:
    clients = limits()
    assert {clients.enter("10.1.2.3", 0) for _ in range(100)} == {""}
    assert len(clients) == 0
    free = limits(connections=0, connections_per_minute=0, mails_per_minute=0)
    assert {free.enter("192.0.2.1", 0) for _ in range(100)} == {""}


def test_the_table_is_bounded_and_never_forgets_who_is_connected() -> None:
    clients = limits(size=100)
    assert clients.enter("192.0.2.1", 0) == ""
    assert clients.enter("192.0.2.1", 0) == ""
    for n in range(5000):
        clients.take_mail(f"198.51.{n // 250}.{n % 250}", n / 1000)
        assert len(clients) <= 101
    assert clients.enter("192.0.2.1", 5) == "connections"
