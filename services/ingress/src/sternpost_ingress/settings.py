"""Settings of the front doors. Every limit has its unit, its default and why it is that."""

import ipaddress
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from sternpost_ingress.engine_types import EngineLimits
from sternpost_ingress.http_settings import HttpSettings
from sternpost_runtime.settings import CommaSeparated, ServiceSettings

MIB = 1024 * 1024


class Settings(ServiceSettings):
    """The environment of this service: `STERNPOST_INGRESS_<FIELD>`, and `STERNPOST_INGRESS_HTTP__<FIELD>` for HTTP."""

    model_config = SettingsConfigDict(env_prefix="STERNPOST_INGRESS_", env_nested_delimiter="__")

    doors: CommaSeparated = Field(
        default=("smtp", "http"), description="which doors this process opens: smtp, http, or both"
    )
    smtp_doors: CommaSeparated = Field(
        default=("mx", "submission", "submissions"), description="which SMTP doors are opened, where smtp is"
    )
    smtp_host: str = Field(default="127.0.0.1", description="address that the SMTP doors listen on; 0.0.0.0 in a pod")
    mx_port: int = Field(
        default=2525, ge=0, le=65535, description="TCP port of the MX door (a Service maps 25 to it); 0 takes any"
    )
    submission_port: int = Field(default=2587, ge=0, le=65535, description="TCP port of submission (587, STARTTLS)")
    submissions_port: int = Field(default=2465, ge=0, le=65535, description="TCP port of submissions (465, TLS)")
    http_host: str = Field(default="127.0.0.1", description="address that the HTTP door listens on; 0.0.0.0 in a pod")
    http_port: int = Field(default=8080, ge=0, le=65535, description="TCP port of the HTTP API; 0 takes any free one")
    http: HttpSettings = Field(default=HttpSettings(), description="limits of the HTTP door")
    sealed_key_file: str = Field(
        default="",
        description="file with this service's private key (32 octets, or 64 hexadecimal digits) that opens sealed TLS "
        "keys; empty: no TLS",
    )
    proxy_networks: CommaSeparated = Field(
        default=(),
        description="networks of load balancers, such as 10.0.0.0/8: connections from there must begin with a PROXY "
        "header (v1 or v2), which from anywhere else is refused",
    )

    # --- one mail -----------------------------------------------------------------------------------------------------
    max_message_octets: int = Field(
        default=50 * MIB,
        ge=64 * 1024,
        description="largest mail, announced as SIZE; 50 MiB carries what large providers let in (Gmail 50 MB, "
        "Exchange Online 36 MB) plus base64",
    )
    max_recipients: int = Field(
        default=1000,
        ge=100,
        description="recipients of one mail; RFC 5321 demands 100, 1000 is Postfix's default, so lists need no change",
    )
    max_text_line_octets: int = Field(
        default=2048,
        ge=998,
        description="longest line of a mail; RFC 5322 says 998, but real mail is longer, and we may not fold what is "
        "signed; as Postfix's line_length_limit",
    )
    max_in_flight_octets: int = Field(
        default=256 * MIB,
        ge=1 * MIB,
        description="content that all sessions of the process hold at once; past it mail is answered 452; set it to a "
        "quarter of the pod's memory, because a mail is copied on its way into the spool",
    )

    # --- one session --------------------------------------------------------------------------------------------------
    max_errors: int = Field(
        default=10, ge=1, description="refused commands since the last accepted mail, before 421; half of Postfix's"
    )
    max_auth_failures: int = Field(
        default=3, ge=1, description="failed logins in one session before 421; a person mistypes twice"
    )
    idle_seconds: float = Field(
        default=300.0, gt=0, description="silence after which a session ends; RFC 5321 §4.5.3.2.7 asks for five minutes"
    )
    session_seconds: float = Field(
        default=3600.0,
        gt=0,
        description="longest session; clients that keep connections reconnect once an hour, and balance anew",
    )
    min_data_rate: int = Field(
        default=500, ge=0, description="octets per second that a mail must arrive with; as Postfix; 0 switches it off"
    )
    data_rate_window_seconds: float = Field(
        default=60.0, gt=0, description="time over which that rate is measured; a stall of half a minute is forgiven"
    )
    tls_handshake_seconds: float = Field(default=30.0, gt=0, description="longest TLS handshake; slow links need ten")
    proxy_header_seconds: float = Field(
        default=5.0, gt=0, description="wait for a PROXY header; a load balancer sends it at once"
    )
    banner_delay_seconds: float = Field(
        default=0.0,
        ge=0,
        description="pause before the greeting, to catch clients that do not await it; 0: every honest client pays it",
    )
    forbid_unauthorized_pipelining: bool = Field(
        default=True, description="end sessions that send ahead where RFC 2920 forbids it (bots, injected commands)"
    )

    # --- one client address -------------------------------------------------------------------------------------------
    max_sessions: int = Field(
        default=5000, ge=1, description="open SMTP sessions of the process; one costs about 12 KiB without mail"
    )
    max_client_connections: int = Field(
        default=50, ge=0, description="open connections of one client address (IPv6: one /64); as Postfix; 0: no limit"
    )
    max_client_connections_per_minute: int = Field(
        default=1200,
        ge=0,
        description="new connections of one client address in a minute; 20 a second are plenty for one mail each; "
        "0: no limit",
    )
    max_client_messages_per_minute: int = Field(
        default=6000, ge=0, description="mails of one client address in a minute; a hundred a second; 0: no limit"
    )
    exempt_networks: CommaSeparated = Field(
        default=("127.0.0.0/8", "::1/128"),
        description="networks whose addresses have no limits of connections and messages; loopback is ourselves",
    )
    max_tracked_clients: int = Field(
        default=100_000, ge=1000, description="client addresses that the limits remember, about 300 octets each"
    )

    # --- who is this --------------------------------------------------------------------------------------------------
    auth_timeout_seconds: float = Field(
        default=5.0, gt=0, description="wait for the auth service, then 454 or 503; argon2id takes about 0.1 s"
    )
    auth_cache_seconds: float = Field(
        default=30.0, ge=0, description="how long a granted login is believed; a revoked one ends this much later"
    )
    auth_cache_entries: int = Field(default=10_000, ge=1, description="granted logins that are remembered")

    # --- the process --------------------------------------------------------------------------------------------------
    drain_seconds: float = Field(
        default=20.0,
        ge=0,
        description="at SIGTERM, time for mails on their way; below the 30 s that Kubernetes grants, above the 15 s "
        "that a final dot may take",
    )
    uvicorn_log_level: Literal["warning", "error", "critical"] = Field(
        default="warning", description="what the HTTP server logs of itself"
    )

    @field_validator("doors", "smtp_doors")
    @classmethod
    def _check_doors(cls, value: tuple[str, ...], info: object) -> tuple[str, ...]:
        known = {"doors": ("smtp", "http"), "smtp_doors": ("mx", "submission", "submissions")}
        allowed = known[getattr(info, "field_name", "doors")]
        if wrong := [door for door in value if door not in allowed]:
            raise ValueError(f"{wrong[0]!r} is none of {', '.join(allowed)}")
        return value

    @field_validator("proxy_networks", "exempt_networks")
    @classmethod
    def _check_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)  # its ValueError says what is wrong
        return value

    def engine_limits(self) -> EngineLimits:
        """The limits that the SMTP engine keeps."""
        return EngineLimits(
            message=self.max_message_octets,
            recipients=self.max_recipients,
            errors=self.max_errors,
            auth_failures=self.max_auth_failures,
            text_line=self.max_text_line_octets,
            forbid_unauthorized_pipelining=self.forbid_unauthorized_pipelining,
        )
