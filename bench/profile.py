"""Where Sternpost's CPU goes: seconds per thousand mails of each process, and the hottest functions of each Python one.

Two passes over the same load: the first undisturbed, for the split by process; the second with py-spy looking at each
Python process a hundred times a second, for the functions. Figures of the second pass are shares, not costs.
"""

import contextlib
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bench.cells import Cell
from bench.measure import TICK_S, own_cpu_s, read_stat
from bench.run import Run, measure_run
from bench.sternpost import Sternpost
from bench.system import StartError

SAMPLES_PER_S = 100
TOP = 20
"""Functions shown per process."""
FRAME_OF_ALL = 0.99
"""Functions that were on the stack nearly always (the main module, the event loop) say nothing and are not listed."""
NOTES = """\
The shares under each process are samples of py-spy, not CPU: a thread that waits for the disk counts as well, and a
process with two threads has two stacks per look. `Runner.run` itself is the event loop in C: waking up, reading
sockets, running callbacks.
"""
PROCESS_SHARE = 0.02
"""Processes below this share of the CPU get no list of functions."""


@dataclass(frozen=True, slots=True)
class Used:
    """CPU seconds of one process."""

    total: float
    system: float
    """The part spent in the kernel: sockets, files, waking up."""


def run(cells: Iterable[Cell], *, quick: bool, work: Path, out: Path, tell: Callable[[str], None]) -> None:
    """Profile each cell and write one Markdown file. Raises StartError or LoadError."""
    system = Sternpost()
    system.prepare()
    spy = find_spy()
    if spy is None:
        tell("py-spy is not here (uv tool install py-spy): the profile stops at the split by process")
    parts = [f"# Where the CPU goes\n\n{system.version()}, `python -m bench --profile`.\n", NOTES]
    for cell in cells:
        mails = cell.quick_mails if quick else cell.mails
        tell(f"{cell.describe()}: {mails:,} mails, split by process")
        result, split = split_by_process(system, cell, mails, work / "split")
        tell("  " + result.summary())
        parts.append(describe_split(cell, result, split))
        if spy is not None:
            tell(f"{cell.describe()}: {mails:,} mails under py-spy")
            parts.append(describe_functions(record(system, spy, cell, mails, work), split))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(parts))


def split_by_process(system: Sternpost, cell: Cell, mails: int, work: Path) -> tuple[Run, dict[str, Used]]:
    """One undisturbed run with what each process used in it."""
    before: dict[str, Used] = {}
    split: dict[str, Used] = {}

    def watch(moment: str, parts: dict[str, int], root: int) -> None:
        for name, pid in ({"supervisor": root} | parts).items():
            used = _used(pid)
            if moment == "start":
                before[name] = used
            else:
                split[name] = Used(used.total - before[name].total, used.system - before[name].system)

    return measure_run(system, cell, mails, work, watch), split


def _used(pid: int) -> Used:
    stat = read_stat(pid)
    if stat is None:
        raise StartError(f"process {pid} ended while it was profiled")
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Used(own_cpu_s(stat), int(fields[12]) * TICK_S)


def find_spy() -> str | None:
    """The path of py-spy: on the PATH, or fetched by uv into its cache; None where neither is possible."""
    if found := shutil.which("py-spy"):
        return found
    ask = [
        "uv",
        "tool",
        "run",
        "--from",
        "py-spy",
        "python",
        "-c",
        "import shutil; print(shutil.which('py-spy') or '')",
    ]
    with contextlib.suppress(OSError):
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    return None


def record(system: Sternpost, spy: str, cell: Cell, mails: int, work: Path) -> dict[str, Path]:
    """A run under py-spy; gives the file of collapsed stacks of each Python process."""
    folder = work / "stacks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    spies: list[subprocess.Popen[bytes]] = []
    files: dict[str, Path] = {}

    def watch(moment: str, parts: dict[str, int], _root: int) -> None:
        if moment == "start":
            for name, pid in parts.items():
                if "python" not in Path(f"/proc/{pid}/exe").resolve().name:
                    continue  # the broker: Go, its cost is in the split
                files[name] = folder / f"{name}.txt"
                command = [spy, "record", "--pid", str(pid), "--rate", str(SAMPLES_PER_S), "--format", "raw"]
                command += ["--output", str(files[name])]
                spies.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        else:
            for spy_process in spies:
                spy_process.send_signal(signal.SIGINT)  # it writes its file on Ctrl-C
            for spy_process in spies:
                spy_process.wait(60)

    measure_run(system, cell, mails, work / "functions", watch)
    return {name: path for name, path in files.items() if path.exists()}


@dataclass(frozen=True, slots=True)
class Functions:
    """How often functions were seen, in samples."""

    samples: int
    itself: Counter[str]
    """On top of the stack: the function itself, and what C code it called."""
    below: Counter[str]
    """Anywhere on the stack: the function and all that it called."""


def count_functions(stacks: str) -> Functions:
    """Collapsed stacks (`outer (file:line);inner (file:line) count` per line) into counts per function."""
    itself: Counter[str] = Counter()
    below: Counter[str] = Counter()
    samples = 0
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        if not count.isdigit():
            continue
        frames = [_function(frame) for frame in stack.split(";")]
        samples += int(count)
        itself[frames[-1]] += int(count)
        for frame in set(frames):
            below[frame] += int(count)
    return Functions(samples, itself, below)


def _function(frame: str) -> str:
    """`name (file)` without the line, so that a function counts once."""
    name, _, place = frame.partition(" (")
    if not name.strip():
        return "unknown"
    return f"{name} ({place.rstrip(')').rpartition(':')[0] or place.rstrip(')')})"


def describe_split(cell: Cell, run: Run, split: dict[str, Used]) -> str:
    """The first pass as a Markdown section."""
    per_thousand = 1000 / run.mails
    whole = sum(used.total for used in split.values())
    lines = [f"## {cell.describe()}\n", run.summary() + ".\n"]
    lines += ["| process | CPU-s per 1,000 | of which kernel | share |", "|---|--:|--:|--:|"]
    for name, used in sorted(split.items(), key=lambda item: -item[1].total):
        share = used.total / whole if whole else 0.0
        lines.append(f"| {name} | {used.total * per_thousand:.3f} | {used.system * per_thousand:.3f} | {share:.0%} |")
    lines.append(
        f"| all | {whole * per_thousand:.3f} | {sum(u.system for u in split.values()) * per_thousand:.3f} | |\n"
    )
    return "\n".join(lines)


def describe_functions(files: dict[str, Path], split: dict[str, Used]) -> str:
    """The second pass as Markdown: per process the functions by own time, and by time with all they call."""
    whole = sum(used.total for used in split.values()) or 1.0
    lines: list[str] = []
    for name, path in sorted(files.items(), key=lambda item: -split[item[0]].total):
        found = count_functions(path.read_text(errors="replace"))
        if split[name].total / whole < PROCESS_SHARE or not found.samples:
            continue
        lines += [f"### {name}: {found.samples:,} samples\n"]
        for title, counts in (("itself (and C code it calls)", found.itself), ("with all it calls", found.below)):
            lines += [f"| share | {title} |", "|--:|---|"]
            told = [(name, count / found.samples) for name, count in counts.most_common()]
            told = [(function, share) for function, share in told if share < FRAME_OF_ALL][:TOP]
            lines += [f"| {share:.1%} | `{function}` |" for function, share in told]
            lines.append("")
    return "\n".join(lines)
