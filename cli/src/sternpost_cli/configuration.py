"""Manifests into a running platform on one machine: prepare the broker, compile, publish, tell clients their access."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import SecretStr

from sternpost_cli.datadir import DataDir, DataError, write_private
from sternpost_cli.ports import Ports, variable_of
from sternpost_cli.programs import broker_url
from sternpost_mail.config import Certificate
from sternpost_operator.build import compile_directory
from sternpost_operator.compile import Compiled, PublicKeys
from sternpost_operator.publish import Published, PublishError, publish
from sternpost_operator.state import StateError, load_state, save_state
from sternpost_runtime.bootstrap import BootstrapError, BootstrapSettings, bootstrap
from sternpost_runtime.bus import Bus, BusError
from sternpost_runtime.logs import setup_logging
from sternpost_runtime.sealed import KEY_OCTETS, generate_keypair, public_key_of
from sternpost_runtime.settings import BusSettings, ServiceSettings
from sternpost_runtime.subjects import Service

KEY_HOLDERS = ("ingress", "delivery")
"""Services to which secrets are sealed."""
CONNECT_SECONDS = 10.0
"""How long the broker may take to let us in."""


class ConfigurationError(Exception):
    """The manifests cannot be used, or not be published; the text has one line per problem."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a client needs, as far as the manifests had it generated: the first of each kind by name."""

    api_key: str = ""
    smtp_user: str = ""
    smtp_password: str = ""


def ensure_keys(data: DataDir) -> dict[str, Path]:
    """A private key file per key holder, made on the first start."""
    return {service: data.key_file(service, generate_keypair()[0]) for service in KEY_HOLDERS}


def public_keys(data: DataDir) -> PublicKeys:
    """The public keys that belong to the key files. Raises DataError where one is damaged."""
    found = {}
    for service, path in ensure_keys(data).items():
        try:
            private = bytes.fromhex(path.read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not a key of {2 * KEY_OCTETS} hexadecimal digits") from error
        found[service] = public_key_of(private)
    return PublicKeys(ingress=found["ingress"], delivery=found["delivery"])


def variables(ports: Ports) -> Mapping[str, str]:
    """The placeholders that a manifest may use: the ports, by the names of their variables."""
    return {variable_of(name): str(number) for name, number in asdict(ports).items()}


def compile_manifests(manifests: Path, data: DataDir, ports: Ports) -> Compiled:
    """Compile and remember what was generated. Slow (password hashes). Raises ConfigurationError."""
    try:
        state = load_state(data.compiler_state)
        compiled = compile_directory(manifests, variables(ports), state, public_keys(data))
        if compiled.errors:
            raise ConfigurationError("\n".join(str(problem) for problem in compiled.errors))
        save_state(data.compiler_state, compiled.state)
    except StateError as error:
        raise ConfigurationError(str(error)) from error
    return compiled


async def prepare_broker(ports: Ports, password: str) -> list[str]:
    """Create or correct streams, consumers and buckets; what was done. Raises ConfigurationError."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS * 3):
            bus = await _connect(ports, password)
            try:
                return await bootstrap(bus, BootstrapSettings())
            finally:
                await bus.close()
    except (BootstrapError, BusError, TimeoutError, OSError) as error:
        raise ConfigurationError(f"the broker could not be prepared: {error or 'no answer in time'}") from error


async def publish_compiled(ports: Ports, password: str, compiled: Compiled, *, allow_removal: bool) -> Published:
    """Make the running platform obey. Raises ConfigurationError."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            bus = await _connect(ports, password)
        try:
            return await publish(bus, compiled.resources, allow_mass_removal=allow_removal)
        finally:
            await bus.close()
    except (PublishError, BusError) as error:
        raise ConfigurationError(str(error)) from error
    except (TimeoutError, OSError) as error:
        raise ConfigurationError(f"no broker at {broker_url(ports)}: is the platform running?") from error


def access_of(compiled: Compiled) -> Access:
    """The generated credentials."""
    api_key = smtp_user = smtp_password = ""
    for _, values in sorted(compiled.generated.items()):
        api_key = api_key or values.get("apiKey", "")
        if not smtp_user and "password" in values:
            smtp_user, smtp_password = values.get("username", ""), values["password"]
    return Access(api_key, smtp_user, smtp_password)


def write_ca_file(data: DataDir, compiled: Compiled) -> None:
    """The doors' certificates in one file: a self-signed one is its own authority."""
    chains = [item.chain_pem.decode("ascii") for item in compiled.resources if isinstance(item, Certificate)]
    write_private(data.ca_file, "".join(chains))


def quiet_logging() -> None:
    """The bus's own log lines from error up: on a terminal the rest only repeats what the command says."""
    setup_logging("cli", ServiceSettings(log_level="error", log_format="console"))


async def _connect(ports: Ports, password: str) -> Bus:
    settings = BusSettings(nats_url=broker_url(ports), nats_user=Service.BOOTSTRAP, nats_password=SecretStr(password))
    return await Bus.connect(settings, Service.BOOTSTRAP)
