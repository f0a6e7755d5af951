"""Settings of the HTTP door: every limit with its unit, default and reason. The service's Settings include it as `http`."""

from pydantic import BaseModel, ConfigDict, Field


class HttpSettings(BaseModel):
    """Part of the ingress service's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="the address that the HTTP door listens on")
    port: int = Field(default=8080, ge=0, le=65535, description="the TCP port of the HTTP door; 0 takes any free port")
    max_body: int = Field(
        default=36 * 1024 * 1024,
        ge=1024,
        description="octets of one request body: 25 MiB of attachments are 33.4 MiB in base64, and text comes on top",
    )
    max_bodies: int = Field(
        default=256 * 1024 * 1024,
        ge=1024,
        description="octets of all request bodies that are held at once; past it a client is told to wait (503)",
    )
    body_timeout: float = Field(
        default=60.0, gt=0, description="seconds within which a request body must arrive: a slow sender holds memory"
    )
    max_mail: int = Field(
        default=25 * 1024 * 1024,
        ge=1024,
        description="octets of one mail as it goes out; most receivers take no more than 25 MiB",
    )
    requests_per_second: float = Field(
        default=500.0, gt=0, description="requests per second and client address, lastingly; past it 429"
    )
    request_burst: int = Field(
        default=1000, ge=1, description="requests that a client address may send at once before the rate counts"
    )
    auth_failures_per_minute: float = Field(
        default=10.0,
        gt=0,
        description="wrong API keys per minute and client address; past it every key is answered 429, right ones too",
    )
    rate_entries: int = Field(
        default=20_000, ge=100, description="client addresses whose rate is remembered; the longest unseen is forgotten"
    )
    query_timeout: float = Field(
        default=3.0, gt=0, description="seconds to wait for the service that answers a query or takes a cancel"
    )
    max_schedule_days: int = Field(
        default=25,
        ge=1,
        le=25,
        description="days ahead that send_at may lie: large content is kept 31 days, of which five are for retries",
    )
    docs: bool = Field(default=True, description="serve the interactive description at /docs")
