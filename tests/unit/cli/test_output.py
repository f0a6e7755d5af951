"""What commands print, what ends them with which exit code, and the files they share."""

import json
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sternpost_cli.__main__ import app
from sternpost_cli.configuration import Access, ensure_keys, public_keys, variables
from sternpost_cli.datadir import DataDir, DataError, write_private
from sternpost_cli.logs import MAX_LINES_SHOWN, ProgramLog, important
from sternpost_cli.nats_binary import parse_version
from sternpost_cli.output import clean, describe_problem, show_time
from sternpost_cli.ports import Ports
from sternpost_cli.quickstart import first_message, parse_environment, quickstart_values, render_environment

ID = "01kb3c9q0zj8s2m4v6x8y0a2c4"
MESSAGE = {
    "id": ID,
    "state": "delivered",
    "sender": "a@example.test",
    "subject": "evil \x1b[31m subject",
    "accepted_ms": 1_700_000_000_123,
    "recipients": [{"address": "b@example.org", "state": "delivered", "attempts": 2, "last_reply": "250 2.0.0 Ok"}],
    "timeline": [
        {"at_ms": 1_700_000_000_123, "kind": "accepted"},
        {
            "at_ms": 1_700_000_001_000,
            "kind": "attempt",
            "attempt": 1,
            "recipient": "b@example.org",
            "state": "deferred",
            "reply": "451 4.7.1 later",
            "remote": "mx.example.org",
            "next_attempt_ms": 1_700_000_060_000,
        },
    ],
}


@dataclass
class Api:
    """A server that answers as it is told and remembers what it was asked."""

    url: str = ""
    status: int = 200
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str, str, Any]] = field(default_factory=list)

    def run(self, *arguments: str, data: Path | None = None) -> Any:
        options = ["--url", self.url, "--api-key", "key"] if data is None else ["--data", str(data)]
        return CliRunner().invoke(app, [*arguments, *options])


@pytest.fixture
def api() -> Iterator[Api]:
    told = Api()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            sent = json.loads(self.rfile.read(length)) if length else None
            told.asked.append((self.command, self.path, self.headers.get("Authorization", ""), sent))
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(told.body).encode())

        do_GET = do_POST = answer  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


def test_trace_shows_the_timeline_without_letting_mail_drive_the_terminal(api: Api) -> None:
    api.body = MESSAGE
    done = api.run("trace", ID)
    assert done.exit_code == 0
    assert "attempt 1" in done.stdout
    assert "451 4.7.1 later, from mx.example.org, next at 2023-11-14 22:14:20.000Z" in " ".join(done.stdout.split())
    assert "\x1b" not in done.stdout
    assert api.asked == [("GET", f"/v1/messages/{ID}", "Bearer key", None)]


def test_json_output_is_the_answer_itself(api: Api) -> None:
    api.body = MESSAGE
    assert json.loads(api.run("trace", ID, "--output", "json").stdout) == MESSAGE
    assert json.loads(api.run("queue", "show", ID, "-o", "json").stdout) == MESSAGE


def test_queue_ls_passes_its_filters_on(api: Api) -> None:
    api.body = {"messages": [MESSAGE], "next_before": ID}
    done = api.run("queue", "ls", "--state", "deferred", "--to", "b@example.org", "--limit", "7")
    assert done.exit_code == 0
    assert f"more: --before {ID}" in done.stdout
    assert api.asked[0][1] == "/v1/messages?state=deferred&to=b%40example.org&limit=7"


def test_queue_cancel_asks_for_it(api: Api) -> None:
    api.status, api.body = 202, {"id": ID, "status": "cancelling"}
    done = api.run("queue", "cancel", ID)
    assert done.stdout.startswith(f"{ID}: cancelling")
    assert api.asked[0][:2] == ("POST", f"/v1/messages/{ID}/cancel")


def test_send_composes_the_request(api: Api) -> None:
    api.status, api.body = 202, {"id": ID, "status": "queued"}
    done = api.run(
        "send", "--from", "a@example.test", "--to", "b@c.test", "--to", "d@e.test", "--subject", "s", "--text", "t"
    )
    assert done.exit_code == 0
    assert ID in done.stdout
    assert api.asked[0][3] == {"from": "a@example.test", "to": ["b@c.test", "d@e.test"], "subject": "s", "text": "t"}


def test_send_raw_turns_line_feeds_into_line_ends(api: Api, tmp_path: Path) -> None:
    api.status, api.body = 202, {"id": ID, "status": "queued"}
    (tmp_path / "mail").write_bytes(b"From: a@example.test\n\nbody\n")
    assert api.run("send", "--from", "a@b.test", "--to", "c@d.test", "--raw", str(tmp_path / "mail")).exit_code == 0
    sent = api.asked[0][3]
    assert sent["content"] == "RnJvbTogYUBleGFtcGxlLnRlc3QNCg0KYm9keQ0K"


@pytest.mark.parametrize(
    ("status", "body", "headers", "code", "text"),
    [
        (404, {"title": "No such message", "detail": "gone"}, {}, 4, "No such message (404): gone"),
        (503, {"title": "The store of mail is full"}, {"Retry-After": "5"}, 3, "is full (503); try again in 5 s"),
        (422, {"title": "Faults", "errors": [{"field": "to.0", "message": "no address"}]}, {}, 1, "  to.0: no address"),
        (500, {}, {}, 1, "HTTP 500 (500)"),
    ],
)
def test_a_problem_is_shown_and_has_its_exit_code(
    api: Api, status: int, body: dict[str, Any], headers: dict[str, str], code: int, text: str
) -> None:
    api.status, api.body, api.headers = status, body, headers
    done = api.run("trace", ID)
    assert done.exit_code == code
    assert text in done.stderr
    assert done.stdout == ""


def test_nobody_there_is_exit_code_three() -> None:
    done = CliRunner().invoke(app, ["trace", ID, "--url", "http://127.0.0.1:1", "--api-key", "key"])
    assert done.exit_code == 3
    assert "http://127.0.0.1:1 cannot be reached" in done.stderr


def test_a_wrong_id_is_refused_before_anybody_is_asked(api: Api) -> None:
    done = api.run("trace", "../../etc")
    assert done.exit_code == 2
    assert "is not a message id" in done.stderr
    assert api.asked == []


def test_quickstart_env_is_where_commands_find_the_api(api: Api, tmp_path: Path) -> None:
    api.body = MESSAGE
    write_private(
        tmp_path / "quickstart.env", render_environment({"STERNPOST_URL": api.url, "STERNPOST_API_KEY": "k'1"})
    )
    assert api.run("trace", ID, data=tmp_path).exit_code == 0
    assert api.asked[0][2] == "Bearer k'1"


def test_without_an_api_the_error_says_what_to_give(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["trace", ID, "--data", str(tmp_path)])
    assert done.exit_code == 2
    assert "--api-key" in done.stderr


def test_quickstart_env_is_private_and_a_shell_reads_the_same_values(tmp_path: Path) -> None:
    access = Access(api_key="key", smtp_user="quick start", smtp_password="p'a$s \"w`ord")
    values = quickstart_values(Ports(), access, DataDir(tmp_path), with_sink=True)
    path = tmp_path / "quickstart.env"
    write_private(path, render_environment(values))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert parse_environment(path.read_text()) == values
    shell = subprocess.run(
        ["sh", "-c", f'. "{path}"; printf %s "$SMTP_PASSWORD"'], capture_output=True, text=True, check=True
    )
    assert shell.stdout == access.smtp_password
    assert {"STERNPOST_URL", "STERNPOST_API_KEY", "SMTP_USER", "SMTP_PASSWORD", "SINK_URL"} <= values.keys()
    assert access.smtp_password not in first_message(path)


def test_secrets_are_made_once_and_are_private(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "data")
    data.create()
    first = data.broker_passwords(["queue", "auth"])
    assert data.broker_passwords(["auth", "queue"]) == first
    assert first["queue"] != first["auth"]
    keys = public_keys(data)
    assert public_keys(data) == keys
    for path in [*ensure_keys(data).values(), tmp_path / "data" / "secrets" / "broker-queue"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ensure_keys(data)["ingress"].write_text("not a key")
    with pytest.raises(DataError, match="hexadecimal"):
        public_keys(data)


def test_a_data_directory_is_for_one_platform_at_a_time(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "data")
    data.create()
    with data.lock(), pytest.raises(DataError, match=r"another platform \(process \d+\) runs on"):
        data.lock()
    data.lock().close()


def test_manifests_may_use_the_ports_as_placeholders() -> None:
    assert variables(Ports(sink_smtp_port=99))["STERNPOST_SINK_SMTP_PORT"] == "99"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('{"level": "info", "event": "fine"}', None),
        ('{"level": "error", "event": "broken", "reason": "why"}', "broken: why"),
        ('{"level": "critical", "event": "x", "exception": "Traceback\\n  File\\nOSError: full"}', "x: OSError: full"),
        ("{not json", None),
        ("[12] 2030/01/01 00:00:00.000 [ERR] JetStream disk full", "JetStream disk full"),
        ("[12] 2030/01/01 00:00:00.000 [INF] Server is ready", None),
        ("ModuleNotFoundError: No module named 'x'", "ModuleNotFoundError: No module named 'x'"),
        ('  File "x.py", line 3, in <module>', None),
    ],
)
def test_which_lines_of_a_program_reach_the_terminal(line: str, shown: str | None) -> None:
    assert important(line) == shown


def test_a_program_that_shouts_is_cut_short_and_its_file_has_everything(tmp_path: Path) -> None:
    said: list[str] = []
    log = ProgramLog("queue", tmp_path / "queue.log", said.append)
    text = b"".join(b"ValueError: %d\n" % number for number in range(100))
    for place in range(0, len(text), 7):
        log.write(text[place : place + 7])
    log.close()
    assert said[:1] == ["queue | ValueError: 0"]
    assert said[MAX_LINES_SHOWN:] == [f"queue | more in {tmp_path / 'queue.log'}"]
    assert (tmp_path / "queue.log").read_bytes() == text


def test_texts() -> None:
    assert show_time(0) == "-"
    assert show_time(1_700_000_000_123) == "2023-11-14 22:13:20.123Z"
    assert clean("a\x1b[0m\u202eb") == "a\ufffd[0m\ufffdb"
    assert describe_problem(422, {"title": "T", "detail": "T"}) == "T (422)"
    assert parse_version("nats-server: v2.15.1") == (2, 15, 1)
    assert parse_version("nothing") is None
