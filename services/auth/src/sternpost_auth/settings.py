"""Settings of the auth service, read once at start from `STERNPOST_AUTH_*`."""

import os

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from sternpost_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """Limits of password verification and of guessing. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="STERNPOST_AUTH_")

    health_port: int = Field(default=8084, ge=0, le=65535, description="the TCP port of health and metrics")
    verify_threads: int = Field(
        default=max(1, min(4, os.cpu_count() or 1)),
        ge=1,
        le=64,
        description="passwords hashed at the same time; each keeps one core and 19 MiB busy for about 20 ms",
    )
    verify_waiting: int = Field(
        default=64,
        ge=1,
        le=10_000,
        description="passwords that may wait for a thread; past it the answer is to try later. 64 wait about a second "
        "with one thread, well inside the time a door gives us",
    )
    requests_at_once: int = Field(
        default=1024,
        ge=1,
        le=100_000,
        description="questions taken from the broker at once; more than verify_waiting, so that API keys never stand "
        "behind passwords",
    )
    failures_per_login: int = Field(
        default=10,
        ge=1,
        description="failures that one client address may have with one login before it has to wait: a person "
        "who mistypes needs fewer, guessing needs far more",
    )
    failures_per_client: int = Field(
        default=50,
        ge=1,
        description="failures that one client address may have over all logins: many programs may share an address "
        "behind NAT, so it is higher",
    )
    failure_window: float = Field(
        default=300.0,
        gt=0,
        description="seconds in which a full count of failures is forgotten, evenly: after ten failures one more try "
        "every 30 seconds",
    )
    failure_entries: int = Field(
        default=50_000,
        ge=100,
        description="counts of failures kept at once; the oldest is forgotten first. About 15 MiB when full",
    )
    trusted_entries: int = Field(
        default=10_000,
        ge=1,
        description="pairs of client and login kept that succeeded before and are not stopped by others' failures",
    )
