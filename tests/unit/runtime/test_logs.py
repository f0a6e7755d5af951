"""What a process writes to its log, and what it must never write there."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sternpost_runtime.logs import REMOVED, remove_secrets, setup_logging
from sternpost_runtime.settings import ServiceSettings
from sternpost_runtime.telemetry import sampled


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    before, level = root.handlers, root.level
    setup_logging("example", ServiceSettings(hostname="pod-1", log_level="info"), stream)
    yield stream
    root.handlers, root.level = before, level
    structlog.reset_defaults()


def test_a_log_line_is_json_with_its_process(lines: io.StringIO) -> None:
    structlog.get_logger("x").info("mail_refused", reason="größe")
    line = json.loads(lines.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "event": "mail_refused",
        "reason": "größe",
        "level": "info",
        "service": "example",
        "instance": "pod-1",
    }


def test_lines_below_the_level_are_not_written(lines: io.StringIO) -> None:
    structlog.get_logger("x").debug("detail")
    assert lines.getvalue() == ""


def test_libraries_are_heard_from_warning_up(lines: io.StringIO) -> None:
    logging.getLogger("mail.log").info("AUTH PLAIN AGh1bnRlcjI=")
    logging.getLogger("nats").warning("slow %s", "consumer")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["logger"], line["level"], line["service"]) == (
        "slow consumer",
        "nats",
        "warning",
        "example",
    )


def log_a_failure(secret: str) -> None:
    """Log an exception whose frames hold a secret in a local variable."""
    doubled = secret * 2
    try:
        raise ValueError("told to")
    except ValueError:
        structlog.get_logger("x").exception("failed", octets=len(doubled))


def test_an_exception_is_one_line_without_local_variables(lines: io.StringIO) -> None:
    log_a_failure("hunter2")
    (text,) = lines.getvalue().splitlines()
    assert "ValueError: told to" in json.loads(text)["exception"]
    assert "hunter2hunter2" not in text


def test_the_console_shows_no_local_variables_either(lines: io.StringIO) -> None:
    setup_logging("example", ServiceSettings(log_format="console"), lines)
    log_a_failure("hunter2")
    assert "ValueError: told to" in lines.getvalue()
    assert "hunter2hunter2" not in lines.getvalue()


def test_a_sampled_log_made_at_import_obeys_the_logging_set_up_later(lines: io.StringIO) -> None:
    structlog.reset_defaults()
    log = sampled(structlog.get_logger("x"), every=100)
    setup_logging("example", ServiceSettings(hostname="pod-1"), lines)
    log("mail_refused", reason="quota")
    line = json.loads(lines.getvalue())
    assert (line["event"], line["reason"], line["sampled_one_in"], line["instance"]) == (
        "mail_refused",
        "quota",
        100,
        "pod-1",
    )


@pytest.mark.parametrize(
    ("fields", "written"),
    [
        ({"password": "x"}, {"password": REMOVED}),
        ({"NATS_PASSWORD": "x", "user": "y"}, {"NATS_PASSWORD": REMOVED, "user": "y"}),
        ({"headers": {"X-Api-Key": "x", "Accept": "*"}}, {"headers": {"X-Api-Key": REMOVED, "Accept": "*"}}),
        ({"list": [{"Authorization": "Bearer x"}, 1]}, {"list": [{"Authorization": REMOVED}, 1]}),
        ({"client_secret": b"x", "tenant": "shop"}, {"client_secret": REMOVED, "tenant": "shop"}),
        ({"a": {"b": {"c": {"d": {"e": {"password": "x"}}}}}}, {"a": {"b": {"c": {"d": {"e": REMOVED}}}}}),
    ],
)
def test_values_with_telling_names_are_removed(fields: dict[str, Any], written: dict[str, Any]) -> None:
    assert remove_secrets(None, "info", dict(fields)) == written
