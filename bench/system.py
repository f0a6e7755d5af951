"""What the benchmark asks of a system under test: start afresh, say where it listens, name its root process."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class StartError(Exception):
    """A system is not there or did not start; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A started system."""

    port: int
    """Loopback port of the SMTP door that relays to the sink."""
    root_pid: int
    """The process from which all others of the system descend."""
    durable: str
    """How it was checked that mail is on the disk before 250."""
    parts: dict[str, int] = field(default_factory=dict)
    """Named processes (pid by name), where the system has a few that are worth telling apart."""
    trouble: Callable[[], str] = str
    """Asked after a run: what makes it worthless, empty where nothing does."""


class System(Protocol):
    """One system under test."""

    name: str

    def prepare(self) -> None:
        """Check (or install) what it needs. Raises StartError."""

    def version(self) -> str:
        """What is measured, for the result file."""

    def running(self, work: Path, sink_port: int) -> AbstractContextManager[Running]:
        """Start it in an empty directory, all mail relayed to the sink; stop it (only it) at the end."""
