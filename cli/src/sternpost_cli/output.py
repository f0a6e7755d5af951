"""How commands show results: a table for people, JSON for programs; times, and errors with their exit codes.

Results go to stdout, everything else to stderr, so that `--output json` can be piped.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NoReturn

import typer

EXIT_FAILURE = 1
"""The platform refused or failed."""
EXIT_USAGE = 2
"""The command cannot be obeyed as it was given; the shell's convention."""
EXIT_UNREACHABLE = 3
"""Nobody answered: trying again later may help."""
EXIT_NOT_FOUND = 4
"""What was asked for does not exist, or belongs to another tenant."""


PIPED_COLUMNS = 10_000
"""Where the output is no terminal a row stays on one line, for grep and awk."""


class Output(StrEnum):
    """The forms of a result."""

    TABLE = "table"
    JSON = "json"


def show_json(value: object) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> None:
    """A table on stdout. Cells are plain text: nothing in them is taken for markup or for terminal control."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = PIPED_COLUMNS
    console.print(table)


def clean(text: str) -> str:
    """Without control characters: what a remote server or a sender wrote must not drive the terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def show_time(milliseconds: int) -> str:
    """A moment in UTC to the millisecond, `-` for none."""
    if not milliseconds:
        return "-"
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{milliseconds % 1000:03d}Z"


def fail(text: str, code: int = EXIT_FAILURE) -> NoReturn:
    """Say why on stderr and end with the exit code."""
    typer.echo(f"sternpost: {text}", err=True)
    raise typer.Exit(code)


def describe_problem(status: int, body: Mapping[str, Any]) -> str:
    """An RFC 9457 problem in lines: title, detail, then one line for each field that is wrong."""
    title = str(body.get("title") or f"HTTP {status}")
    detail = str(body.get("detail") or "")
    lines = [f"{title} ({status})" + (f": {detail}" if detail and detail != title else "")]
    for error in body.get("errors") or ():
        if isinstance(error, Mapping):
            place = error.get("field") or error.get("pointer") or error.get("loc") or ""
            text = error.get("detail") or error.get("message") or error.get("msg") or ""
            lines.append(f"  {place}: {text}" if place else f"  {text}")
    return clean("\n".join(lines)) if len(lines) == 1 else "\n".join(clean(line) for line in lines)
