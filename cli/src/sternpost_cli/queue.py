"""`sternpost queue ls|show|cancel`: what waits, one message, and taking one back."""

from typing import Any

from sternpost_cli.api import Target, call
from sternpost_cli.output import Output, clean, show_json, show_table, show_time


def list_messages(target: Target, output: Output, *, filters: dict[str, str], limit: int) -> None:
    """Messages, newest first."""
    params = [*((name, value) for name, value in filters.items() if value), ("limit", str(limit))]
    answer = call(target, "GET", "/v1/messages", params=params)
    if output is Output.JSON:
        show_json(answer)
        return
    rows = [
        (
            str(message["id"]),
            str(message["state"]),
            show_time(int(message.get("accepted_ms", 0))),
            str(message.get("sender", "")) or "<>",
            ", ".join(str(one["address"]) for one in message.get("recipients", ())),
            str(message.get("subject", "")),
        )
        for message in answer["messages"]
    ]
    show_table(("id", "state", "accepted", "from", "to", "subject"), rows)
    if answer.get("next_before"):
        print(f"more: --before {answer['next_before']}")


def show_message(target: Target, output: Output, identifier: str) -> None:
    """One message and each of its recipients."""
    message: dict[str, Any] = call(target, "GET", f"/v1/messages/{identifier}")
    if output is Output.JSON:
        show_json(message)
        return
    facts = ("id", "state", "sender", "header_from", "subject", "message_id", "size", "door", "client", "identity")
    for name in facts:
        if message.get(name) not in (None, ""):
            print(f"{name:<12} {clean(str(message[name]))}")
    print(f"{'accepted':<12} {show_time(int(message.get('accepted_ms', 0)))}\n")
    rows = [
        (
            str(one["address"]),
            str(one["state"]),
            str(one.get("attempts", 0)),
            show_time(int(one.get("next_attempt_ms", 0))),
            str(one.get("last_reply", "")),
        )
        for one in message.get("recipients", ())
    ]
    show_table(("recipient", "state", "attempts", "next attempt", "last reply"), rows)


def cancel_message(target: Target, output: Output, identifier: str) -> None:
    """Ask to take a message back; what was sent already stays sent."""
    answer = call(target, "POST", f"/v1/messages/{identifier}/cancel")
    if output is Output.JSON:
        show_json(answer)
    else:
        print(f"{identifier}: {clean(str(answer['status']))}; `sternpost trace {identifier}` tells what came of it")
