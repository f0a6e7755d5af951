"""What a person needs for a first message: quickstart.env for the shell, the page that `up` prints. Pure text."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from sternpost_cli.configuration import Access
from sternpost_cli.datadir import DataDir
from sternpost_cli.ports import HOST, Ports


def quickstart_values(ports: Ports, access: Access, data: DataDir, *, with_sink: bool) -> dict[str, str]:
    """Names and values of quickstart.env."""
    values = {
        "STERNPOST_URL": f"http://{HOST}:{ports.http_port}",
        "STERNPOST_API_KEY": access.api_key,
        "SMTP_HOST": "localhost",
        "SMTP_MX_PORT": str(ports.mx_port),
        "SMTP_SUBMISSION_PORT": str(ports.submission_port),
        "SMTP_SUBMISSIONS_PORT": str(ports.submissions_port),
        "SMTP_USER": access.smtp_user,
        "SMTP_PASSWORD": access.smtp_password,
        "SMTP_CA_FILE": str(data.ca_file),
    }
    if with_sink:
        values["SINK_URL"] = f"http://{HOST}:{ports.sink_http_port}"
        values["SINK_SMTP_PORT"] = str(ports.sink_smtp_port)
    return values


def render_environment(values: Mapping[str, str]) -> str:
    """A file for the shell's `.` command, each value quoted and exported."""
    lines = ["# written by `sternpost up`, for its owner alone"]
    return "\n".join([*lines, *(f"export {name}={shlex.quote(value)}" for name, value in values.items()), ""])


def parse_environment(text: str) -> dict[str, str]:
    """What `render_environment` wrote. Other lines are ignored."""
    values = {}
    for line in text.splitlines():
        name, separator, quoted = line.removeprefix("export ").partition("=")
        if separator and not line.startswith("#"):
            values[name.strip()] = "".join(shlex.split(quoted))
    return values


def places(ports: Ports, data: DataDir, *, with_sink: bool) -> list[tuple[str, str]]:
    """What is where, for the table."""
    rows = [
        ("SMTP, MX", f"{HOST}:{ports.mx_port}"),
        ("SMTP, submission (STARTTLS)", f"{HOST}:{ports.submission_port}"),
        ("SMTP, submissions (TLS)", f"{HOST}:{ports.submissions_port}"),
        ("HTTP API", f"http://{HOST}:{ports.http_port}   (documentation: /docs)"),
    ]
    if with_sink:
        rows.append(("sink, what arrived", f"http://{HOST}:{ports.sink_http_port}/messages"))
        rows.append(("sink, SMTP", f"{HOST}:{ports.sink_smtp_port}"))
    rows.append(("logs", str(data.logs)))
    rows.append(("credentials", str(data.quickstart)))
    return rows


def first_message(quickstart: Path) -> str:
    """Lines to try, for a shell."""
    return f"""\
. {shlex.quote(str(quickstart))}

curl -sS "$STERNPOST_URL/v1/messages" -H "Authorization: Bearer $STERNPOST_API_KEY" \\
  -H 'Content-Type: application/json' \\
  -d '{{"from": "hello@example.test", "to": ["you@example.org"], "subject": "First", "text": "It works."}}'

swaks --server localhost:$SMTP_SUBMISSION_PORT --tls --auth PLAIN --auth-user "$SMTP_USER" \\
  --auth-password "$SMTP_PASSWORD" --from hello@example.test --to you@example.org"""
