"""Which hosts, how much TLS, which addresses: tables."""

import pytest

from sternpost_delivery.client import read_extensions, stuff_dots
from sternpost_delivery.policy import (
    Endpoint,
    TlsStep,
    auth_mechanism,
    endpoints,
    is_forbidden,
    may_fall_back_to_clear,
    tls_step,
)
from sternpost_mail.dispatch import Route
from sternpost_mail.route import SmartHost, TlsDemand, TlsMode

D, O, R, V = TlsDemand.DISABLED, TlsDemand.OPPORTUNISTIC, TlsDemand.REQUIRED, TlsDemand.VERIFIED  # noqa: E741 - a table


@pytest.mark.parametrize(
    ("demand", "offered", "failed_before", "step"),
    [
        (D, True, False, TlsStep.STAY_CLEAR),
        (D, False, False, TlsStep.STAY_CLEAR),
        (O, True, False, TlsStep.START),
        (O, False, False, TlsStep.STAY_CLEAR),
        (O, True, True, TlsStep.STAY_CLEAR),
        (R, True, False, TlsStep.START),
        (R, False, False, TlsStep.REFUSE),
        (R, True, True, TlsStep.START),
        (R, False, True, TlsStep.REFUSE),
        (V, True, False, TlsStep.START),
        (V, False, False, TlsStep.REFUSE),
        (V, True, True, TlsStep.START),
        (V, False, True, TlsStep.REFUSE),
    ],
)
def test_tls_is_never_silently_weaker_than_demanded(
    demand: TlsDemand, offered: bool, failed_before: bool, step: TlsStep
) -> None:
    assert tls_step(demand, offered=offered, failed_before=failed_before) is step


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [
        (Endpoint("h", 25, O), True),
        (Endpoint("h", 25, R), False),
        (Endpoint("h", 25, V), False),
        (Endpoint("h", 465, O, implicit_tls=True), False),
        (Endpoint("h", 25, O, username="u"), False),
    ],
)
def test_only_opportunistic_tls_falls_back_to_clear_text(endpoint: Endpoint, allowed: bool) -> None:
    assert may_fall_back_to_clear(endpoint) is allowed


def test_smart_hosts_keep_their_order_and_their_own_tls() -> None:
    route = Route(
        domain="example.com",
        smart_hosts=(SmartHost("b", 465, V, TlsMode.IMPLICIT, "u", b"p"), SmartHost("a", 2525, D, TlsMode.IMPLICIT)),
        tls=R,
    )
    assert endpoints(route, ["mx.example.com"]) == (
        Endpoint("b", 465, V, True, "u", b"p"),
        Endpoint("a", 2525, D, False),
    )


def test_mail_exchangers_have_the_routes_tls() -> None:
    assert endpoints(Route(domain="x", tls=R), ["m2", "m1"]) == (Endpoint("m2", 25, R), Endpoint("m1", 25, R))


@pytest.mark.parametrize(
    ("offered", "mechanism"),
    [("PLAIN LOGIN", "PLAIN"), ("login cram-md5", "LOGIN"), ("CRAM-MD5 XOAUTH2", ""), ("", ""), ("PLAINTEXT", "")],
)
def test_the_mechanism_of_auth(offered: str, mechanism: str) -> None:
    assert auth_mechanism(offered) == mechanism


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001:0:7f00:1::1",
        "100::1",
        "not an address",
        "",
    ],
)
def test_no_tenant_makes_us_connect_there(address: str) -> None:
    assert is_forbidden(address)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2a00:1450::1a", "::ffff:8.8.8.8", "2002:808:808::1", "64:ff9b::808:808"],
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert not is_forbidden(address)


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"a\r\n", b"a\r\n"),
        (b"a", b"a\r\n"),
        (b"", b""),
        (b".\r\n", b"..\r\n"),
        (b"a\r\n.\r\n..b\r\n", b"a\r\n..\r\n...b\r\n"),
        (b"a.b\r\n", b"a.b\r\n"),
    ],
)
def test_dots_are_stuffed(content: bytes, wire: bytes) -> None:
    assert stuff_dots(content) == wire


def test_ehlo_lines_are_read_whatever_their_case_and_spelling() -> None:
    lines = ["host hello", "size 100", "AUTH=LOGIN", "Auth PLAIN", "8bitmime", ""]
    assert read_extensions(lines) == {"SIZE": "100", "AUTH": "LOGIN PLAIN", "8BITMIME": "", "": ""}
