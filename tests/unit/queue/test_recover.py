"""What a record that came a second time may still do, for each history that EVENTS can tell."""

from dataclasses import dataclass

import pytest

from sternpost_mail.events import Event, EventKind, OutcomeKind, Result
from sternpost_mail.states import FINAL, State
from sternpost_queue.recover import remember
from tests.unit.queue.build import NOW


@dataclass(frozen=True)
class Told:
    """One result of one event."""

    kind: EventKind
    state: State
    outcome: OutcomeKind = OutcomeKind.NONE
    attempt: int = 1
    at: int = 0
    next_ms: int = 0
    recipient: int = 0
    mail: str = "m1"

    def event(self) -> Event:
        result = Result(self.recipient, "b@there.example", self.state, self.outcome, "550 no", self.next_ms)
        at = NOW + self.at
        return Event(f"e{self.at}", self.kind, at, self.mail, "r1", "t", "a@s.example", NOW, 9, (result,), self.attempt)


ATTEMPT, DECISION = EventKind.ATTEMPT, EventKind.DECISION
TEMPORARY = Told(ATTEMPT, State.DEFERRED, OutcomeKind.TEMPORARY)
UNREACHED = Told(ATTEMPT, State.DEFERRED, OutcomeKind.UNREACHED)
PERMANENT = Told(ATTEMPT, State.DEFERRED, OutcomeKind.PERMANENT)
DELIVERED = Told(ATTEMPT, State.DELIVERED, OutcomeKind.DELIVERED)
DEFERRED = Told(DECISION, State.DEFERRED, at=1, next_ms=NOW + 300_000)
STORED = NOW + 10
"""When the record in hand was stored, where it is the spool record."""
DUE = NOW + 300_000
"""When the record in hand was stored, where it is the one that DEFERRED speaks of."""

HISTORIES = [
    # told, attempts that the record counts, stored, finished, refused, attempted, why
    ((), 0, STORED, False, False, False, "nothing was told: all is open"),
    ((DELIVERED,), 0, STORED, True, False, False, "delivered"),
    ((DELIVERED,), 1, DUE, True, False, False, "delivered by an attempt that the record counts is delivered still"),
    ((TEMPORARY,), 0, STORED, False, False, True, "failed for now, and nobody knows whether its retry was stored"),
    ((UNREACHED,), 0, STORED, False, False, True, "unreached as well"),
    ((TEMPORARY, DEFERRED), 0, STORED, True, False, False, "its retry waits in another record"),
    ((TEMPORARY, DEFERRED), 1, DUE, False, False, False, "this is the record that waited"),
    ((PERMANENT,), 0, STORED, False, True, False, "refused for good, the report is still to be written"),
    ((PERMANENT,), 1, DUE, False, False, False, "a refusal that the record counts was somebody else's past"),
    ((PERMANENT, Told(DECISION, State.BOUNCED, at=1)), 0, STORED, True, False, False, "bounced and told"),
    ((Told(DECISION, State.EXPIRED),), 0, STORED, True, False, False, "expired and told"),
    ((Told(DECISION, State.CANCELLED),), 0, STORED, True, False, False, "cancelled and told"),
    ((Told(DECISION, State.HELD, at=50),), 0, STORED, True, False, False, "set aside: HELD has it"),
    ((Told(DECISION, State.HELD, at=50),), 0, NOW + 90_000, False, False, False, "released: this is the held record"),
    (
        (Told(DECISION, State.SCHEDULED, attempt=0, at=1, next_ms=NOW + 60_000),),
        0,
        STORED,
        True,
        False,
        False,
        "scheduled: another record waits for its moment, though no attempt tells them apart",
    ),
    (
        (Told(DECISION, State.SCHEDULED, attempt=0, at=1, next_ms=NOW + 60_000),),
        0,
        NOW + 60_000,
        False,
        False,
        False,
        "scheduled: this is the record that waited",
    ),
    (
        (Told(DECISION, State.QUEUED, attempt=0, at=1, next_ms=NOW + 15_000),),
        0,
        STORED,
        True,
        False,
        False,
        "parked for others' sake: another record waits",
    ),
    (
        (TEMPORARY, DEFERRED, Told(DECISION, State.DEFERRED, at=400_000, next_ms=NOW + 420_000)),
        1,
        DUE,
        True,
        False,
        False,
        "parked after a first attempt: a later record waits",
    ),
    (
        (TEMPORARY, DEFERRED, Told(ATTEMPT, State.DEFERRED, OutcomeKind.TEMPORARY, attempt=2, at=300_100)),
        1,
        DUE,
        False,
        False,
        True,
        "the second attempt failed for now, its retry is in doubt",
    ),
    (
        (TEMPORARY, DEFERRED, Told(ATTEMPT, State.DELIVERED, OutcomeKind.DELIVERED, attempt=2, at=300_100)),
        0,
        STORED,
        True,
        False,
        False,
        "delivered by the retry",
    ),
    ((Told(EventKind.CANCEL_REQUESTED, State.QUEUED, attempt=0),), 0, STORED, False, False, False, "asked is not done"),
    ((Told(ATTEMPT, State.DELIVERED, mail="m2"),), 0, STORED, False, False, False, "another mail's end"),
    ((Told(ATTEMPT, State.DELIVERED, recipient=1),), 0, STORED, False, False, False, "another recipient's end"),
]


@pytest.mark.parametrize(("told", "attempts", "stored", "finished", "refused", "attempted", "why"), HISTORIES)
def test_what_a_history_leaves_open(
    told: tuple[Told, ...], attempts: int, stored: int, finished: bool, refused: bool, attempted: bool, why: str
) -> None:
    known = remember([one.event() for one in told], {"m1": attempts}, stored)["m1"]
    assert (0 in known.finished, 0 in known.refused, 0 in known.attempted) == (finished, refused, attempted), why


@pytest.mark.parametrize(("told", "attempts", "stored", "finished", "refused", "attempted", "why"), HISTORIES)
def test_the_order_in_which_events_were_stored_does_not_matter(
    told: tuple[Told, ...], attempts: int, stored: int, finished: bool, refused: bool, attempted: bool, why: str
) -> None:
    known = remember([one.event() for one in reversed(told)], {"m1": attempts}, stored)["m1"]
    assert (0 in known.finished, 0 in known.refused, 0 in known.attempted) == (finished, refused, attempted), why


@pytest.mark.parametrize("state", sorted(FINAL))
def test_every_final_state_ends_a_recipient_whoever_told_it(state: State) -> None:
    for kind in (ATTEMPT, DECISION):
        assert remember([Told(kind, state, attempt=0).event()], {"m1": 5}, DUE)["m1"].finished == {0}


def test_jobs_in_memory_have_no_other_record_that_could_wait() -> None:
    past = Told(DECISION, State.SCHEDULED, attempt=0, at=1, next_ms=NOW + 60_000)
    assert remember([past.event()], {"m1": 0})["m1"].finished == set()


def test_each_mail_is_judged_by_its_own_attempts() -> None:
    events = [DEFERRED.event(), Told(DECISION, State.DEFERRED, at=1, next_ms=NOW, mail="m2").event()]
    known = remember(events, {"m1": 0, "m2": 1})
    assert (known["m1"].finished, known["m2"].finished) == ({0}, set())
