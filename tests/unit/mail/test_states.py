"""The one table of states: final ones are never left, and the page that people read is the table."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_mail.states import FINAL, MEANING, TRANSITIONS, State, may_follow, render_markdown, summarize

OPEN = frozenset(State) - FINAL
STATES = st.sampled_from(list(State))


def test_seven_states_are_final_and_the_rest_is_open() -> None:
    assert sorted(FINAL) == [
        "bounced",
        "cancelled",
        "captured",
        "delivered",
        "discarded",
        "expired",
        "suppressed",
    ]
    assert sorted(OPEN) == ["deferred", "held", "queued", "scheduled"]


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_state_is_never_left(state: State) -> None:
    assert [after for after in State if may_follow(state, after)] == [state]


@pytest.mark.parametrize("state", sorted(OPEN))
def test_every_open_state_can_end(state: State) -> None:
    reached, todo = set[State](), [state]
    while todo:
        step = todo.pop()
        if step not in reached:
            reached.add(step)
            todo += TRANSITIONS[step]
    assert FINAL & reached
    assert State.CANCELLED in TRANSITIONS[state], "its owner may always take it back"
    assert State.EXPIRED in TRANSITIONS[state], "time ends everything"


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        (State.QUEUED, State.SCHEDULED, True),
        (State.QUEUED, State.DELIVERED, True),
        (State.SCHEDULED, State.QUEUED, True),
        (State.DEFERRED, State.SCHEDULED, False),
        (State.DEFERRED, State.BOUNCED, True),
        (State.HELD, State.QUEUED, True),
        (State.HELD, State.DELIVERED, False),
        (State.HELD, State.BOUNCED, False),
        (State.DEFERRED, State.DEFERRED, True),
        (State.DELIVERED, State.BOUNCED, False),
        (State.BOUNCED, State.DELIVERED, False),
    ],
)
def test_single_steps(before: State, after: State, allowed: bool) -> None:
    assert may_follow(before, after) is allowed


@given(st.lists(STATES, min_size=1))
def test_a_summary_is_final_exactly_when_every_recipient_is(states: list[State]) -> None:
    word = summarize(states)
    assert word in states
    assert (word in FINAL) == all(state in FINAL for state in states)
    assert summarize(states[::-1]) == word


@pytest.mark.parametrize(
    ("states", "expected", "why"),
    [
        ([State.DELIVERED], State.DELIVERED, "one"),
        ([State.DELIVERED, State.BOUNCED], State.BOUNCED, "the worst news of the finished"),
        ([State.DELIVERED, State.QUEUED], State.QUEUED, "not done yet"),
        ([State.BOUNCED, State.DEFERRED, State.QUEUED], State.DEFERRED, "the one in trouble"),
        ([State.HELD, State.DEFERRED], State.HELD, "what waits for a person"),
        ([State.BOUNCED, State.EXPIRED], State.BOUNCED, "refused before late"),
    ],
)
def test_summaries(states: list[State], expected: State, why: str) -> None:
    assert summarize(states) is expected, why


def test_a_mail_without_recipients_has_no_state() -> None:
    with pytest.raises(ValueError, match="without recipients"):
        summarize([])


def test_every_state_has_a_meaning_and_its_transitions() -> None:
    assert set(MEANING) == set(TRANSITIONS) == set(State)


def test_the_page_is_the_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "states.md"
    assert page.read_text() == render_markdown(), "run: python -m sternpost_mail.states > docs/states.md"
