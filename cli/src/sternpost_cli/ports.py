"""The TCP ports of a platform on one machine: which, by which variable each is changed, and whether they are free."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields

HOST = "127.0.0.1"
"""Everything that `sternpost up` opens is on loopback."""
PREFIX = "STERNPOST_"


class PortError(Exception):
    """A port cannot be used; the text names the variable that changes it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """One port per door. A field's variable is its name in capitals after STERNPOST_, such as STERNPOST_MX_PORT."""

    mx_port: int = 2525
    submission_port: int = 2587
    submissions_port: int = 2465
    http_port: int = 8080
    sink_smtp_port: int = 2526
    sink_http_port: int = 8026
    nats_port: int = 4222
    ingress_health_port: int = 8181
    queue_health_port: int = 8182
    delivery_health_port: int = 8183
    auth_health_port: int = 8184
    activity_health_port: int = 8185


def read_ports(environ: Mapping[str, str]) -> Ports:
    """The ports as the environment says. Raises PortError for a value that is no port, and for one port used twice."""
    chosen: dict[str, int] = {}
    for field in fields(Ports):
        text = environ.get(variable_of(field.name), "")
        if text and (not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535):
            raise PortError(f"{variable_of(field.name)}={text!r} is not a TCP port (1 to 65535)")
        if text:
            chosen[field.name] = int(text)
    ports = Ports(**chosen)
    holders: dict[int, str] = {}
    for field in fields(Ports):
        number = getattr(ports, field.name)
        if number in holders:
            raise PortError(f"{holders[number]} and {variable_of(field.name)} are both {number}: change one")
        holders[number] = variable_of(field.name)
    return ports


def variable_of(name: str) -> str:
    """The environment variable of a field of Ports."""
    return f"{PREFIX}{name.upper()}"


def check_free(ports: Ports, *, with_sink: bool) -> None:
    """Raises PortError with one line per port that somebody else has."""
    busy = []
    for field in fields(Ports):
        if not with_sink and field.name.startswith("sink_"):
            continue
        number = getattr(ports, field.name)
        try:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, number))
        except OSError as error:
            hint = f"set {variable_of(field.name)} to another port"
            busy.append(f"port {number} on {HOST} cannot be used ({error.strerror}): {hint}")
    if busy:
        raise PortError("\n".join(busy))
