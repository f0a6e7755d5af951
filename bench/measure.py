"""What a tree of processes costs, read from /proc: CPU seconds, memory, and what the rest of the machine did meanwhile.

The method is the same for both systems and needs no privilege beyond reading their /proc files. A system under test is
one root process (Postfix's master, Sternpost's supervisor) and whatever descends from it:

    CPU = for each live process of the tree: its own time, plus the time of its children that ended and were waited for

Both roots wait for their children, so what an ended process used moves into its parent's cutime/cstime and is not lost.
"""

import contextlib
import os
import platform
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
MIB = 1024 * 1024
KTHREADD = 2
"""The parent of all kernel threads."""
SAMPLE_EVERY_S = 0.2
"""How often memory is read. One sample of a tree of 70 processes costs about 3 ms of our own CPU."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One process as /proc/<pid>/stat shows it. Times in seconds."""

    pid: int
    parent: int
    name: str
    own_s: float
    ended_children_s: float
    threads: int
    start_ticks: int


def read_stat(pid: int) -> ProcessStat | None:
    """One process, None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    own, ended = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
    return ProcessStat(
        pid, int(fields[1]), name, own * TICK_S, ended * TICK_S, int(fields[17]), start_ticks=int(fields[19])
    )


def read_all() -> dict[int, ProcessStat]:
    """Every process of the machine, by pid."""
    found = (read_stat(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return {stat.pid: stat for stat in found if stat is not None}


def tree(root: int, processes: dict[int, ProcessStat] | None = None) -> list[ProcessStat]:
    """The root and all its living descendants; empty where the root is gone."""
    processes = read_all() if processes is None else processes
    children: dict[int, list[ProcessStat]] = {}
    for stat in processes.values():
        children.setdefault(stat.parent, []).append(stat)
    found: list[ProcessStat] = []
    waiting = [processes[root]] if root in processes else []
    while waiting:
        stat = waiting.pop()
        found.append(stat)
        waiting.extend(children.get(stat.pid, ()))
    return found


def own_cpu_s(stat: ProcessStat) -> float:
    """CPU seconds of one live process.

    /proc/<pid>/stat rounds down to 10 ms, which for Postfix's many short processes would be 1 to 2 % in its favour; the
    scheduler's own count is in nanoseconds. It is per thread and forgets ended threads, hence the larger of the two.
    """
    nanoseconds = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        if stat.threads == 1:
            nanoseconds = int(Path(f"/proc/{stat.pid}/schedstat").read_text().split()[0])
        else:
            for task in os.listdir(f"/proc/{stat.pid}/task"):
                nanoseconds += int(Path(f"/proc/{stat.pid}/task/{task}/schedstat").read_text().split()[0])
    return max(stat.own_s, nanoseconds / 1e9)


def tree_cpu_s(root: int) -> float:
    """CPU seconds (user and system) that the root and all its descendants, ended ones included, have used so far."""
    return sum(own_cpu_s(stat) + stat.ended_children_s for stat in tree(root))


def tree_pss_bytes(root: int) -> int:
    """Memory of the tree as proportional set size: a page that ten processes share counts once, a tenth to each.

    (Resident set size would count it ten times, which would flatter neither system but insult Postfix the most.)
    """
    total = 0
    for stat in tree(root):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{stat.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def machine_cpu_s() -> float:
    """CPU seconds the whole machine has been busy since boot: not idle, not waiting for the disk, not stolen."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = fields
    return (user + nice + system + irq + softirq) * TICK_S


def stolen_cpu_s() -> float:
    """CPU seconds since boot that this virtual machine wanted and its host gave to others."""
    return int(Path("/proc/stat").read_text().split(None, 9)[8]) * TICK_S


def kernel_threads_cpu_s() -> float:
    """CPU seconds of the kernel's own threads (writing the disk's journal, mostly): nobody's in particular."""
    return sum(stat.own_s for stat in read_all().values() if KTHREADD in (stat.pid, stat.parent))


def wait_for_machine(share: float, *, longest_s: float) -> float:
    """Wait until the whole machine uses no more than this share of its cores for a second; gives the last share."""
    deadline = time.monotonic() + longest_s
    while True:
        before, since = machine_cpu_s(), time.monotonic()
        time.sleep(1.0)
        used = (machine_cpu_s() - before) / (time.monotonic() - since) / len(os.sched_getaffinity(0))
        if used <= share or time.monotonic() >= deadline:
            return used


def disk_flushes(path: Path) -> int | None:
    """How often the disk under this path was told to flush its cache, since boot; None where the kernel does not tell.

    Evidence that data went to stable storage: a system that claims fsync and shows no flushes did not do it.
    """
    device = os.stat(path).st_dev
    try:
        fields = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
    except OSError:
        return None
    return int(fields[15]) if len(fields) > 15 else None


@dataclass(slots=True)
class MemorySampler:
    """Reads the tree's memory every 0.2 s in a thread and keeps the largest sum. A context manager."""

    root: int
    peak_bytes: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "MemorySampler":
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, tree_pss_bytes(self.root))
            if self._stop.wait(SAMPLE_EVERY_S):
                return


def wait_until_quiet(root: int, idle_share: float, *, longest_s: float) -> float:
    """Wait until the tree has done its work after the last delivery (removing files, writing events and indexes).

    Quiet is: over one second it used no more than its idle share (of one core) and 2 % on top. Gives the seconds
    waited, the quiet second included; at most `longest_s`.
    """
    started = time.monotonic()
    before = tree_cpu_s(root)
    while True:
        since = time.monotonic()
        time.sleep(1.0)
        now = tree_cpu_s(root)
        share = (now - before) / (time.monotonic() - since)
        before = now
        waited = time.monotonic() - started
        if share <= idle_share + 0.02 or waited >= longest_s:
            return waited


def describe_machine() -> dict[str, object]:
    """The machine in the words a reader of the result needs."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "memory_gib": round(memory_kib / 1024 / 1024, 1),
        "kernel": platform.release(),
        "system": _os_name(),
        "python": platform.python_version(),
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def filesystem_of(path: Path) -> str:
    """The type of the file system that holds the path, such as `ext4`."""
    best, kind = "", "unknown"
    resolved = str(path.resolve())
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, fstype = line.split()[:3]
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fstype
    return kind
