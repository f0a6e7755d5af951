"""`sternpost trace ID`: the timeline of one message."""

from typing import Any

from sternpost_cli.api import Target, call
from sternpost_cli.output import Output, clean, show_json, show_table, show_time


def trace_message(target: Target, output: Output, identifier: str) -> None:
    """Everything that is known of a message, in the order in which it happened."""
    message: dict[str, Any] = call(target, "GET", f"/v1/messages/{identifier}")
    if output is Output.JSON:
        show_json(message)
        return
    print(f"{message['id']}  {message['state']}  {clean(str(message.get('sender') or '<>'))}")
    print(f"{clean(str(message.get('subject', '')))}\n")
    show_table(("time", "what", "recipient", "state", "detail"), timeline_rows(message))


def timeline_rows(message: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """The timeline as cells."""
    rows = []
    for entry in message.get("timeline", ()):
        number = int(entry.get("attempt", 0))
        kind = str(entry.get("kind", ""))
        rows.append(
            (
                show_time(int(entry.get("at_ms", 0))),
                f"{kind} {number}" if number else kind,
                str(entry.get("recipient", "")),
                str(entry.get("state", "")),
                _detail(entry),
            )
        )
    return rows


def _detail(entry: dict[str, Any]) -> str:
    parts = [str(entry.get("reply", ""))]
    if entry.get("remote"):
        parts.append(f"from {entry['remote']}")
    if entry.get("tls"):
        parts.append(str(entry["tls"]))
    if entry.get("duration_ms"):
        parts.append(f"{entry['duration_ms']} ms")
    if entry.get("next_attempt_ms"):
        parts.append(f"next at {show_time(int(entry['next_attempt_ms']))}")
    return ", ".join(part for part in parts if part)
