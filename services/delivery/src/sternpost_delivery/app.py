"""The composition root of the delivery service: wired by hand, top to bottom."""

import asyncio
from pathlib import Path

import structlog

from sternpost_delivery.budget import Budget
from sternpost_delivery.client import make_tls_contexts
from sternpost_delivery.policy import Endpoint
from sternpost_delivery.pool import Pool
from sternpost_delivery.resolve import Resolver
from sternpost_delivery.session import ContentUnavailable, Hands, PasswordUnavailable
from sternpost_delivery.settings import MIB, Settings
from sternpost_delivery.worker import Worker
from sternpost_mail.route import SmartHost, seal_context_smart_host
from sternpost_runtime.bus import Bus, BusError
from sternpost_runtime.health import Health
from sternpost_runtime.lifecycle import Stop, settle_gc, spawn
from sternpost_runtime.sealed import KEY_OCTETS, SealError, open_sealed, public_key_of
from sternpost_runtime.subjects import Service

log = structlog.get_logger()


async def run(settings: Settings, stop: Stop) -> None:
    """Serve until told to stop, then finish the mails in hand."""
    health = Health()
    await health.serve(settings.health_host, settings.health_port)
    key = read_key(settings.sealed_key_file)
    bus = await Bus.connect(settings, Service.DELIVERY)
    health.add("broker", lambda: bus.connected)
    worker = Worker(
        bus,
        make_hands(settings, bus, key),
        sessions=settings.sessions,
        inline_octets=settings.inline_mib * MIB,
    )
    await worker.start()
    beats = spawn(worker.run_beats(), "beats")
    settle_gc()
    log.info("delivery_ready", worker=worker.id)
    await stop.wait()

    await worker.drain(settings.drain_seconds)
    beats.cancel()
    await asyncio.gather(beats, return_exceptions=True)
    await bus.close()
    await health.close()


def make_hands(settings: Settings, bus: Bus, key: bytes) -> Hands:
    """What every session shares. `key` opens smart hosts' passwords, empty where there is none."""

    async def fetch(reference: str) -> bytes:
        try:
            return await bus.get_object(reference)
        except BusError as error:
            raise ContentUnavailable(f"the content cannot be read from the store now: {error}") from error

    def open_password(endpoint: Endpoint) -> str:
        return open_smart_host_password(endpoint, key)

    return Hands(
        resolver=Resolver(
            nameservers=settings.nameservers,
            own_names=(settings.hostname, *settings.own_names),
            own_addresses=settings.own_addresses,
            lifetime=settings.dns_seconds,
            cache_size=settings.dns_cached,
            prefer_ipv6=settings.prefer_ipv6,
            smtp_port=settings.smtp_port,
        ),
        pool=Pool(
            idle_seconds=settings.idle_seconds,
            max_idle=settings.idle_connections,
            lifetime=settings.connection_seconds,
            max_mails=settings.connection_mails,
        ),
        patience=settings.patience,
        ehlo_name=settings.ehlo_name or settings.hostname,
        contexts=make_tls_contexts(settings.ca_file),
        fetch=fetch,
        open_password=open_password,
        large=Budget(settings.large_mib * MIB),
    )


def open_smart_host_password(endpoint: Endpoint, key: bytes) -> str:
    """The password of a smart host, opened for this host, port and user only. Raises PasswordUnavailable."""
    if not key:
        raise PasswordUnavailable(
            "the password of the smart host cannot be opened: delivery was given no key (sealed_key_file)"
        )
    hop = SmartHost(endpoint.host, endpoint.port, username=endpoint.username)
    try:
        return open_sealed(key, endpoint.sealed_password, seal_context_smart_host(hop)).decode()
    except (SealError, UnicodeDecodeError) as error:
        log.warning("password_not_opened", host=endpoint.host, error=str(error))
        raise PasswordUnavailable(f"the password of the smart host {endpoint.host} cannot be opened") from error


def read_key(path: str) -> bytes:
    """The private key in a file, empty where no file is named. Raises SystemExit where it is no key."""
    if not path:
        return b""
    try:
        raw = Path(path).read_bytes()
        key = raw if len(raw) == KEY_OCTETS else bytes.fromhex(raw.decode("ascii").strip())
        public_key_of(key)
    except (OSError, ValueError, SealError) as error:
        raise SystemExit(f"STERNPOST_DELIVERY_SEALED_KEY_FILE: {path} holds no private key ({error})") from error
    return key
