"""The ingress process, wired by hand: bus, configuration, spool, identity, then the doors; and their orderly end."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn

from sternpost_ingress.http import HttpDeps, create_app
from sternpost_ingress.identify import Identify
from sternpost_ingress.settings import Settings
from sternpost_ingress.smtp_server import SmtpServer
from sternpost_ingress.smtp_tls import Certificates
from sternpost_ingress.spool import Spool
from sternpost_runtime.bus import Bus
from sternpost_runtime.config import ConfigWatch
from sternpost_runtime.health import Health
from sternpost_runtime.lifecycle import Stop, settle_gc, spawn
from sternpost_runtime.sealed import KEY_OCTETS
from sternpost_runtime.settings import EXIT_USAGE
from sternpost_runtime.subjects import Service

log = structlog.get_logger()


async def main(settings: Settings, stop: Stop) -> None:
    """Serve until `stop`, then drain.

    The doors open before the configuration is complete and when the broker is away: a client then hears 451 or 503,
    which tells it more than a refused connection.
    """
    health = Health()
    bus = await Bus.connect(settings, Service.INGRESS)
    watch = ConfigWatch(bus, settings.release_namespace)
    spool = Spool(bus)
    admission = spawn(spool.watch_admission(), "admission")
    identify = Identify(
        bus,
        timeout=settings.auth_timeout_seconds,
        cache_seconds=settings.auth_cache_seconds,
        cache_entries=settings.auth_cache_entries,
    )
    certificates = Certificates(read_key(settings.sealed_key_file))
    watch.on_change(certificates.update)
    watch.on_change(lambda _: identify.forget())
    health.add("configuration", lambda: watch.config.is_complete)
    health.add("doors", lambda: not stop.is_set)
    await health.serve(settings.health_host, settings.health_port)
    await watch.start()

    smtp = SmtpServer(settings, spool=spool, identify=identify, config=lambda: watch.config, certificates=certificates)
    http: HttpServer | None = None
    if "smtp" in settings.doors:
        await smtp.start()
    if "http" in settings.doors:
        deps = HttpDeps(
            spool=spool,
            identify=identify,
            config=lambda: watch.config,
            bus=bus,
            settings=settings.http,
            hostname=settings.hostname,
        )
        http = HttpServer(create_app(deps), settings)
        await http.start()
    settle_gc()

    await stop.wait()
    await asyncio.gather(smtp.drain(settings.drain_seconds), http.drain() if http else asyncio.sleep(0))
    admission.cancel()
    await spool.close()
    await bus.close()
    await health.close()


class HttpServer:
    """uvicorn on our loop: it serves, but signals and the end of the process are ours."""

    def __init__(self, application: object, settings: Settings) -> None:
        self._settings = settings
        self._server = _Uvicorn(
            uvicorn.Config(
                application,  # type: ignore[arg-type]  # an ASGI application, whatever its class
                loop="none",
                http="httptools",
                ws="none",
                log_config=None,
                log_level=settings.uvicorn_log_level,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # whoever sends X-Forwarded-For must not choose the address that limits count
                timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
            )
        )
        self._task: asyncio.Task[None] | None = None
        self.port = 0
        """Where it listens."""

    async def start(self) -> None:
        """Open the door. Raises OSError where the port is taken."""
        host = self._settings.http_host
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, self._settings.http_port))
        listener.setblocking(False)
        self.port = int(listener.getsockname()[1])
        self._task = spawn(self._server.serve([listener]), "http")
        log.info("http_door_open", host=host, port=self.port)

    async def drain(self) -> None:
        """Take no more requests and finish those that are under way."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process (`lifecycle.run`)."""
        yield


def read_key(path: str) -> bytes:
    """The private key that opens sealed TLS keys; empty where no file is named. Ends the process where it is no key."""
    if not path:
        return b""
    try:
        data = Path(path).read_bytes()
        key = data if len(data) == KEY_OCTETS else bytes.fromhex(data.decode("ascii").strip())
    except (OSError, ValueError):
        key = b""
    if len(key) != KEY_OCTETS:
        log.critical("sealed_key_unusable", path=path, wanted="32 octets, or 64 hexadecimal digits")
        raise SystemExit(EXIT_USAGE)
    return key
