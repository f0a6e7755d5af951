"""Readable SMTP dialogues: files of lines that are said, replies that must come, and what must be stored.

# comment
door submission             which door to call (default mx)
set max_recipients=2        a setting of the door, before the first line that talks
from 127.0.0.2              our own address
C: EHLO client.test         say a line (CR LF is added); consecutive lines go out in one packet
C! half a line              say exactly this: \\r \\n \\0 \\t \\\\ and \\xNN are octets
C*3 RCPT TO:<{n}@x.test>    say a line three times, {n} counting from 1
S: 250 2.1.0                the next reply begins with this (a reply of several lines is one reply)
S+ PIPELINING               some line of that reply is this, after its code
S- AUTH                     no line of that reply begins with this
starttls                    start TLS
auth alice wonderland       AUTH PLAIN, which must succeed
closed                      the server hangs up
stored 1                    so many mails were stored in all
content Subject: hello      the last mail stored contains this
envelope alice@example.test bob@far.test     sender (<> for none) and recipients of the last mail stored
"""

import asyncio
import base64
import re
import ssl
from pathlib import Path
from typing import Any

from tests.support.smtp_door import AUTHORITY, HOSTNAME, RunningDoors, running_doors

SECONDS = 10.0
"""How long a reply may take."""
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[rnt0\\])")
_PLAIN = {"r": "\r", "n": "\n", "t": "\t", "0": "\0", "\\": "\\"}


class DialogueError(AssertionError):
    """The server did not say what the dialogue expects."""


def _octets(text: str) -> bytes:
    parts = _ESCAPE.split(text)
    found = bytearray()
    for at, part in enumerate(parts):
        if at % 2 == 0:
            found += part.encode()
        else:
            found += bytes([int(part[1:], 16)]) if part[0] == "x" else _PLAIN[part].encode()
    return bytes(found)


class Dialogue:
    """One dialogue file, ready to run."""

    def __init__(self, path: Path) -> None:
        self.lines = list(enumerate(path.read_text().splitlines(), 1))
        self.path = path
        self.door = "mx"
        self.address = "127.0.0.1"
        self.settings: dict[str, Any] = {}
        self._pending = b""
        self._reply: list[str] = []

    async def run(self) -> None:
        """Run it against doors of its own; raises DialogueError with the line that failed."""
        talk = []
        for number, line in self.lines:
            word, _, rest = line.strip().partition(" ")
            if not word or word.startswith("#"):
                continue
            if word == "door":
                self.door = rest
            elif word == "from":
                self.address = rest
            elif word == "set":
                name, _, value = rest.partition("=")
                self.settings[name] = value
            else:
                talk.append((number, line.strip(), word, rest))
        async with running_doors(**self.settings) as doors:
            context = _client_context() if self.door == "submissions" else None
            self._reader, self._writer = await asyncio.open_connection(
                "127.0.0.1",
                doors.port(self.door),
                local_addr=(self.address, 0),
                ssl=context,
                server_hostname=HOSTNAME if context else None,
                limit=1 << 20,
            )
            try:
                for number, line, word, rest in talk:
                    try:
                        async with asyncio.timeout(SECONDS):
                            await self._step(word, rest, doors)
                    except (AssertionError, TimeoutError, OSError, EOFError) as error:
                        raise DialogueError(f"{self.path.name}:{number}: {line}\n  {error!r}") from error
            finally:
                self._writer.close()

    async def _step(self, word: str, rest: str, doors: RunningDoors) -> None:
        if word == "C:":
            self._pending += _octets(rest) + b"\r\n"
            return
        if word == "C!":
            self._pending += _octets(rest)
            return
        if word.startswith("C*"):
            for n in range(1, int(word[2:]) + 1):
                self._pending += _octets(rest.replace("{n}", str(n))) + b"\r\n"
            return
        await self._flush()
        match word:
            case "S:":
                self._reply = await self._read_reply()
                assert "\n".join(self._reply).startswith(rest), f"got {self._reply}"
            case "S+":
                assert rest in [line[4:] for line in self._reply], f"got {self._reply}"
            case "S-":
                assert not any(line[4:].startswith(rest) for line in self._reply), f"got {self._reply}"
            case "starttls":
                await self._writer.start_tls(_client_context(), server_hostname=HOSTNAME)
            case "auth":
                name, secret = rest.split(" ")
                token = base64.b64encode(f"\0{name}\0{secret}".encode()).decode()
                self._writer.write(f"AUTH PLAIN {token}\r\n".encode())
                reply = await self._read_reply()
                assert reply[0].startswith("235 2.7.0"), f"got {reply}"
            case "closed":
                left = await self._reader.read()
                assert left == b"", f"got {left!r}"
            case "stored":
                assert len(doors.spool.mails) == int(rest), f"stored {len(doors.spool.mails)}"
            case "content":
                content = doors.spool.mails[-1].content
                assert _octets(rest) in content, f"got {content!r}"
            case "envelope":
                envelope = doors.spool.mails[-1].envelope
                said = " ".join([envelope.sender or "<>", *(r.address for r in envelope.recipients)])
                assert said == rest, f"got {said}"
            case _:
                raise AssertionError(f"unknown word {word}")

    async def _flush(self) -> None:
        if self._pending:
            self._writer.write(self._pending)
            self._pending = b""
            await self._writer.drain()

    async def _read_reply(self) -> list[str]:
        lines = []
        while True:
            line = await self._reader.readuntil(b"\r\n")
            assert len(line) >= 5, f"got {line!r}"
            assert line[:3].isdigit(), f"got {line!r}"
            lines.append(line[:-2].decode())
            if line[3:4] == b" ":
                return lines


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context
