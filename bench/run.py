"""One measured run of one cell on one system, and the order of all runs. Knows no particular system."""

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import measure
from bench.cells import Cell
from bench.load import Offered, Sink, offer
from bench.system import System

WARM_UP_MAILS = 500
"""Offered before each run and not counted: processes are forked, code is loaded, caches and connections exist."""
WARM_IDLE_CORES = 0.05
"""After the warm-up a system counts as quiet below this; what it uses when idle is then measured."""
LONGEST_TAIL_S = 20.0
"""How long work after the last delivery is waited for and counted."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run measured. Rates in mails per second."""

    system: str
    cell: Cell
    mails: int
    accept_per_s: float
    """Mails by the time from the generator's start to its last 250."""
    delivered_per_s: float
    """Mails by the time from the generator's start to the sink's count of all of them."""
    cpu_s_per_1k: float
    """CPU seconds of all processes of the system per thousand mails, the work after the last delivery included."""
    peak_mib: float
    tail_s: float
    """How long after the last delivery the system was still at work."""
    idle_cores: float
    """What the system uses with nothing to do, in cores; included in its CPU while it runs."""
    generator_cpu_s: float
    sink_cpu_s: float
    other_cpu_s: float
    """Busy time of the machine that belongs to none of these: kernel threads (disk), the benchmark itself, strangers."""
    disk_flushes: int | None
    surplus: int
    """Mails that the sink got more than once."""
    durable: str


Watch = Callable[[str, dict[str, int], int], None]
"""Called with `start` and `end` of the measured part, the system's named parts and its root pid."""


def measure_run(system: System, cell: Cell, mails: int, work: Path, watch: Watch | None = None) -> Run:
    """Start the system in an empty directory, warm it up, measure one cell, stop it.

    Raises NotStarted or LoadError.
    """
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    with Sink() as sink, system.running(work, sink.port) as running:
        root = running.root_pid
        _send(sink, running.port, cell, WARM_UP_MAILS)
        measure.wait_until_quiet(root, WARM_IDLE_CORES, longest_s=LONGEST_TAIL_S)
        idle_cores = _idle_cores(root)
        if watch:
            watch("start", running.parts, root)
        cpu, machine, flushes = measure.tree_cpu_s(root), measure.machine_cpu_s(), measure.disk_flushes(work)
        sink_cpu = sink.cpu_s()
        with measure.MemorySampler(root) as memory:
            offered, arrived = _send(sink, running.port, cell, mails)
            tail = measure.wait_until_quiet(root, idle_cores, longest_s=LONGEST_TAIL_S)
        used = measure.tree_cpu_s(root) - cpu
        busy, sink_used = measure.machine_cpu_s() - machine, sink.cpu_s() - sink_cpu
        flushed = measure.disk_flushes(work)
        if watch:
            watch("end", running.parts, root)
        surplus = sink.count - WARM_UP_MAILS - mails
    return Run(
        system=system.name,
        cell=cell,
        mails=mails,
        accept_per_s=mails / (offered.ended - offered.started),
        delivered_per_s=mails / (arrived - offered.started),
        cpu_s_per_1k=used / mails * 1000,
        peak_mib=memory.peak_bytes / measure.MIB,
        tail_s=tail,
        idle_cores=idle_cores,
        generator_cpu_s=offered.cpu_s,
        sink_cpu_s=sink_used,
        other_cpu_s=busy - used - offered.cpu_s - sink_used,
        disk_flushes=None if flushes is None or flushed is None else flushed - flushes,
        surplus=surplus,
        durable=running.durable,
    )


def _send(sink: Sink, port: int, cell: Cell, mails: int) -> tuple[Offered, float]:
    """Offer mails and wait until the sink has them all; gives what the generator did and when the last one arrived."""
    already = sink.count
    sink.expect_from_now()
    offered = offer(port, cell, mails)
    sink.expect_from_now()
    return offered, sink.wait_for(already + mails)


def _idle_cores(root: int) -> float:
    """How much CPU the system uses with nothing to do, measured over one second."""
    before, since = measure.tree_cpu_s(root), time.monotonic()
    time.sleep(1.0)
    return (measure.tree_cpu_s(root) - before) / (time.monotonic() - since)


def measure_all(
    systems: Sequence[System], cells: Iterable[Cell], *, runs: int, quick: bool, work: Path, tell: Callable[[str], None]
) -> list[Run]:
    """All runs: for each cell the systems in turn (A B A B ...), so that a machine that slows down slows both."""
    results: list[Run] = []
    for cell in cells:
        mails = cell.quick_mails if quick else cell.mails
        for number in range(runs):
            for system in systems:
                tell(f"{cell.name} run {number + 1} of {runs}: {system.name}, {mails} mails of {cell.describe()}")
                result = measure_run(system, cell, mails, work / f"{cell.name}-{number}-{system.name}")
                shutil.rmtree(work / f"{cell.name}-{number}-{system.name}", ignore_errors=True)
                tell(
                    f"  accepted {result.accept_per_s:.0f}/s, delivered {result.delivered_per_s:.0f}/s, "
                    f"{result.cpu_s_per_1k:.2f} CPU-s per thousand, {result.peak_mib:.0f} MiB"
                )
                results.append(result)
    return results
