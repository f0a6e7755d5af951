"""`python -m bench`: the command line of the benchmark. Chooses systems and cells, runs, writes, prints."""

import argparse
import shlex
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench import measure, profile, table
from bench.cells import CELLS, choose_cells
from bench.load import LoadError, find_tool
from bench.postfix import Postfix
from bench.run import measure_all
from bench.sternpost import Sternpost
from bench.system import StartError, System

RESULTS = Path(__file__).parent / "results"
SYSTEMS: dict[str, type[Postfix] | type[Sternpost]] = {"sternpost": Sternpost, "postfix": Postfix}
MEMORY_FILE_SYSTEMS = {"tmpfs", "ramfs"}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Sternpost beside Postfix: same load, same sink."
    )
    cells = ", ".join(f"{cell.name} ({cell.describe()})" for cell in CELLS)
    parser.add_argument("--quick", action="store_true", help="few mails, one run: does it work?")
    parser.add_argument("--systems", default="sternpost,postfix", help="which, in which order (default: %(default)s)")
    parser.add_argument("--cells", default="", help=f"default: kept,fresh; all, or of: {cells}")
    parser.add_argument("--runs", type=int, default=0, help="runs of each cell and system (default 3, with --quick 1)")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "latest.json", help="default: %(default)s, and .md beside it"
    )
    parser.add_argument(
        "--work", type=Path, help="directory for queues and logs, on the disk to be measured (default: /var/tmp)"
    )
    parser.add_argument(
        "--patience", type=float, default=30.0, help="seconds to wait for a quiet machine before each run"
    )
    parser.add_argument("--profile", action="store_true", help="where Sternpost's CPU goes, into results/profile.md")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.systems.split(",") if name not in SYSTEMS]
    if unknown:
        parser.error(f"no system {', '.join(unknown)}; there are {', '.join(SYSTEMS)}")
    try:
        options.cells = choose_cells(name for name in options.cells.split(",") if name)
    except ValueError as error:
        parser.error(str(error))
    options.runs = options.runs or (1 if options.quick else 3)
    return options


def main(arguments: list[str]) -> int:
    """Run the benchmark; 0, or 1 with a reason on stderr."""
    options = parse(arguments)
    console, errors = Console(), Console(stderr=True)
    work = options.work or Path(tempfile.mkdtemp(prefix="sternpost-bench-", dir="/var/tmp"))
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)  # Postfix's processes run as another user and must reach their queue
    try:
        if measure.filesystem_of(work) in MEMORY_FILE_SYSTEMS:
            raise StartError(f"{work} is in memory, where fsync costs nothing: give a directory on a disk with --work")
        if options.profile:
            where = options.out.parent / "profile.md"
            profile.run(options.cells, quick=options.quick, work=work, out=where, tell=console.print)
            console.print(f"{where}")
        else:
            _compare(options, work, console)
    except (StartError, LoadError) as error:
        errors.print(f"bench: {error}", markup=False, highlight=False, soft_wrap=True)
        errors.print(f"bench: logs are in {work}", markup=False, highlight=False, soft_wrap=True)
        return 1
    if options.work is None:
        shutil.rmtree(work, ignore_errors=True)
    return 0


def _compare(options: argparse.Namespace, work: Path, console: Console) -> None:
    systems: list[System] = [SYSTEMS[name]() for name in options.systems.split(",")]
    for system in systems:
        system.prepare()
    find_tool("smtp-source")
    find_tool("smtp-sink")
    began = datetime.now(UTC)
    runs = measure_all(
        systems,
        options.cells,
        runs=options.runs,
        quick=options.quick,
        work=work,
        patience_s=options.patience,
        tell=lambda text: console.print(text, highlight=False, soft_wrap=True),
    )
    results = table.condense(runs)
    found = table.as_json(
        results,
        machine=measure.describe_machine() | {"filesystem": measure.filesystem_of(work)},
        versions={system.name: system.version() for system in systems},
        date=began.isoformat(timespec="seconds"),
        command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        quick=options.quick,
    )
    table.write(found, results, options.out)
    table.show(results, console)
    console.print(f"{options.out}, {options.out.with_suffix('.md')}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
