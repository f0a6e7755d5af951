"""A whole platform for a test: `sternpost up` on free ports, its addresses, keys and process ids.

async with running_platform(tmp_path) as platform:
    await platform.kill("queue")          # SIGKILL, returns when it is ready again
    messages = await platform.sink_messages(recipient="a@example.org")
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from sternpost_cli.ports import HOST, Ports, variable_of
from sternpost_cli.probes import broker_ok, http_ok
from sternpost_cli.quickstart import parse_environment
from tests.support.broker import free_port

QUICKSTART = Path(__file__).resolve().parent.parent.parent / "examples" / "quickstart"
READY_SECONDS = 60.0
"""How long the platform may take to start beside other tests; alone it takes less than ten."""
STOP_SECONDS = 60.0
"""How long an orderly stop may take before it is a failure."""
POLL_SECONDS = 0.05
"""Between two looks at something outside this process."""


def free_ports() -> Ports:
    """A free port for every door."""
    chosen: set[int] = set()
    names = list(asdict(Ports()))
    while len(chosen) < len(names):
        chosen.add(free_port())
    return Ports(**dict(zip(names, sorted(chosen), strict=True)))


async def until(condition: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Return when the condition holds; fails the test with `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(POLL_SECONDS)


@dataclass
class Platform:
    """A running platform. `values` is what quickstart.env says."""

    data: Path
    ports: Ports
    process: asyncio.subprocess.Process
    output: Path
    values: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The HTTP API."""
        return self.values["STERNPOST_URL"]

    @property
    def api_key(self) -> str:
        """An API key that may send as example.test."""
        return self.values["STERNPOST_API_KEY"]

    @property
    def headers(self) -> dict[str, str]:
        """What an API request needs."""
        return {"Authorization": f"Bearer {self.api_key}"}

    @property
    def sink_url(self) -> str:
        """The sink's HTTP side."""
        return self.values["SINK_URL"]

    @property
    def ca_file(self) -> Path:
        """What TLS clients of the doors trust; the name is `localhost`."""
        return Path(self.values["SMTP_CA_FILE"])

    def state(self) -> dict[str, dict[str, int]]:
        """`{program: {pid, restarts}}` as the supervisor wrote it."""
        found: dict[str, dict[str, int]] = json.loads((self.data / "state.json").read_text())
        return found

    def pid(self, program: str) -> int:
        """The process id, 0 while the program is down."""
        return self.state()[program]["pid"]

    def log(self, program: str) -> str:
        """What the program printed so far."""
        return (self.data / "logs" / f"{program}.log").read_text(errors="replace")

    async def kill(self, program: str, *, number: signal.Signals = signal.SIGKILL, seconds: float = 30.0) -> None:
        """Send the program a signal that ends it, and return when it was restarted and is ready again."""
        before = self.state()[program]["restarts"]
        os.kill(self.pid(program), number)
        await self.wait_restarted(program, before, seconds)

    async def wait_restarted(self, program: str, before: int, seconds: float = 30.0) -> None:
        """Return when the program has more restarts than `before` and is ready."""

        async def is_back() -> bool:
            entry = self.state()[program]
            return entry["restarts"] > before and entry["pid"] > 0 and await self.is_ready(program)

        await until(is_back, seconds, f"{program} restarted and ready\n{self.log(program)[-2000:]}")

    async def is_ready(self, program: str) -> bool:
        """Whether the program says that it is ready."""
        if program == "nats":
            return await broker_ok(HOST, self.ports.nats_port)
        if program == "sink":
            return await http_ok(HOST, self.ports.sink_http_port, "/stats")
        return await http_ok(HOST, getattr(self.ports, f"{program}_health_port"), "/healthz/ready")

    async def wait_ready(self, seconds: float = 30.0) -> None:
        """Return when every program says so."""

        async def all_ready() -> bool:
            return all([await self.is_ready(program) for program in self.state()])

        await until(all_ready, seconds, "every program ready")

    async def sink_messages(self, **filters: str) -> list[dict[str, Any]]:
        """What arrived: all pages of the sink's list. Filters: `recipient`, `message_id`."""
        found: list[dict[str, Any]] = []
        after = 0
        async with httpx.AsyncClient(base_url=self.sink_url, timeout=30) as client:
            while True:
                params = {**filters, "after": str(after), "limit": "10000"}
                page = (await client.get("/messages", params=params)).raise_for_status().json()
                found += page["messages"]
                if page["next_after"] is None:
                    return found
                after = page["next_after"]

    async def wait_sink(self, count: int, seconds: float = 30.0, **filters: str) -> list[dict[str, Any]]:
        """Return the messages when the sink has at least so many that fit."""
        found: list[dict[str, Any]] = []

        async def enough() -> bool:
            nonlocal found
            found = await self.sink_messages(**filters)
            return len(found) >= count

        await until(enough, seconds, f"{count} messages in the sink ({filters or 'any'}); there are {len(found)}")
        return found

    async def sink_raw(self, number: int) -> bytes:
        """The exact octets of one message."""
        async with httpx.AsyncClient(base_url=self.sink_url, timeout=30) as client:
            return (await client.get(f"/messages/{number}/raw")).raise_for_status().content

    async def fault(self, **order: Any) -> None:
        """Order a fault of the sink: `stage`, `recipient`, `code`, `text`, `times`, `delay_s`, `action`, `keep`."""
        async with httpx.AsyncClient(base_url=self.sink_url, timeout=30) as client:
            (await client.post("/faults", json=order)).raise_for_status()

    async def message(self, identifier: str) -> dict[str, Any] | None:
        """`GET /v1/messages/{id}`, None while nobody knows it."""
        async with httpx.AsyncClient(base_url=self.url, headers=self.headers, timeout=30) as client:
            answer = await client.get(f"/v1/messages/{identifier}")
        if answer.status_code in (404, 503):
            return None
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    async def wait_state(self, identifier: str, state: str, seconds: float = 30.0) -> dict[str, Any]:
        """Return the message when its summary is the state."""
        found: dict[str, Any] | None = None

        async def is_there() -> bool:
            nonlocal found
            found = await self.message(identifier)
            return found is not None and found["state"] == state

        deadline = time.monotonic() + seconds
        while not await is_there():
            if time.monotonic() > deadline:
                raise AssertionError(f"{identifier} is not {state} within {seconds:g} s: {json.dumps(found, indent=1)}")
            await asyncio.sleep(POLL_SECONDS)
        if found is None:
            raise AssertionError(f"{identifier} vanished")
        return found

    async def stop(self) -> int:
        """SIGTERM to the supervisor, and its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def running_platform(
    directory: Path,
    *,
    manifests: Path = QUICKSTART,
    settings: Mapping[str, str] | None = None,
    ports: Ports | None = None,
    with_sink: bool = True,
) -> AsyncIterator[Platform]:
    """The platform on free ports and data below `directory`; a second run on the same directory finds its mail again.

    `settings` are environment variables such as STERNPOST_QUEUE_SITE_SESSIONS.
    """
    chosen = ports or free_ports()
    data = directory / "data"
    output = directory / "up.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STERNPOST_")}
    environment |= {variable_of(name): str(number) for name, number in asdict(chosen).items()}
    environment |= dict(settings or {})
    command = [sys.executable, "-m", "sternpost_cli", "up", "--manifests", str(manifests), "--data", str(data)]
    if not with_sink:
        command.append("--no-sink")
    with output.open("ab") as file:
        began = file.tell()
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=file, stderr=file, env=environment
        )
    platform = Platform(data, chosen, process, output)
    try:

        async def is_up() -> bool:
            text = output.read_bytes()[began:].decode(errors="replace")
            if process.returncode is not None:
                raise AssertionError(f"sternpost up ended with {process.returncode}:\n{text}")
            return any(line.startswith("ready") for line in text.splitlines())

        await until(is_up, READY_SECONDS, f"sternpost up is ready (see {output})")
        platform.values = parse_environment((data / "quickstart.env").read_text())
        yield platform
    finally:
        try:
            await platform.stop()
        except TimeoutError:
            process.kill()  # its programs die with it
            await process.wait()
            raise
