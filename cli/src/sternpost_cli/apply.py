"""`sternpost apply`: compile a directory of manifests into the platform that runs on a data directory."""

import asyncio
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from sternpost_cli.configuration import (
    ConfigurationError,
    compile_manifests,
    publish_compiled,
    quiet_logging,
    write_ca_file,
)
from sternpost_cli.datadir import DataDir, DataError
from sternpost_cli.output import EXIT_FAILURE, EXIT_USAGE, Output, fail, show_json
from sternpost_cli.ports import PortError, read_ports
from sternpost_cli.quickstart import parse_environment
from sternpost_runtime.subjects import Service


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it; the keys of the JSON output."""

    resources: int
    published: bool = False
    generation: int = 0
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def run_apply(manifests: Path, data_root: Path, output: Output, *, allow_removal: bool, dry_run: bool) -> None:
    """Compile, and publish unless it is a dry run. Ends the program on every problem, before anything changed."""
    quiet_logging()
    data = DataDir(data_root.absolute())
    if not data.broker_config.exists():
        fail(f"{data.root} is not the data directory of a platform: start one with `sternpost up`", EXIT_USAGE)
    try:
        # The ports as the running platform was told: it wrote them down, and this shell's variables may differ.
        ports = read_ports({**os.environ, **_running_ports(data)})
        compiled = compile_manifests(manifests, data, ports)
        if dry_run:
            result = Result(len(compiled.resources))
        else:
            password = data.broker_passwords([str(service) for service in Service])[Service.BOOTSTRAP]
            done = asyncio.run(publish_compiled(ports, password, compiled, allow_removal=allow_removal))
            write_ca_file(data, compiled)
            result = Result(len(compiled.resources), done.changed, done.generation, done.written, done.removed)
    except (ConfigurationError, DataError, PortError) as error:
        fail(str(error), EXIT_FAILURE)
    if output is Output.JSON:
        show_json(asdict(result))
    elif dry_run:
        print(f"{result.resources} resources, no problems; nothing was published")
    elif not result.published:
        print(f"nothing differs; generation {result.generation} stays")
    else:
        for key in result.written:
            print(f"+ {key}")
        for key in result.removed:
            print(f"- {key}")
        print(f"generation {result.generation}: {result.resources} resources")


def _running_ports(data: DataDir) -> dict[str, str]:
    return parse_environment(data.ports.read_text(encoding="utf-8")) if data.ports.exists() else {}
