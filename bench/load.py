"""The load and its judge: Postfix's own smtp-source and smtp-sink, the same for every system.

The sink is the only judge of delivery. `smtp-sink -c` writes a running count after each mail it has taken (after it has
answered 250 to the final dot); a thread reads that count from a pipe every 5 ms, which costs the sink one small write
per mail, for both systems alike. No system's log or database is asked.
"""

import os
import pwd
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

from bench.cells import Cell
from bench.measure import own_cpu_s, read_stat

SENDER = "bench@example.test"
RECIPIENT = "someone@sink.test"
READ_EVERY_S = 0.005
"""How often the sink's count is read: the error of a time measured at the sink."""
_COUNT = re.compile(rb"mesg=(\d+) *[\r\n]")


class LoadError(Exception):
    """The generator or the sink failed, or mail did not arrive: the run says nothing about speed."""


def find_tool(name: str) -> str:
    """The path of one of Postfix's test tools, which live in sbin. Raises LoadError where it is missing."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise LoadError(f"{name} is missing; it comes with Postfix: apt-get install postfix")
    return path


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, *, timeout_s: float = 10.0) -> None:
    """Wait until something on loopback answers with an SMTP greeting. Raises LoadError when nothing does in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                if connection.recv(4) == b"220 ":
                    connection.sendall(b"QUIT\r\n")
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise LoadError(f"nothing greets on 127.0.0.1:{port} after {timeout_s:g} s")


def parse_count(text: bytes) -> int | None:
    """The last complete message count in a piece of the sink's output, None where there is none."""
    found = _COUNT.findall(text)
    return int(found[-1]) if found else None


class Sink:
    """One smtp-sink that takes everything and keeps nothing. A context manager."""

    def __init__(self) -> None:
        self.port = free_port()
        self._count = 0
        self._counted_at = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Sink":
        command = [find_tool("smtp-sink"), "-c", "-m", "1000"]  # -m: connections at once, above any cell's
        if os.geteuid() == 0:  # it refuses to run as root
            command += ["-u", "nobody"]
            pwd.getpwnam("nobody")
        command += [f"127.0.0.1:{self.port}", "1000"]  # the listen backlog
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._thread = threading.Thread(target=self._read, name="sink count", daemon=True)
        self._thread.start()
        wait_for_port(self.port)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        if self._thread is not None:
            self._thread.join()

    @property
    def count(self) -> int:
        """Mails taken since the sink started."""
        return self._count

    @property
    def counted_at(self) -> float:
        """When (time.monotonic) the count last changed, right to 5 ms."""
        return self._counted_at

    def cpu_s(self) -> float:
        """CPU seconds the sink has used."""
        stat = read_stat(self._process.pid) if self._process else None
        return own_cpu_s(stat) if stat else 0.0

    def wait_for(self, total: int, *, silence_s: float = 30.0) -> float:
        """Wait until `total` mails have arrived; gives the moment (time.monotonic).

        Raises LoadError when none arrives for `silence_s`.
        """
        while self._count < total:
            if time.monotonic() - max(self._counted_at, self._asked_from) > silence_s:
                raise LoadError(f"{total - self._count} mails missing at the sink after {silence_s:g} s of silence")
            time.sleep(READ_EVERY_S)
        return self._counted_at

    def expect_from_now(self) -> None:
        """Start the clock of silence."""
        self._asked_from = time.monotonic()

    _asked_from = 0.0

    def _read(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        pipe = self._process.stdout.fileno()
        rest = b""
        while chunk := os.read(pipe, 65536):
            rest = (rest + chunk)[-65600:]
            count = parse_count(rest)
            if count is not None and count != self._count:
                self._count, self._counted_at = count, time.monotonic()
            rest = rest[-64:]  # an incomplete last record
            time.sleep(READ_EVERY_S)


@dataclass(frozen=True, slots=True)
class Offered:
    """What the generator did."""

    started: float
    """time.monotonic() just before it started, so its own start (2 ms) and connecting count as the system's time."""
    ended: float
    """When it had the last 250 and was gone."""
    cpu_s: float


def offer(port: int, cell: Cell, mails: int) -> Offered:
    """Offer this many mails of a cell's kind on a port and wait until each was answered 250.

    Raises LoadError when the generator fails: smtp-source stops at the first reply that is not the wanted one, so a
    result never contains refused mail.
    """
    command = [find_tool("smtp-source"), "-s", str(min(cell.sessions, mails)), "-m", str(mails)]
    command += ["-l", str(cell.size_bytes), "-f", SENDER, "-t", RECIPIENT]
    if cell.kept:
        command.append("-d")  # do not disconnect after each mail
    command.append(f"127.0.0.1:{port}")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as errors:
        started = time.monotonic()
        code = subprocess.run(command, stdout=errors, stderr=errors, check=False).returncode
        ended = time.monotonic()
        if code != 0:
            errors.seek(0)
            raise LoadError(f"smtp-source ended with {code}: {errors.read()[-400:].decode(errors='replace').strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Offered(started, ended, used)
