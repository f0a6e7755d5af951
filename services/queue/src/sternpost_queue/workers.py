"""Which delivery workers live, what room they have, and whom to ask next. Pure; time is given in monotonic seconds."""

from dataclasses import dataclass, field

from sternpost_mail.dispatch import Beat

SILENT_AFTER = 10.0
"""A worker not heard for this long (five beats) is given no more sessions."""
LEASE = 15.0
"""How long a worker may go on without hearing from the queue that gave it the jobs."""
LOST_AFTER = SILENT_AFTER + LEASE
"""When a silent worker's lease has surely ended too: its jobs may be looked up in EVENTS and tried by another."""
WORKER_OCTETS = 32 * 1024 * 1024
"""Content in flight to one worker; the broker drops a client that has 64 MiB waiting."""


@dataclass(slots=True)
class Worker:
    """One worker as its beats tell."""

    id: str
    capacity: int
    heard: float
    sessions: set[str] = field(default_factory=set)
    """Sessions that we gave it and that have not ended."""
    octets: int = 0
    others: int = 0
    """Sessions that other queue instances gave it, as of its last beat."""

    def has_room(self) -> bool:
        """Whether another session fits."""
        return len(self.sessions) + self.others < self.capacity and self.octets < WORKER_OCTETS


class Workers:
    """All workers that are heard."""

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def hear(self, beat: Beat, now: float) -> bool:
        """A beat came; returns whether the worker is new."""
        worker = self._workers.get(beat.worker)
        if worker is None:
            worker = self._workers[beat.worker] = Worker(beat.worker, beat.capacity, now)
            worker.others = len(beat.sessions)
            return True
        worker.heard = now
        worker.capacity = beat.capacity
        worker.others = sum(1 for session in beat.sessions if session not in worker.sessions)
        return False

    def choose(self, last: str, now: float) -> Worker | None:
        """The worker that served the site last where it has room, else the one with the fewest sessions."""
        worker = self._workers.get(last)
        if worker is not None and worker.has_room() and now - worker.heard < SILENT_AFTER:
            return worker
        able = [w for w in self._workers.values() if w.has_room() and now - w.heard < SILENT_AFTER]
        return min(able, key=lambda w: len(w.sessions) + w.others, default=None)

    def get(self, identifier: str) -> Worker | None:
        """The worker of this id."""
        return self._workers.get(identifier)

    def mark_busy(self, worker: Worker) -> None:
        """It refused a session: no room until its next beat tells."""
        worker.others = max(worker.capacity - len(worker.sessions), 0)

    def lost(self, now: float) -> list[Worker]:
        """Workers whose jobs nobody holds any more. They are forgotten."""
        gone = [w for w in self._workers.values() if now - w.heard > (LOST_AFTER if w.sessions else SILENT_AFTER)]
        for worker in gone:
            del self._workers[worker.id]
        return gone
