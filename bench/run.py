"""One measured run of one cell on one system, and the order of all runs. Knows no particular system."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
STRANGERS_LIMIT = 0.05
"""A run in which others (processes, the host) took more of the machine than this is marked as disturbed."""
QUIET_SHARE = 0.1
"""The machine counts as quiet below this share of its cores; each run waits for that, as long as patience allows."""
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
    kernel_cpu_s: float
    """CPU of kernel threads and interrupts (disk, network) as far as it is nobody's, plus this benchmark's own."""
    strangers_share: float
    """Part of the machine's capacity that processes took that are neither the system's nor the benchmark's.

    It is the check on all other counts: on a quiet machine near 0, else CPU was counted twice (below) or lost (above).
    """
    stolen_share: float
    """Part of the machine's capacity that the host withheld (virtual machines only)."""
    disk_flushes: int | None
    surplus: int
    """Mails that the sink got more than once."""
    trouble: str
    """What makes this run worthless, empty where nothing does."""
    durable: str

    @property
    def is_disturbed(self) -> bool:
        """Whether something else used the machine so much that the figures may not be quoted."""
        return self.strangers_share + self.stolen_share > STRANGERS_LIMIT or bool(self.trouble)

    def summary(self) -> str:
        """The run in one line."""
        text = (
            f"accepted {self.accept_per_s:,.0f}/s, delivered {self.delivered_per_s:,.0f}/s, "
            f"{self.cpu_s_per_1k:.2f} CPU-s per thousand, {self.peak_mib:.0f} MiB"
        )
        if self.surplus:
            text += f", {self.surplus} delivered twice"
        if self.strangers_share + self.stolen_share > STRANGERS_LIMIT:
            text += f", disturbed: others took {self.strangers_share + self.stolen_share:.0%} of the machine"
        return text + (f", trouble: {self.trouble}" if self.trouble else "")


Watch = Callable[[str, dict[str, int], int], None]
"""Called with `start` and `end` of the measured part, the system's named parts and its root pid."""


def measure_run(system: System, cell: Cell, mails: int, work: Path, watch: Watch | None = None) -> Run:
    """Start the system in an empty directory, warm it up, measure one cell, stop it.

    Raises StartError or LoadError.
    """
    with _emptied(work), Sink() as sink, system.running(work, sink.port) as running:
        root = running.root_pid
        _send(sink, running.port, cell, WARM_UP_MAILS)
        measure.wait_until_quiet(root, WARM_IDLE_CORES, longest_s=LONGEST_TAIL_S)
        idle_cores = _idle_cores(root)
        if watch:
            watch("start", running.parts, root)
        cpu, machine, flushes = measure.tree_cpu_s(root), measure.machine_cpu_s(), measure.disk_flushes(work)
        stolen = measure.stolen_cpu_s()
        kernel, own, sink_cpu = measure.kernel_threads_cpu_s(), time.process_time(), sink.cpu_s()
        with measure.MemorySampler(root) as memory:
            offered, arrived = _send(sink, running.port, cell, mails)
            tail = measure.wait_until_quiet(root, idle_cores, longest_s=LONGEST_TAIL_S)
        used = measure.tree_cpu_s(root) - cpu
        busy, sink_used = measure.machine_cpu_s() - machine, sink.cpu_s() - sink_cpu
        ours = measure.kernel_threads_cpu_s() - kernel + time.process_time() - own
        capacity = (time.monotonic() - offered.started) * len(os.sched_getaffinity(0))
        flushed = measure.disk_flushes(work)
        if watch:
            watch("end", running.parts, root)
        surplus, trouble = sink.count - WARM_UP_MAILS - mails, running.trouble()
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
        kernel_cpu_s=ours,
        strangers_share=(busy - used - offered.cpu_s - sink_used - ours) / capacity,
        stolen_share=(measure.stolen_cpu_s() - stolen) / capacity,
        disk_flushes=None if flushes is None or flushed is None else flushed - flushes,
        surplus=surplus,
        trouble=trouble,
        durable=running.durable,
    )


@contextlib.contextmanager
def _emptied(work: Path) -> Iterator[None]:
    """An empty directory that is gone afterwards; after a failure it stays, with the logs in it."""
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    yield
    shutil.rmtree(work)


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
    systems: Sequence[System],
    cells: Iterable[Cell],
    *,
    runs: int,
    quick: bool,
    work: Path,
    patience_s: float,
    tell: Callable[[str], None],
) -> list[Run]:
    """All runs: for each cell the systems in turn (A B A B ...), so that a machine that slows down slows both.

    Raises StartError or LoadError at the first run that fails: a table with holes would be read as if it had none.
    """
    results: list[Run] = []
    for cell in cells:
        mails = cell.quick_mails if quick else cell.mails
        for number in range(runs):
            for system in systems:
                if patience_s > 0:
                    measure.wait_for_machine(QUIET_SHARE, longest_s=patience_s)
                tell(f"{cell.describe()}: {system.name}, {mails:,} mails, run {number + 1} of {runs}")
                result = measure_run(system, cell, mails, work / f"{cell.name}-{system.name}")
                tell("  " + result.summary())
                results.append(result)
    return results
