"""The projection as a table: what was known and what happened, and the rows that follow."""

import itertools

import pytest

from sternpost_activity.app import open_facts
from sternpost_activity.project import REACHABLE, Changes, Known, project
from sternpost_mail.events import Event, EventKind, OutcomeKind
from sternpost_mail.states import FINAL, State
from tests.unit.activity.build import BASE_MS, DEFERRED, DELIVERED, event, facts, mail_id, result

RETRY = result(State.DEFERRED, next_attempt_ms=BASE_MS + 60_000)
BOUNCED = result(State.BOUNCED, reply="550 5.1.1 No such user")


class Tables:
    """The rows as the store keeps them, in memory."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        self.lines: dict[tuple[str, str, int], object] = {}
        self.tags: set[tuple[str, str]] = set()

    def apply(self, *events: Event) -> Changes:
        changes = project(events, self.known, open_facts)
        for row in changes.messages:
            before = self.known.get(row.id)
            self.known[row.id] = Known(row.tenant, row.state, bool(row.door), before.recipients if before else {})
        for key, state in changes.states:
            self.known[key].state = state
        for person in changes.recipients:
            self.known[person.message_id].recipients[person.idx] = person
        for line in changes.events:
            self.lines.setdefault((line.message_id, line.event_id, line.idx), line)
        self.tags.update(changes.tags)
        return changes

    def summary(self, mail: int = 0) -> tuple[str, list[tuple[str, int, str]]]:
        known = self.known[mail_id(mail)]
        people = [known.recipients[idx] for idx in sorted(known.recipients)]
        return known.state, [(person.state, person.attempts, person.last_reply) for person in people]


@pytest.mark.parametrize(
    ("why", "events", "state", "attempts", "reply"),
    [
        ("one attempt is enough", [event("a", 1, DELIVERED)], "delivered", 1, "250 2.0.0 Ok"),
        ("a temporary failure waits", [event("a", 1, DEFERRED)], "deferred", 1, "451 4.3.0 Later"),
        (
            "a decision without a reply keeps the remote's words",
            [event("a", 1, DEFERRED), event("b", 2, RETRY, kind=EventKind.DECISION)],
            "deferred",
            1,
            "451 4.3.0 Later",
        ),
        (
            "a later attempt ends it",
            [event("a", 1, DEFERRED), event("b", 9, DELIVERED, attempt=2)],
            "delivered",
            2,
            "250 2.0.0 Ok",
        ),
        (
            "a permanent failure is bounced by the decision that follows",
            [
                event("a", 1, result(State.DEFERRED, outcome=OutcomeKind.PERMANENT, reply="550 5.1.1 No")),
                event("b", 2, BOUNCED, kind=EventKind.DECISION),
            ],
            "bounced",
            1,
            "550 5.1.1 No such user",
        ),
        (
            "a request to cancel alone changes no state",
            [event("a", 1, DEFERRED), event("b", 2, kind=EventKind.CANCEL_REQUESTED, attempt=0)],
            "deferred",
            1,
            "451 4.3.0 Later",
        ),
        (
            "held mail that was released is delivered",
            [
                event("a", 1, result(State.HELD, reply="rule"), kind=EventKind.DECISION, attempt=0),
                event("b", 2, result(State.QUEUED), kind=EventKind.DECISION, attempt=0),
                event("c", 3, DELIVERED),
            ],
            "delivered",
            1,
            "250 2.0.0 Ok",
        ),
    ],
)
def test_events_in_any_order_and_any_batches_come_to_the_same_state(
    why: str, events: list[Event], state: str, attempts: int, reply: str
) -> None:
    for order in itertools.permutations(events):
        together, apart = Tables(), Tables()
        together.apply(*order)
        for one in order:
            apart.apply(one)
        for tables in (together, apart):
            word, [(person_state, person_attempts, _)] = tables.summary()
            assert (word, person_state, person_attempts) == (state, state, attempts), why
            assert len(tables.lines) == len(events), why
        assert together.summary()[1][0][2] == reply, why


def test_a_repeated_batch_changes_no_row() -> None:
    tables = Tables()
    batch = [event("a", 1, DEFERRED, with_facts=facts("user0@example.net")), event("b", 5, RETRY, attempt=0)]
    tables.apply(*batch)
    again = tables.apply(*batch)
    assert (again.messages, again.states, again.recipients) == ([], [], [])
    assert len(tables.lines) == 2


@pytest.mark.parametrize("first", sorted(FINAL))
@pytest.mark.parametrize("second", sorted(State))
def test_a_final_state_is_never_left(first: State, second: State) -> None:
    tables = Tables()
    tables.apply(event("a", 1, result(first)))
    changes = tables.apply(event("b", 2, result(second)))
    assert tables.summary()[0] == first
    assert changes.refused == (second in FINAL and second is not first)


def test_the_pairs_that_may_be_reached_never_start_at_a_final_state_and_always_lead_to_one() -> None:
    finals = {state.value for state in FINAL}
    assert not [pair for pair in REACHABLE if pair[0] in finals and pair[1] != pair[0]]
    for state in set(State) - FINAL:
        assert {after for before, after in REACHABLE if before == state} >= finals


def test_recipients_of_whom_nothing_was_heard_are_queued_and_keep_the_mail_open() -> None:
    tables = Tables()
    tables.apply(event("a", 1, DELIVERED, with_facts=facts("user0@example.net", "user1@example.net")))
    assert tables.summary() == ("queued", [("delivered", 1, "250 2.0.0 Ok"), ("queued", 0, "")])
    tables.apply(event("b", 2, result(State.BOUNCED, recipient=1), kind=EventKind.DECISION))
    assert tables.summary()[0] == "bounced"


def test_facts_that_come_late_are_added() -> None:
    tables = Tables()
    tables.apply(event("b", 2, DELIVERED))
    changes = tables.apply(event("a", 1, DEFERRED, with_facts=facts("user0@example.net", subject="Late")))
    assert [row.subject for row in changes.messages] == ["Late"]
    assert tables.summary()[0] == "delivered"
    assert tables.apply(event("a", 1, DEFERRED, with_facts=facts("user0@example.net"))).messages == []


def test_unreadable_facts_lose_the_facts_and_nothing_else() -> None:
    tables = Tables()
    changes = tables.apply(event("a", 1, DELIVERED, with_facts=b"\xff\xff"))
    assert changes.bad_facts == 1
    assert tables.summary()[0] == "delivered"


def test_an_event_of_another_tenant_never_touches_a_mail() -> None:
    tables = Tables()
    tables.apply(event("a", 1, DEFERRED))
    changes = tables.apply(event("b", 2, DELIVERED, tenant="thief"))
    assert changes.foreign == 1
    assert (changes.recipients, changes.events, changes.states) == ([], [], [])


def test_an_attempt_in_the_same_moment_keeps_the_time_that_the_decision_told() -> None:
    for first, second in (("a", "b"), ("b", "a")):
        tables = Tables()
        tables.apply(event(first, 1, RETRY, kind=EventKind.DECISION), event(second, 1, DEFERRED))
        assert tables.known[mail_id(0)].recipients[0].next_attempt_ms == BASE_MS + 60_000
    tables.apply(event("c", 60_001, DELIVERED, attempt=2))
    assert tables.known[mail_id(0)].recipients[0].next_attempt_ms == 0


def test_nul_never_reaches_the_database() -> None:
    tables = Tables()
    changes = tables.apply(
        event(
            "a", 1, result(State.DEFERRED, reply="4\x0051", address="x\x00@y"), with_facts=facts("b", subject="a\x00b")
        )
    )
    rows = [*changes.messages, *changes.recipients, *changes.events]
    assert not [value for row in rows for value in row if isinstance(value, str) and "\x00" in value]
