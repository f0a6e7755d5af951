"""The settings of activity, each with its unit, default and reason."""

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from sternpost_activity.database import database_url
from sternpost_runtime.settings import ServiceSettings


class Settings(ServiceSettings):
    """Read from `STERNPOST_ACTIVITY_*`."""

    model_config = SettingsConfigDict(
        env_prefix="STERNPOST_ACTIVITY_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: SecretStr = Field(
        default=SecretStr("sqlite:///activity.db"),
        description="where the tables are: sqlite:////absolute/path.db (embedded), "
        "or postgresql://user:password@host/database",
    )
    fetch_records: int = Field(
        default=256,
        ge=1,
        le=5_000,
        description="records of EVENTS in hand at once; each holds the events of up to a few dozen mails",
    )
    transaction_events: int = Field(
        default=4_000,
        ge=1,
        le=50_000,
        description="events after which a transaction is closed; above a thousand its own cost no longer shows",
    )
    collect_ms: int = Field(
        default=100,
        ge=0,
        le=5_000,
        description="least time between two transactions, in milliseconds, while EVENTS is nearly empty: a transaction "
        "costs as much as fifty mails, and nobody's mail waits for it",
    )
    answer_wait: float = Field(
        default=2.0,
        ge=0,
        le=10,
        description="longest wait, in seconds, for the projection before a question is answered with not known; "
        "less than the patience of the HTTP API",
    )
    retention_days: int = Field(
        default=30,
        ge=8,
        le=3_650,
        description="days after which finished messages are deleted; more than the seven that EVENTS keeps, "
        "so that a repeated event never brings one back",
    )
    retention_interval: float = Field(
        default=600.0, gt=0, description="seconds between two rounds of deletion; short rounds are small rounds"
    )
    retention_chunk: int = Field(
        default=500, ge=1, le=5_000, description="messages per deleting transaction: a few hundredths of a second"
    )
    watch_interval: float = Field(
        default=5.0, gt=0, description="seconds between two looks at the lag and at the database's health"
    )
    lag_alarm: float = Field(
        default=900.0,
        gt=0,
        description="seconds behind after which the alarm gauge is 1; EVENTS loses its oldest after 7 days",
    )

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        database_url(value.get_secret_value())
        return value
