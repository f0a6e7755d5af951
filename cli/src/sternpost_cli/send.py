"""`sternpost send`: hand one message to the HTTP API."""

import base64
import sys
from pathlib import Path
from typing import Any

from sternpost_cli.api import Target, call
from sternpost_cli.output import EXIT_USAGE, Output, fail, show_json, show_table


def send_message(
    target: Target,
    output: Output,
    *,
    sender: str,
    to: list[str],
    subject: str,
    text: str,
    tags: list[str],
    send_at: str,
    idempotency_key: str,
) -> None:
    """Compose from parts. A text of `-` is read from stdin."""
    body: dict[str, Any] = {
        "from": sender,
        "to": to,
        "subject": subject,
        "text": sys.stdin.read() if text == "-" else text,
    }
    if tags:
        body["tags"] = tags
    if send_at:
        body["send_at"] = send_at
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    _show(call(target, "POST", "/v1/messages", json=body, headers=headers), output)


def send_raw(target: Target, output: Output, *, file: Path, sender: str, to: list[str], idempotency_key: str) -> None:
    """Hand over a finished RFC 5322 message; `-` is stdin. Line ends become CRLF where the file has bare LF."""
    try:
        octets = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        fail(f"{file} cannot be read: {error.strerror}", EXIT_USAGE)
    if b"\r\n" not in octets:
        octets = octets.replace(b"\n", b"\r\n")
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    body = {"from": sender, "to": to, "content": base64.b64encode(octets).decode("ascii")}
    _show(call(target, "POST", "/v1/messages/raw", json=body, headers=headers), output)


def _show(answer: Any, output: Output) -> None:
    if output is Output.JSON:
        show_json(answer)
        return
    show_table(("id", "status"), [(str(answer.get("id", "")), str(answer.get("status", "")))])
    print(f"follow it: sternpost trace {answer.get('id', '')}")
