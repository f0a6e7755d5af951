"""What is measured: the cells of the benchmark as data. Knows nothing of systems or of how to measure."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of load. Both systems get exactly the same one."""

    name: str
    size_bytes: int
    """Payload of each mail in octets; the generator's headers (about 140 octets) come on top."""
    sessions: int
    """SMTP sessions that the generator keeps open at once."""
    kept: bool
    """Whether a connection carries one mail after another, or is closed after each mail."""
    mails: int
    """Mails per full run: enough for some ten seconds of Postfix, so that start and end effects stay below 1 %."""
    quick_mails: int
    """Mails per run with --quick: to see that all works, not to quote."""
    is_default: bool = False

    def describe(self) -> str:
        """The cell in words, as tables show it."""
        manner = "kept connections" if self.kept else "one mail per connection"
        plural = "session" if self.sessions == 1 else "sessions"
        return f"{self.size_bytes // 1024} KiB, {self.sessions} {plural}, {manner}"


CELLS = (
    Cell("kept", 10_240, 20, True, 10_000, 1_500, is_default=True),
    Cell("fresh", 10_240, 20, False, 6_000, 1_000, is_default=True),
    Cell("wide", 10_240, 100, True, 10_000, 1_500),
    Cell("large", 102_400, 20, True, 3_000, 500),
    Cell("single", 10_240, 1, True, 2_000, 300),
)


def choose_cells(names: Iterable[str]) -> tuple[Cell, ...]:
    """The cells of these names, in the order of the table; no names: the default ones; `all`: all.

    Raises ValueError for a name that does not exist.
    """
    wanted = set(names)
    if not wanted:
        return tuple(cell for cell in CELLS if cell.is_default)
    if "all" in wanted:
        return CELLS
    unknown = wanted - {cell.name for cell in CELLS}
    if unknown:
        raise ValueError(f"no cell {', '.join(sorted(unknown))}; there are {', '.join(c.name for c in CELLS)}, all")
    return tuple(cell for cell in CELLS if cell.name in wanted)
