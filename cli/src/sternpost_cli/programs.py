"""Which programs make a platform on one machine, with which environment, stopped in which order. Starts nothing."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sternpost_cli.datadir import DataDir
from sternpost_cli.ports import HOST, Ports
from sternpost_cli.probes import broker_ok, http_ok
from sternpost_cli.supervisor import Program

BROKER = "nats"
SINK = "sink"
SERVICES = ("auth", "activity", "delivery", "queue", "ingress")
"""In the order in which they are started: the doors last."""
STOP_ORDER = (("ingress",), ("queue",), ("delivery",), ("activity",), ("auth",), (SINK,), (BROKER,))
"""The doors first, so that nothing new comes in; then who hands out work before who does it; the broker last."""
BROKER_STOP_SECONDS = 20.0
"""The broker writes its indexes when it stops."""

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONWARNINGS", "SSL_CERT_FILE")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known before anything starts."""

    data: DataDir
    ports: Ports
    nats_server: Path
    passwords: Mapping[str, str]
    """Of the broker's users, by service."""
    key_files: Mapping[str, Path]
    """Private keys, by service."""
    environ: Mapping[str, str]
    """The caller's own environment: STERNPOST_<SERVICE>_* in it reaches the services and wins."""


def broker_url(ports: Ports) -> str:
    """Where services find the broker."""
    return f"nats://{HOST}:{ports.nats_port}"


def broker_program(plan: Plan) -> Program:
    """nats-server on the rendered configuration."""
    return Program(
        name=BROKER,
        command=[str(plan.nats_server), "-c", str(plan.data.broker_config)],
        environment=_inherited(plan.environ),
        is_ready=partial(broker_ok, HOST, plan.ports.nats_port),
        stop_seconds=BROKER_STOP_SECONDS,
    )


def sink_program(plan: Plan) -> Program:
    """The sink."""
    ports = plan.ports
    options = ["--smtp-port", str(ports.sink_smtp_port), "--http-port", str(ports.sink_http_port)]
    return Program(
        name=SINK,
        command=[sys.executable, "-m", "sternpost_cli", "sink", *options],
        environment=_inherited(plan.environ),
        is_ready=partial(http_ok, HOST, ports.sink_http_port, "/stats"),
    )


def service_program(plan: Plan, service: str) -> Program:
    """One service as a process of its own."""
    ports = plan.ports
    health_port = int(getattr(ports, f"{service}_health_port"))
    environment = {
        **_inherited(plan.environ),
        **_own_settings(plan, service),
        **{
            name: value
            for name, value in plan.environ.items()
            if name.startswith(f"STERNPOST_{service.upper()}_") or name in _SHARED_SETTINGS
        },
        "STERNPOST_NATS_URL": broker_url(ports),
        "STERNPOST_NATS_USER": service,
        "STERNPOST_NATS_PASSWORD": plan.passwords[service],
        "STERNPOST_HEALTH_HOST": HOST,
        f"STERNPOST_{service.upper()}_HEALTH_PORT": str(health_port),
    }
    return Program(
        name=service,
        command=[sys.executable, "-m", f"sternpost_{service}"],
        environment=environment,
        is_ready=partial(http_ok, HOST, health_port, "/healthz/ready"),
    )


_SHARED_SETTINGS = frozenset({"STERNPOST_LOG_LEVEL", "STERNPOST_OTLP_ENDPOINT", "STERNPOST_HOSTNAME"})


def _own_settings(plan: Plan, service: str) -> dict[str, str]:
    ports = plan.ports
    match service:
        case "ingress":
            return {
                "STERNPOST_INGRESS_SMTP_HOST": HOST,
                "STERNPOST_INGRESS_HTTP_HOST": HOST,
                "STERNPOST_INGRESS_MX_PORT": str(ports.mx_port),
                "STERNPOST_INGRESS_SUBMISSION_PORT": str(ports.submission_port),
                "STERNPOST_INGRESS_SUBMISSIONS_PORT": str(ports.submissions_port),
                "STERNPOST_INGRESS_HTTP_PORT": str(ports.http_port),
                "STERNPOST_INGRESS_SEALED_KEY_FILE": str(plan.key_files["ingress"]),
            }
        case "delivery":
            return {"STERNPOST_DELIVERY_SEALED_KEY_FILE": str(plan.key_files["delivery"])}
        case "activity":
            return {"STERNPOST_ACTIVITY_DATABASE_URL": f"sqlite:///{plan.data.database}"}
    return {}


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: environ[name] for name in _PASSED_ON if name in environ}
    return {"PATH": os.defpath, **kept, "PYTHONUNBUFFERED": "1"}
