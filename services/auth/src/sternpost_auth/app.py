"""The auth process, wired by hand."""

from sternpost_auth.limits import FailureCounts, Limits
from sternpost_auth.passwords import PasswordPool
from sternpost_auth.respond import Responder
from sternpost_auth.settings import Settings
from sternpost_runtime.bus import Bus
from sternpost_runtime.config import ConfigWatch
from sternpost_runtime.health import Health
from sternpost_runtime.lifecycle import Stop
from sternpost_runtime.subjects import AUTH_VERIFY, Service

GROUP = "auth"
"""Replicas share the questions."""


async def main(settings: Settings, stop: Stop) -> None:
    """Answer until `stop`."""
    health = Health()
    bus = await Bus.connect(settings, Service.AUTH)
    config = ConfigWatch(bus, settings.release_namespace)
    health.add("broker", lambda: bus.connected)
    health.add("configuration", lambda: config.config.is_complete)
    await health.serve(settings.health_host, settings.health_port)

    passwords = PasswordPool(settings.verify_threads, settings.verify_waiting)
    failures = FailureCounts(
        Limits(
            per_login=settings.failures_per_login,
            per_client=settings.failures_per_client,
            window=settings.failure_window,
            entries=settings.failure_entries,
            trusted=settings.trusted_entries,
        )
    )
    responder = Responder(lambda: config.config, passwords, failures)
    await config.start()
    await bus.serve(AUTH_VERIFY, responder.handle, group=GROUP, concurrency=settings.requests_at_once)

    await stop.wait()
    await bus.close()
    passwords.close()
    await health.close()
