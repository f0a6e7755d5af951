"""Ports of `sternpost up`: variables, mistakes, and ports that are taken."""

import socket
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sternpost_cli.ports import HOST, PortError, Ports, check_free, read_ports, variable_of
from sternpost_cli.quickstart import first_message
from tests.support.platform import free_ports

ROOT = Path(__file__).resolve().parents[3]


def test_without_variables_the_ports_are_those_of_the_readme() -> None:
    ports = read_ports({})
    assert (ports.mx_port, ports.submission_port, ports.submissions_port) == (2525, 2587, 2465)
    assert (ports.http_port, ports.sink_smtp_port, ports.sink_http_port) == (8080, 2526, 8026)


@pytest.mark.parametrize("name", list(asdict(Ports())))
def test_each_port_has_a_variable(name: str) -> None:
    assert read_ports({f"STERNPOST_{name.upper()}": "12345"}) == replace(Ports(), **{name: 12345})


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "25 ", "²"])
def test_a_value_that_is_no_port_names_its_variable(text: str) -> None:
    with pytest.raises(PortError, match="STERNPOST_MX_PORT="):
        read_ports({"STERNPOST_MX_PORT": text})


def test_one_port_for_two_doors_names_both_variables() -> None:
    with pytest.raises(PortError, match=r"STERNPOST_HTTP_PORT and STERNPOST_SINK_HTTP_PORT are both 8080"):
        read_ports({"STERNPOST_SINK_HTTP_PORT": "8080"})


def test_a_busy_port_gives_one_line_with_the_variable_to_set() -> None:
    with socket.socket() as holder:
        holder.bind((HOST, 0))
        holder.listen()
        taken = holder.getsockname()[1]
        ports = replace(free_ports(), sink_http_port=taken)
        with pytest.raises(PortError) as error:
            check_free(ports, with_sink=True)
        assert str(error.value) == (
            f"port {taken} on 127.0.0.1 cannot be used (Address already in use): "
            "set STERNPOST_SINK_HTTP_PORT to another port"
        )
        check_free(ports, with_sink=False)


def test_the_page_on_operations_has_every_port_with_its_variable() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for name, number in asdict(Ports()).items():
        assert f"| {number} | `{variable_of(name)}` |" in page


def test_the_readme_shows_the_first_message_that_up_prints() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for part in first_message(Path(".sternpost/quickstart.env")).split("\n\n"):
        assert part in readme
