"""What a program prints: all of it to its own bounded file, the few lines that matter to the terminal with its name."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MAX_LOG_OCTETS = 32 * 1024 * 1024
"""A log file is renamed to `.1` (replacing the one before) beyond this: two files per program bound the disk."""
MAX_LINE_OCTETS = 16 * 1024
"""The part of an unfinished line that is kept to judge it; the file still gets every octet."""
MAX_LINES_SHOWN = 8
"""Lines of one program that reach the terminal in one window."""
WINDOW_SECONDS = 10.0
"""The window of MAX_LINES_SHOWN."""
CHUNK_OCTETS = 64 * 1024
"""Read at once: the size of a Linux pipe."""

_BROKER_TROUBLE = re.compile(r"\[(ERR|FTL)\] (.*)")
_EXCEPTION = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)(?::.*)?)$")
_LEVELS_SHOWN = frozenset({"error", "critical"})


def important(line: str) -> str | None:
    """What of a line belongs on the terminal, None when the log file is enough.

    Services write JSON with `level` and `event`, the broker `[ERR]` and `[FTL]`; of a traceback its last line counts.
    """
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            return None
        if not isinstance(entry, dict) or str(entry.get("level", "")).lower() not in _LEVELS_SHOWN:
            return None
        *_, last = str(entry.get("exception") or "").rstrip().rpartition("\n")
        detail = entry.get("error") or entry.get("reason") or last
        return f"{entry.get('event', 'error')}{f': {detail}' if detail else ''}"
    if found := _BROKER_TROUBLE.search(line):
        return found[2]
    if found := _EXCEPTION.match(line):
        return found[1]
    return None


class ProgramLog:
    """The log file of one program. Not for two processes at once."""

    def __init__(self, name: str, path: Path, say: Callable[[str], None]) -> None:
        self.path = path
        self._name = name
        self._say = say
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._octets = self._file.tell()
        self._rest = b""
        self._window_started = 0.0
        self._shown = 0

    async def copy_from(self, stream: asyncio.StreamReader) -> None:
        """Copy until the stream ends."""
        while chunk := await stream.read(CHUNK_OCTETS):
            self.write(chunk)

    def write(self, chunk: bytes) -> None:
        """Append octets and show the important lines that they finish."""
        if self._octets > MAX_LOG_OCTETS:
            self._file.close()
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._file = self.path.open("ab", buffering=0)
            self._octets = 0
        self._file.write(chunk)
        self._octets += len(chunk)
        *lines, rest = (self._rest + chunk).split(b"\n")
        self._rest = rest[:MAX_LINE_OCTETS]
        for line in lines:
            text = important(line.decode("utf-8", "replace").rstrip())
            if text is not None:
                self._show(text)

    def tail(self, lines: int) -> str:
        """The last lines, for an error message."""
        with self.path.open("rb") as file:
            file.seek(max(0, self._octets - MAX_LINE_OCTETS))
            found = file.read(MAX_LINE_OCTETS).decode("utf-8", "replace").splitlines()
        return "\n".join(found[-lines:]) or "(it printed nothing)"

    def close(self) -> None:
        """Close the file; nothing may be written after."""
        self._file.close()

    def _show(self, text: str) -> None:
        now = time.monotonic()
        if now - self._window_started > WINDOW_SECONDS:
            self._window_started, self._shown = now, 0
        self._shown += 1
        if self._shown <= MAX_LINES_SHOWN:
            self._say(f"{self._name} | {text}")
        elif self._shown == MAX_LINES_SHOWN + 1:
            self._say(f"{self._name} | more in {self.path}")
