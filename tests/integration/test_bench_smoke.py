"""The benchmark measures what it says: its generator, its sink and its books, with the sink itself as the system."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import profile, table
from bench.cells import CELLS, Cell, choose_cells
from bench.load import LoadError, Sink, offer, parse_count
from bench.measure import tree, tree_cpu_s, tree_pss_bytes
from bench.run import Run, measure_run
from bench.system import Running

TINY = Cell("tiny", 1024, 2, True, 40, 40)
HAS_POSTFIX_TOOLS = shutil.which("smtp-source", path="/usr/sbin:/usr/bin") is not None
needs_postfix_tools = pytest.mark.skipif(
    not HAS_POSTFIX_TOOLS, reason="smtp-source and smtp-sink are missing: apt-get install postfix"
)


class NoSystem:
    """The generator speaks to the sink directly: a system that costs nothing and loses nothing."""

    name = "nothing"

    def prepare(self) -> None:
        """Nothing is needed."""

    def version(self) -> str:
        """Nothing has a version."""
        return "nothing"

    @contextlib.contextmanager
    def running(self, work: Path, sink_port: int) -> Iterator[Running]:
        """The sink's own port, and a process that sleeps as the root."""
        with subprocess.Popen(["sleep", "60"]) as root:
            yield Running(sink_port, root.pid, "nothing is stored")
            root.terminate()


@needs_postfix_tools
def test_a_run_counts_every_mail_at_the_sink(tmp_path: Path) -> None:
    run = measure_run(NoSystem(), TINY, 40, tmp_path / "work")
    assert run.surplus == 0
    assert run.delivered_per_s > 0
    assert run.delivered_per_s <= run.accept_per_s * 1.5  # both clocks start with the generator
    assert not (tmp_path / "work").exists()


@needs_postfix_tools
def test_mail_that_never_arrives_fails_the_run_instead_of_slowing_it() -> None:
    with Sink() as sink:
        offer(sink.port, TINY, 3)
        sink.expect_from_now()
        with pytest.raises(LoadError, match="1 mails missing"):
            sink.wait_for(4, silence_s=0.1)


@needs_postfix_tools
def test_a_generator_that_is_refused_fails_the_run() -> None:
    with Sink() as sink:
        gone = sink.port
    with pytest.raises(LoadError, match="smtp-source"):
        offer(gone, TINY, 1)


def test_a_tree_contains_its_root_and_costs_something() -> None:
    assert os.getpid() in {stat.pid for stat in tree(os.getpid())}
    assert tree_cpu_s(os.getpid()) > 0
    assert tree_pss_bytes(os.getpid()) > 1024 * 1024
    assert tree(2**30) == []


@pytest.mark.parametrize(
    ("output", "count"),
    [
        (b"sess=1 quit=0 mesg=12 max=1\r", None),  # another field follows: a format we do not know
        (b"sess=2 quit=1 mesg=11\rsess=2 quit=2 mesg=12\r", 12),
        (b"sess=2 quit=1 mesg=11\rsess=2 quit=2 mesg=1", 11),  # cut in the middle of a number
        (b"", None),
    ],
)
def test_the_sinks_count_is_the_last_complete_one(output: bytes, count: int | None) -> None:
    assert parse_count(output) == count


def test_an_unknown_cell_is_named() -> None:
    with pytest.raises(ValueError, match="no cell nonsense"):
        choose_cells(["nonsense"])
    assert [cell.name for cell in choose_cells([])] == ["kept", "fresh"]


def _run(system: str, delivered: float) -> Run:
    return Run(
        system=system,
        cell=CELLS[0],
        mails=100,
        accept_per_s=delivered * 2,
        delivered_per_s=delivered,
        cpu_s_per_1k=1000 / delivered,
        peak_mib=100,
        tail_s=1,
        idle_cores=0,
        generator_cpu_s=1,
        sink_cpu_s=1,
        kernel_cpu_s=1,
        strangers_share=0.0,
        stolen_share=0.0,
        disk_flushes=100,
        surplus=0,
        trouble="",
        durable="yes",
    )


def test_ratios_are_of_medians_and_pairs_show_the_spread() -> None:
    runs = [_run("postfix", 100), _run("ours", 300), _run("postfix", 200), _run("ours", 400), _run("postfix", 150)]
    runs.append(replace(_run("ours", 450), strangers_share=0.2))
    results = table.condense(runs)
    assert [(entry.system, entry.disturbed) for entry in results] == [("postfix", 0), ("ours", 1)]
    (ratio,) = table.ratios(results)
    assert ratio["delivered_per_s"] == pytest.approx(400 / 150, abs=0.001)
    assert ratio["pairs"]["delivered_per_s"] == [2.0, 3.0]
    assert any("1 of 3 runs disturbed" in row[1] for row in table.rows(results))


def test_functions_are_counted_once_per_stack_and_without_lines() -> None:
    found = profile.count_functions("main (a.py:1);walk (b.py:2);walk (b.py:9) 3\nmain (a.py:4) 1\n")
    assert found.samples == 4
    assert found.itself == {"walk (b.py)": 3, "main (a.py)": 1}
    assert found.below == {"main (a.py)": 4, "walk (b.py)": 3}
