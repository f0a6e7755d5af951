"""Settings of the queue service: each with its unit, default and reason."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from sternpost_queue.active import ActiveLimits
from sternpost_runtime.settings import ServiceSettings

MIB = 1024 * 1024


class Settings(ServiceSettings):
    """Read from `STERNPOST_QUEUE_*`, and the shared ones from `STERNPOST_*`."""

    model_config = SettingsConfigDict(env_prefix="STERNPOST_QUEUE_")

    active_mails: int = Field(default=20_000, ge=1, description="jobs in memory; Postfix's figure for its active queue")
    active_mib: int = Field(default=128, ge=1, description="MiB of content in memory")
    site_sessions: int = Field(
        default=20, ge=1, description="concurrent sessions to one site where its rule says nothing; Postfix's figure"
    )
    session_mails: int = Field(
        default=20, ge=1, description="mails in one site session: enough to share its costs, few enough to share a site"
    )
    session_mib: int = Field(
        default=4, ge=1, le=6, description="MiB of content in one session; the broker takes 8 a message"
    )
    pull_records: int = Field(default=64, ge=1, description="spool records asked for at once")
    due_records: int = Field(default=64, ge=1, description="records that fell due asked for at once")
    poison_deliveries: int = Field(
        default=8,
        ge=2,
        description="deliveries of one record after which it is set aside: something about it kills readers",
    )
    sites_cached: int = Field(default=50_000, ge=100, description="recipient domains whose site is remembered")
    drain_seconds: float = Field(default=10.0, ge=0, description="seconds that running sessions are given at shutdown")

    @property
    def active_limits(self) -> ActiveLimits:
        """The bounds of the active set."""
        return ActiveLimits(mails=self.active_mails, octets=self.active_mib * MIB)
