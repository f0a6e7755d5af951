"""Settings of a process, read from its environment once, at start.

A service subclasses `ServiceSettings` with its own prefix (`STERNPOST_INGRESS_`). Its own fields are read under that
prefix only; the fields declared here under that prefix first and then under the shared one, so that
`STERNPOST_INGRESS_HEALTH_PORT` overrides `STERNPOST_HEALTH_PORT`. `load` turns every wrong value into one line that
names the variable, and exits with code 2.

This file knows no service's settings and opens no connection.
"""

import difflib
import os
import re
import socket
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

SHARED_PREFIX = "STERNPOST_"
"""The prefix under which every service reads the fields of this file."""
EXIT_USAGE = 2
"""Exit code for settings that cannot be obeyed: a supervisor need not try again with the same ones."""
SIMILAR = 0.85
"""How alike (difflib's ratio) an unknown variable must be to a known one to be called a typing mistake."""

_USERINFO = re.compile(r"//[^/,]*@")
_NATS_SCHEMES = ("nats", "tls", "ws", "wss")


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
"""A field that is written `smtp, http` in the environment."""


class _SharedEnvironment(EnvSettingsSource):
    """The shared prefix, for shared fields only: a service's own fields are never read from it."""

    def __call__(self) -> dict[str, Any]:
        shared = ServiceSettings.model_fields.keys()
        return {name: value for name, value in super().__call__().items() if name in shared}


class BusSettings(BaseSettings):
    """How to reach the broker."""

    model_config = SettingsConfigDict(env_prefix=SHARED_PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True)

    nats_url: str = Field(
        default="nats://127.0.0.1:4222",
        description="the broker's URL, such as nats://nats:4222; several, separated by commas, for a cluster",
    )
    nats_user: str = Field(default="", description="the user of this service at the broker, empty for none")
    nats_password: SecretStr = Field(default=SecretStr(""), description="the password of that user")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What was passed, then the service's own prefix, then the shared prefix. No files are read."""
        return init_settings, env_settings, _SharedEnvironment(settings_cls, env_prefix=SHARED_PREFIX)

    @field_validator("nats_url")
    @classmethod
    def _check_nats_url(cls, value: str) -> str:
        for url in value.split(","):
            parts = urlsplit(url.strip())
            if parts.scheme not in _NATS_SCHEMES or not parts.hostname:
                raise ValueError("must look like nats://host:4222 (schemes: " + ", ".join(_NATS_SCHEMES) + ")")
            if parts.username is not None or parts.password is not None:
                raise ValueError("must not hold a user or password: URLs are logged; use nats_user and nats_password")
            _ = parts.port  # raises ValueError with a clear text where it is no port
        return value

    @property
    def nats_servers(self) -> list[str]:
        """The URLs of the broker's nodes."""
        return [url.strip() for url in self.nats_url.split(",")]

    @property
    def nats_secret(self) -> str:
        """The password in clear, for the connection only."""
        return self.nats_password.get_secret_value()


class ServiceSettings(BusSettings):
    """What every service has. A subclass sets `model_config = SettingsConfigDict(env_prefix="STERNPOST_..._")`."""

    release_namespace: str = Field(
        default="sternpost",
        min_length=1,
        description="the namespace whose certificates and network rules count for the shared doors",
    )
    hostname: str = Field(
        default_factory=socket.gethostname,
        min_length=1,
        description="the name by which this process calls itself in greetings, trace headers and reports",
    )
    health_host: str = Field(
        default="127.0.0.1",
        description="the address on which health and metrics are served; 0.0.0.0 in a pod, where the kubelet asks",
    )
    health_port: int = Field(
        default=8081, ge=0, le=65535, description="the TCP port of health and metrics; 0 takes any free port"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least severe log line that is written: debug, info, warning or error"
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="json for machines, console for a person at a terminal"
    )
    otlp_endpoint: str = Field(
        default="",
        description="where traces go, such as http://collector:4318 (OTLP over HTTP); empty switches tracing off",
    )

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("otlp_endpoint")
    @classmethod
    def _check_otlp_endpoint(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("must look like http://collector:4318")
        return value.rstrip("/")


S = TypeVar("S", bound=BusSettings)


def load(kind: type[S]) -> S:
    """The settings of this process from its environment.

    Where a value is wrong, each one is told in a line of its own on stderr and the process exits with code 2. Secret
    values are never printed.
    """
    for line in _typing_mistakes(kind, os.environ):
        print(line, file=sys.stderr)
    try:
        return kind()
    except ValidationError as error:
        lines = [_explain(kind, os.environ, dict(detail)) for detail in error.errors(include_url=False)]
    except SettingsError as error:
        lines = [f"{kind.model_config.get('env_prefix', '')}*: {error}"]
    for line in lines:
        print(line, file=sys.stderr)
    raise SystemExit(EXIT_USAGE)


def variable_of(kind: type[BusSettings], field: str, environ: Mapping[str, str]) -> str:
    """The environment variable that a field came from, or would be set by."""
    own = f"{kind.model_config.get('env_prefix', '')}{field}".upper()
    shared = f"{SHARED_PREFIX}{field}".upper()
    return shared if field in ServiceSettings.model_fields and own not in environ else own


def _explain(kind: type[BusSettings], environ: Mapping[str, str], detail: dict[str, Any]) -> str:
    location = detail["loc"]
    if not location or str(location[0]) not in kind.model_fields:
        return f"settings: {_message(detail)}"  # a rule that spans several fields names them itself
    name = str(location[0])
    field = kind.model_fields[name]
    variable = variable_of(kind, name, environ)
    wish = f"; wanted: {field.description}" if field.description else ""
    if detail["type"] == "missing":
        return f"{variable}: is required{wish}"
    shown = environ.get(variable)
    secret = shown is None or "Secret" in repr(field.annotation)
    value = "the value" if shown is None or secret else repr(_USERINFO.sub("//...@", shown))
    default = "" if field.is_required() or field.default_factory or secret else f" (default: {field.default!r})"
    return f"{variable}: {value} is not valid: {_message(detail)}{wish}{default}"


def _message(detail: dict[str, Any]) -> str:
    text = str(detail["msg"]).removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _typing_mistakes(kind: type[BusSettings], environ: Mapping[str, str]) -> list[str]:
    # Only close misses of the own prefix: Kubernetes puts variables such as STERNPOST_INGRESS_SERVICE_HOST beside ours.
    prefix = str(kind.model_config.get("env_prefix", "")).upper()
    known = [f"{prefix}{name}".upper() for name in kind.model_fields]
    lines = []
    for variable in sorted(environ):
        if not variable.upper().startswith(prefix) or variable.upper() in known:
            continue
        for similar in difflib.get_close_matches(variable.upper(), known, n=1, cutoff=SIMILAR):
            lines.append(f"{variable}: is not a setting and is ignored; did you mean {similar}?")
    return lines
