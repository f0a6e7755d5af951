"""Sternpost as `sternpost up` starts it: its own processes, its own broker, its own data directory, loopback only.

Nothing is tuned for the benchmark: the manifests in `bench/manifests/` say what Postfix's main.cf says (clients on
loopback may relay, everything goes to the sink), all other settings are the defaults.
"""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.load import LoadError, wait_for_port
from bench.system import Running, StartError

MANIFESTS = Path(__file__).parent / "manifests"
READY_S = 60.0
"""How long the platform may take to start on a busy machine."""
STOP_S = 60.0
"""How long it may take to stop before it is killed; longer than the supervisor's own patience with its programs."""
PORTS = (
    "MX",
    "SUBMISSION",
    "SUBMISSIONS",
    "HTTP",
    "SINK_HTTP",
    "NATS",
    "INGRESS_HEALTH",
    "QUEUE_HEALTH",
    "DELIVERY_HEALTH",
    "AUTH_HEALTH",
    "ACTIVITY_HEALTH",
)


class Sternpost:
    """The system that this repository is."""

    name = "sternpost"

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})
        """Settings of services to try, such as STERNPOST_QUEUE_…; none in a quoted result."""

    def prepare(self) -> None:
        """Check that `sternpost up` is there."""
        if importlib.util.find_spec("sternpost_cli") is None or importlib.util.find_spec("sternpost_cli.up") is None:
            raise StartError(
                "`sternpost up` is not installed in this environment: uv sync, then uv run python -m bench"
            )

    def version(self) -> str:
        """The commit that is measured, with `+` where files differ from it."""
        root = Path(__file__).parent.parent
        try:
            commit = _git(root, "rev-parse", "--short", "HEAD")
            changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
        except (OSError, subprocess.CalledProcessError):
            return "Sternpost"
        return f"Sternpost {commit}{'+' if changed else ''}"

    @contextlib.contextmanager
    def running(self, work: Path, sink_port: int) -> Iterator[Running]:
        """The whole platform on an empty data directory. Raises StartError."""
        data = work / "data"
        ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True)) | {"SINK_SMTP": sink_port}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STERNPOST_")}
        environment |= {f"STERNPOST_{name}_PORT": str(port) for name, port in ports.items()} | self._environment
        command = [sys.executable, "-m", "sternpost_cli", "up", "--no-sink"]
        command += ["--manifests", str(MANIFESTS), "--data", str(data)]
        with (work / "up.log").open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        try:
            _wait_until_ready(process, work / "up.log")
            try:
                wait_for_port(ports["MX"])
            except LoadError as error:
                raise StartError(f"sternpost up: {error}; {_tail(work / 'up.log')}") from error
            parts = {name: entry["pid"] for name, entry in _state(data).items()}
            yield Running(ports["MX"], process.pid, _durable(data), parts, lambda: _trouble(data))
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for the line with `ready` that `sternpost up` prints."""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if any("ready" in line.lower().split() for line in _words(log)):
            return
        if process.poll() is not None:
            raise StartError(f"sternpost up ended with {process.returncode}: {_tail(log)}")
        time.sleep(0.05)
    raise StartError(f"sternpost up was not ready after {READY_S:g} s: {_tail(log)}")


def _words(log: Path) -> list[str]:
    text = log.read_text(errors="replace")
    return ["".join(c if c.isalnum() else " " for c in line) for line in text.splitlines()]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL to our own child where that does not help; its programs die with it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _state(data: Path) -> dict[str, dict[str, int]]:
    """Name to pid and restarts of each program."""
    found: dict[str, dict[str, int]] = json.loads((data / "state.json").read_text())
    return found


def _trouble(data: Path) -> str:
    """What makes a run worthless: a program that died while it was measured."""
    died = [name for name, entry in _state(data).items() if entry["restarts"]]
    return f"restarted: {', '.join(died)}" if died else ""


def _durable(data: Path) -> str:
    """Check that the broker writes to the disk before it acknowledges. Raises StartError where it does not."""
    rendered = (data / "nats.conf").read_text()
    if "sync_interval: always" not in rendered:
        raise StartError(
            "nats.conf has no `sync_interval: always`: an acknowledged mail could be lost; nothing to compare"
        )
    return "nats.conf of the running broker has `sync_interval: always`: the PubAck that 250 waits for follows an fsync"


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(errors="replace")[-800:].strip()
    return ""


def _free_ports(count: int) -> list[int]:
    """That many different free loopback ports: all held at once before any is let go."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
