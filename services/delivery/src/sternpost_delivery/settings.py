"""Settings of the delivery service: each with its unit, default and reason."""

import re

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from sternpost_delivery.client import Patience
from sternpost_runtime.settings import CommaSeparated, ServiceSettings

MIB = 1024 * 1024
_EHLO_NAME = re.compile(r"[A-Za-z0-9._-]{1,255}|\[[0-9A-Za-z:.]{1,64}\]")


class Settings(ServiceSettings):
    """Read from `STERNPOST_DELIVERY_*`, and the shared ones from `STERNPOST_*`."""

    model_config = SettingsConfigDict(env_prefix="STERNPOST_DELIVERY_")

    sessions: int = Field(
        default=50, ge=1, le=2000, description="site sessions at once; past it the queue asks another worker"
    )
    inline_mib: int = Field(
        default=32,
        ge=8,
        le=60,
        description="MiB of session requests in memory; the broker drops a client 64 MiB behind",
    )
    large_mib: int = Field(
        default=128, ge=1, description="MiB of large contents (those in the object store) in memory at once"
    )
    drain_seconds: float = Field(
        default=15.0,
        ge=0,
        description="seconds that mails in hand are given at shutdown; Kubernetes kills after thirty",
    )
    ehlo_name: str = Field(
        default="",
        description="the name told in EHLO: a full domain name, or an address in brackets; default: hostname",
    )
    own_names: CommaSeparated = Field(
        default=(), description="further names of our MX doors: a domain whose best MX is one of them loops (5.4.6)"
    )
    own_addresses: CommaSeparated = Field(
        default=(), description="addresses of our MX doors, for the same reason; a service's address is not ours to see"
    )
    nameservers: CommaSeparated = Field(
        default=(), description="nameservers as address or address:port; default: the system's (/etc/resolv.conf)"
    )
    dns_seconds: float = Field(default=15.0, gt=0, description="seconds for one answer of DNS, all retries included")
    dns_cached: int = Field(default=20_000, ge=100, description="DNS answers remembered, at most an hour each")
    prefer_ipv6: bool = Field(
        default=False, description="try IPv6 before IPv4; clusters often have no IPv6 way out, so IPv4 is the default"
    )
    smtp_port: int = Field(default=25, ge=1, le=65535, description="TCP port of mail exchangers; for test networks")
    ca_file: str = Field(
        default="", description="PEM file of authorities for verified TLS; default: those of the system"
    )
    sealed_key_file: str = Field(
        default="",
        description="file with this service's private key (32 octets, or 64 hexadecimal digits) that opens sealed "
        "passwords of smart hosts; empty: no AUTH",
    )
    idle_seconds: float = Field(
        default=5.0, ge=0, description="seconds that an open connection waits for its site's next session"
    )
    idle_connections: int = Field(default=100, ge=0, description="connections that wait like that, at most")
    connection_seconds: float = Field(
        default=300.0, gt=0, description="seconds after which a connection is not used again; Postfix's figure"
    )
    connection_mails: int = Field(
        default=1000, ge=1, description="mails after which a connection is not used again: load moves on"
    )
    connect_seconds: float = Field(default=30.0, gt=0, description="seconds for a TCP connection")
    greeting_seconds: float = Field(default=300.0, gt=0, description="seconds for the greeting (RFC 5321 4.5.3.2.1)")
    ehlo_seconds: float = Field(default=300.0, gt=0, description="seconds for EHLO and STARTTLS; Postfix's figure")
    tls_seconds: float = Field(default=60.0, gt=0, description="seconds for a TLS handshake")
    auth_seconds: float = Field(default=120.0, gt=0, description="seconds for each step of AUTH")
    mail_seconds: float = Field(default=300.0, gt=0, description="seconds for MAIL (RFC 5321 4.5.3.2.2)")
    rcpt_seconds: float = Field(default=300.0, gt=0, description="seconds for RCPT (RFC 5321 4.5.3.2.3)")
    data_seconds: float = Field(default=120.0, gt=0, description="seconds for DATA (RFC 5321 4.5.3.2.4)")
    block_seconds: float = Field(default=180.0, gt=0, description="seconds for a block (RFC 5321 4.5.3.2.5)")
    dot_seconds: float = Field(default=600.0, gt=0, description="seconds for the final dot (RFC 5321 4.5.3.2.6)")

    @field_validator("ehlo_name")
    @classmethod
    def _check_ehlo_name(cls, value: str) -> str:
        if value and not _EHLO_NAME.fullmatch(value):
            raise ValueError("must be a domain name or an address in brackets")
        return value

    @property
    def patience(self) -> Patience:
        """How long each reply may take."""
        return Patience(
            connect=self.connect_seconds,
            greeting=self.greeting_seconds,
            ehlo=self.ehlo_seconds,
            tls=self.tls_seconds,
            auth=self.auth_seconds,
            mail=self.mail_seconds,
            rcpt=self.rcpt_seconds,
            data=self.data_seconds,
            block=self.block_seconds,
            dot=self.dot_seconds,
        )
