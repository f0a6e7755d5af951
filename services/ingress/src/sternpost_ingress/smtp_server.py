"""Listening for SMTP: which door on which port, PROXY headers before sessions, the clock of all sessions, the drain."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import structlog

from sternpost_ingress import telemetry
from sternpost_ingress.engine_types import Budget
from sternpost_ingress.settings import Settings
from sternpost_ingress.smtp import Reception, Session, Store, plain_address
from sternpost_ingress.smtp_limits import ClientLimits
from sternpost_ingress.smtp_proxy import ProxyRefused, read_proxy
from sternpost_ingress.smtp_tls import Certificates
from sternpost_mail.config import Config
from sternpost_mail.envelope import Door
from sternpost_mail.identity import VerifyReply
from sternpost_mail.route import in_networks

log = structlog.get_logger()

BACKLOG = 1024
"""Connections that the kernel may hold for us; a burst of new clients fits."""
CLOCK_SECONDS = 1.0
"""How often sessions are checked for time: a timer per session would cost more than it tells."""


class SmtpServer:
    """The SMTP doors of a process."""

    def __init__(
        self,
        settings: Settings,
        *,
        spool: Store,
        identify: Callable[[str, str, str], Awaitable[VerifyReply]],
        config: Callable[[], Config],
        certificates: Certificates,
    ) -> None:
        self._settings = settings
        clients = ClientLimits(
            connections=settings.max_client_connections,
            connections_per_minute=settings.max_client_connections_per_minute,
            mails_per_minute=settings.max_client_messages_per_minute,
            exempt=settings.exempt_networks,
            size=settings.max_tracked_clients,
        )
        budget = Budget(settings.max_in_flight_octets)
        limits = settings.engine_limits()
        self.reception = Reception(settings, spool, identify, config, certificates, clients, budget, limits)
        self.ports: dict[Door, int] = {}
        """Where each door listens."""
        self._listeners: list[asyncio.Server] = []
        self._acceptors: list[asyncio.Task[None]] = []
        self._clock: asyncio.Task[None] | None = None
        self._admitting = 0
        """Connections that have no session yet."""

    async def start(self) -> None:
        """Open the doors. Raises OSError where a port is taken."""
        settings = self._settings
        ports = {
            Door.MX: settings.mx_port,
            Door.SUBMISSION: settings.submission_port,
            Door.SUBMISSIONS: settings.submissions_port,
        }
        for door, port in ports.items():
            if door in settings.smtp_doors:
                self.ports[door] = await self._open(door, port)
        self._clock = asyncio.create_task(self._watch(), name="smtp-clock")
        log.info("smtp_doors_open", host=settings.smtp_host, **{door.value: port for door, port in self.ports.items()})

    async def drain(self, seconds: float) -> None:
        """Close the doors. Idle sessions hear 421; mails on their way have `seconds` for an answer, then all is cut."""
        reception = self.reception
        reception.leaving = True
        for listener in self._listeners:
            listener.close()
        for acceptor in self._acceptors:
            acceptor.cancel()
        for session in list(reception.sessions):
            session.leave()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if reception.sessions:
                    await reception.empty.wait()
                while reception.tasks:  # mails whose clients are gone are settled all the same
                    await asyncio.wait(list(reception.tasks))
        for session in list(reception.sessions):
            session.abort()
        for task in list(reception.tasks):
            task.cancel()
        if self._clock is not None:
            self._clock.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._clock

    async def _open(self, door: Door, port: int) -> int:
        settings = self._settings
        loop = asyncio.get_running_loop()
        if door is Door.SUBMISSIONS or settings.proxy_networks:
            listener = _listen(settings.smtp_host, port)
            bound = int(listener.getsockname()[1])
            self._acceptors.append(asyncio.create_task(self._accept(listener, door), name=f"accept-{door}"))
            return bound
        server = await loop.create_server(
            lambda: Session(self.reception, door), settings.smtp_host, port, backlog=BACKLOG
        )
        self._listeners.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def _accept(self, listener: socket.socket, door: Door) -> None:
        """Take connections ourselves where something comes before the session: a PROXY header, or TLS.

        Both are bounded in number and time, and TLS starts with the certificates of this moment.
        """
        loop = asyncio.get_running_loop()
        with listener:
            while True:
                try:
                    connection, peer = await loop.sock_accept(listener)
                except OSError as error:  # out of descriptors, or the client left already
                    log.warning("smtp_accept_failed", error=str(error))
                    await asyncio.sleep(0.1)
                    continue
                connection.setblocking(False)
                if self._admitting + len(self.reception.sessions) >= self._settings.max_sessions:
                    telemetry.connection_refused("sessions")
                    connection.close()
                    continue
                self._admitting += 1
                self.reception.spawn(self._admit(connection, plain_address(peer), door))

    async def _admit(self, connection: socket.socket, peer: str, door: Door) -> None:
        try:
            address = peer
            if in_networks(self._settings.proxy_networks, peer):
                address = await read_proxy(connection, self._settings.proxy_header_seconds) or peer
            if door is Door.SUBMISSIONS:
                await self._admit_tls(connection, address)
            else:
                await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: Session(self.reception, door, address=address), connection
                )
        except ProxyRefused as refused:
            telemetry.connection_refused("proxy")
            log.warning("proxy_header_refused", peer=peer, reason=str(refused))
            connection.close()
        except OSError:  # the client is gone
            connection.close()
        finally:
            self._admitting -= 1

    async def _admit_tls(self, connection: socket.socket, address: str) -> None:
        reception, loop = self.reception, asyncio.get_running_loop()
        context = reception.certificates.default
        refused = "no-certificate" if context is None else reception.clients.enter(address, loop.time())
        if refused or context is None:
            telemetry.connection_refused(refused)
            connection.close()
            return
        try:
            await loop.connect_accepted_socket(
                lambda: Session(reception, Door.SUBMISSIONS, address=address, counted=True),
                connection,
                ssl=context,
                ssl_handshake_timeout=self._settings.tls_handshake_seconds,
            )
        except (OSError, TimeoutError):  # no session was made; ssl.SSLError is an OSError
            telemetry.tls_started(False)
            reception.clients.leave(address)
            connection.close()
        else:
            telemetry.tls_started(True)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(CLOCK_SECONDS)
            now = loop.time()
            for session in list(self.reception.sessions):
                session.check_time(now)
            telemetry.content_in_flight(self.reception.budget.used)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
