"""Runs into results: medians, spread and ratios, as JSON, as Markdown and as a table on the terminal.

Pure but for writing the two files; measures nothing.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.cells import Cell
from bench.run import Run

FIGURES = ("accept_per_s", "delivered_per_s", "cpu_s_per_1k", "peak_mib")
BASE = "postfix"
"""The system that ratios are taken to."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A median with the smallest and the largest run."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class CellResult:
    """One cell on one system."""

    system: str
    cell: Cell
    figures: Mapping[str, Figure]
    runs: tuple[Run, ...]

    @property
    def disturbed(self) -> int:
        """How many of the runs may not be quoted."""
        return sum(run.is_disturbed for run in self.runs)


def condense(runs: Sequence[Run]) -> list[CellResult]:
    """Runs by cell and system, in the order in which they first came."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.cell.name, run.system), []).append(run)
    return [
        CellResult(group[0].system, group[0].cell, {name: _figure(group, name) for name in FIGURES}, tuple(group))
        for group in groups.values()
    ]


def _figure(runs: Sequence[Run], name: str) -> Figure:
    values = [float(getattr(run, name)) for run in runs]
    return Figure(statistics.median(values), min(values), max(values))


def ratios(results: Sequence[CellResult]) -> list[dict[str, Any]]:
    """Each other system's medians divided by Postfix's in the same cell; empty where Postfix was not measured.

    `pairs` has, for each figure, the least and the most quotient of runs that followed each other: a machine whose
    speed drifts moves both runs of a pair, so a narrow range is a steady ratio even where the figures spread.
    """
    base = {result.cell.name: result for result in results if result.system == BASE}
    found: list[dict[str, Any]] = []
    for result in results:
        if result.system == BASE or result.cell.name not in base:
            continue
        other = base[result.cell.name]
        quotients = {name: round(result.figures[name].median / other.figures[name].median, 3) for name in FIGURES}
        pairs = {name: _pairs(result.runs, other.runs, name) for name in FIGURES}
        found.append({"cell": result.cell.name, "system": result.system, "to": BASE, **quotients, "pairs": pairs})
    return found


def _pairs(runs: Sequence[Run], others: Sequence[Run], name: str) -> list[float]:
    found = [getattr(run, name) / getattr(other, name) for run, other in zip(runs, others, strict=True)]
    return [round(min(found), 3), round(max(found), 3)]


def as_json(
    results: Sequence[CellResult],
    *,
    machine: Mapping[str, object],
    versions: Mapping[str, str],
    date: str,
    command: str,
    quick: bool,
) -> dict[str, Any]:
    """The whole result; the shape is described in bench/README.md."""
    return {
        "date": date,
        "command": command,
        "quick": quick,
        "machine": dict(machine),
        "versions": dict(versions),
        "durable_before_250": {result.system: result.runs[0].durable for result in results},
        "cells": [_cell_as_json(result) for result in results],
        "ratios": ratios(results),
    }


def _cell_as_json(result: CellResult) -> dict[str, object]:
    cell, figures = result.cell, result.figures
    return {
        "cell": cell.name,
        "system": result.system,
        "size_bytes": cell.size_bytes,
        "sessions": cell.sessions,
        "kept": cell.kept,
        "signed": False,
        **{name: round(figures[name].median, 3) for name in FIGURES},
        "spread": {name: [round(figures[name].least, 3), round(figures[name].most, 3)] for name in FIGURES},
        "disturbed_runs": result.disturbed,
        "runs": [_run_as_json(run) for run in result.runs],
    }


def _run_as_json(run: Run) -> dict[str, object]:
    shown = {name: value for name, value in asdict(run).items() if name not in ("system", "cell", "durable")}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in shown.items()}


def write(result: Mapping[str, Any], results: Sequence[CellResult], out: Path) -> None:
    """Write the JSON file and, beside it, the Markdown table."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    out.with_suffix(".md").write_text(as_markdown(result, results))


HEADINGS = ("load", "system", "accepted/s", "delivered/s", "CPU-s per 1,000", "peak MiB")


def rows(results: Sequence[CellResult]) -> list[tuple[str, ...]]:
    """The table's rows as text: `median (least to most)`, and one row of ratios under each cell that has them."""
    quotients = {(entry["cell"], entry["system"]): entry for entry in ratios(results)}
    found: list[tuple[str, ...]] = []
    for cell in dict.fromkeys(result.cell for result in results):
        members = [result for result in results if result.cell == cell]
        for result in members:
            digits = {"cpu_s_per_1k": 2}
            texts = (_text(result.figures[name], digits.get(name, 0)) for name in FIGURES)
            mark = f" ({result.disturbed} of {len(result.runs)} runs disturbed)" if result.disturbed else ""
            found.append((cell.describe(), result.system + mark, *texts))
        for result in members:
            if entry := quotients.get((cell.name, result.system)):
                times = (_times(entry, name) for name in FIGURES)
                found.append((cell.describe(), f"{result.system} / {entry['to']}", *times))
    return found


def _times(entry: Mapping[str, Any], name: str) -> str:
    least, most = entry["pairs"][name]
    return f"× {entry[name]:.2f}" + (f" ({least:.2f} to {most:.2f})" if least != most else "")


def _text(figure: Figure, digits: int) -> str:
    if figure.least == figure.most:
        return f"{figure.median:,.{digits}f}"
    return f"{figure.median:,.{digits}f} ({figure.least:,.{digits}f} to {figure.most:,.{digits}f})"


def as_markdown(result: Mapping[str, Any], results: Sequence[CellResult]) -> str:
    """The table for the README, with what it was measured on."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---|---|--:|--:|--:|--:|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(results)]
    return "\n".join([*lines, "", _conditions(result, max(len(entry.runs) for entry in results)), ""])


def _conditions(result: Mapping[str, Any], runs: int) -> str:
    """What a reader must know before quoting a figure."""
    machine = result["machine"]
    place = f"{machine['cores']} cores ({machine['cpu']}, {machine['system']}, Linux {machine['kernel']}, "
    place += f"{machine['filesystem']}, Python {machine['python']})"
    quality = "A quick look, not to be quoted. " if result["quick"] else ""
    versions = ", ".join(result["versions"].values())
    return (
        f"{quality}Medians of {runs} (least to most), durable before 250 in both, unsigned mail, generator and "
        f"sink on the same {place}. {versions}. {result['date'][:10]}, `{result['command']}`."
    )


def show(results: Sequence[CellResult], console: Console) -> None:
    """The table on the terminal."""
    table = Table(*HEADINGS)
    for column in table.columns[2:]:
        column.justify = "right"
    last = ""
    for row in rows(results):
        if last and row[0] != last:
            table.add_section()
        table.add_row(row[0] if row[0] != last else "", *row[1:])
        last = row[0]
    console.print(table)
