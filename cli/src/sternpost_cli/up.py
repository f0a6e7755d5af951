"""`sternpost up`: the whole platform on one machine, from an empty directory to ready, until it is told to stop.

It puts the parts in order: checks, secrets, broker, configuration, services, sink. It decides nothing about mail.
"""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from sternpost_cli.configuration import (
    ConfigurationError,
    access_of,
    compile_manifests,
    ensure_keys,
    prepare_broker,
    publish_compiled,
    quiet_logging,
    variables,
    write_ca_file,
)
from sternpost_cli.datadir import DataDir, DataError, write_private
from sternpost_cli.nats_binary import NatsServerError, find_nats_server
from sternpost_cli.ports import PortError, Ports, check_free, read_ports
from sternpost_cli.programs import (
    BROKER,
    SERVICES,
    SINK,
    STOP_ORDER,
    Plan,
    broker_program,
    service_program,
    sink_program,
)
from sternpost_cli.quickstart import first_message, places, quickstart_values, render_environment
from sternpost_cli.supervisor import Supervisor, SupervisorError
from sternpost_runtime.broker_config import render
from sternpost_runtime.subjects import Service

BROKER_READY_SECONDS = 60.0
"""How long the broker may take: it reads its streams when it starts, and they may be large."""
SERVICE_READY_SECONDS = 30.0
"""How long a service may take to be ready; two to four seconds are usual."""


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(text, flush=True)


def run_up(manifests: Path, data_root: Path, *, with_sink: bool, environ: Mapping[str, str] | None = None) -> int:
    """Run the platform; its exit code: 0 after an orderly stop, 1 when it did not come up."""
    started = time.monotonic()
    quiet_logging()
    known = dict(os.environ if environ is None else environ)
    data = DataDir(data_root.absolute())
    try:
        ports = read_ports(known)
        data.create()
        with data.lock():
            check_free(ports, with_sink=with_sink)
            plan = Plan(
                data=data,
                ports=ports,
                nats_server=find_nats_server().path,
                passwords=data.broker_passwords([str(service) for service in Service]),
                key_files=ensure_keys(data),
                environ=known,
            )
            return asyncio.run(_run(plan, manifests, with_sink=with_sink, started=started))
    except (PortError, DataError, NatsServerError) as error:
        print(f"sternpost: {error}", file=sys.stderr)
        return 1


async def _run(plan: Plan, manifests: Path, *, with_sink: bool, started: float) -> int:
    supervisor = Supervisor(state_path=plan.data.state, log_folder=plan.data.logs, say=say)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asked_to_stop() -> None:
        if stop.is_set():
            supervisor.kill()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked_to_stop)
    coming_up = asyncio.create_task(_come_up(plan, supervisor, manifests, with_sink=with_sink))
    stopping = asyncio.create_task(stop.wait())
    code = 0
    try:
        await asyncio.wait([coming_up, stopping], return_when=asyncio.FIRST_COMPLETED)
        if coming_up.done():
            coming_up.result()
            say(f"ready in {time.monotonic() - started:.1f} s; Ctrl-C stops everything")
            await stop.wait()
        say("stopping")
    except (SupervisorError, ConfigurationError, DataError) as error:
        print(f"sternpost: {error}", file=sys.stderr, flush=True)
        code = 1
    finally:
        coming_up.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await coming_up
        await supervisor.stop(STOP_ORDER)
        stopping.cancel()
    if not code:
        say("stopped")
    return code


async def _come_up(plan: Plan, supervisor: Supervisor, manifests: Path, *, with_sink: bool) -> None:
    """From nothing to ready. Raises SupervisorError, ConfigurationError, DataError."""
    data, ports = plan.data, plan.ports
    compiled = await asyncio.to_thread(compile_manifests, manifests, data, ports)
    write_ca_file(data, compiled)
    write_private(data.ports, render_environment(variables(ports)))
    write_private(data.broker_config, render(data.broker_data, ports.nats_port, plan.passwords))
    await supervisor.start(broker_program(plan))
    if with_sink:
        await supervisor.start(sink_program(plan))
    await supervisor.wait_ready(BROKER, BROKER_READY_SECONDS)
    bootstrap_password = plan.passwords[Service.BOOTSTRAP]
    done = await prepare_broker(ports, bootstrap_password)
    if done:
        say(f"broker: {len(done)} streams, buckets and consumers created or corrected")
    published = await publish_compiled(ports, bootstrap_password, compiled, allow_removal=True)
    say(f"configuration {published.generation}: {len(compiled.resources)} resources of {manifests}")
    for service in SERVICES:
        await supervisor.start(service_program(plan, service))
    await asyncio.gather(*(supervisor.wait_ready(service, SERVICE_READY_SECONDS) for service in SERVICES))
    if with_sink:
        await supervisor.wait_ready(SINK, SERVICE_READY_SECONDS)
    values = quickstart_values(ports, access_of(compiled), data, with_sink=with_sink)
    write_private(data.quickstart, render_environment(values))
    _introduce(ports, data, with_sink=with_sink)


def _introduce(ports: Ports, data: DataDir, *, with_sink: bool) -> None:
    rows = places(ports, data, with_sink=with_sink)
    width = max(len(name) for name, _ in rows)
    say("")
    for name, place in rows:
        say(f"  {name:<{width}}  {place}")
    say("\nA first message:\n")
    say(first_message(data.quickstart))
    say("")
