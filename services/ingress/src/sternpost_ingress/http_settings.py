"""Settings of the HTTP door: every limit with its unit, default and reason. The service's Settings include it."""

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


class HttpSettings(BaseModel):
    """Part of the ingress service's settings (`http`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_body_octets: int = Field(
        default=50 * MIB,
        ge=1024,
        description="largest request body; in JSON it holds 37 MiB of attachments, raw it is what the SMTP doors take",
    )
    max_mail_octets: int = Field(
        default=50 * MIB, ge=1024, description="largest mail as it goes out, as the SMTP doors"
    )
    max_in_flight_octets: int = Field(
        default=128 * MIB,
        ge=1024,
        description="request bodies that are held at once, past it 503; a body is copied about three times on its way",
    )
    body_seconds: float = Field(
        default=60.0, gt=0, description="time in which a request body must arrive: a slow sender holds memory"
    )
    requests_per_second: float = Field(
        default=500.0,
        gt=0,
        description="requests per second that a credential may make lastingly, and a client address without a valid "
        "one; past it 429. Half of what one core answers, so no client alone keeps a process busy",
    )
    request_burst: int = Field(default=1000, ge=1, description="requests at once before that rate counts: two seconds")
    max_tracked_clients: int = Field(
        default=20_000, ge=100, description="clients whose rate is remembered; the longest unseen is forgotten"
    )
    query_seconds: float = Field(
        default=3.0, gt=0, description="wait for the service that answers a query or takes a cancel, then 503"
    )
    max_schedule_days: int = Field(
        default=25,
        ge=1,
        le=25,
        description="days ahead that send_at may lie: large content is kept for 31 days, of which five are for retries",
    )
    docs: bool = Field(default=True, description="serve the interactive description at /docs")
