"""Which workers live, who has room, and when a silent one's jobs are nobody's."""

import pytest

from sternpost_mail.dispatch import Beat
from sternpost_queue.workers import LEASE, LOST_AFTER, SILENT_AFTER, WORKER_OCTETS, Worker, Workers


def heard(*beats: Beat, now: float = 0.0) -> Workers:
    workers = Workers()
    for beat in beats:
        workers.hear(beat, now)
    return workers


def chosen(worker: Worker | None) -> str:
    return worker.id if worker is not None else ""


def test_a_worker_is_new_once() -> None:
    workers = Workers()
    assert workers.hear(Beat("w1", 4, ()), 0.0)
    assert not workers.hear(Beat("w1", 4, ()), 2.0)
    assert len(workers) == 1


def test_the_worker_that_served_last_is_asked_first_where_it_has_room() -> None:
    workers = heard(Beat("w1", 2, ()), Beat("w2", 2, ()))
    assert chosen(workers.choose("w2", 1.0)) == "w2"
    last = workers.get("w2")
    assert last is not None
    last.sessions |= {"s1", "s2"}
    assert chosen(workers.choose("w2", 1.0)) == "w1"


def test_else_the_one_with_the_fewest_sessions_of_all_queues() -> None:
    workers = heard(Beat("w1", 9, ("x1", "x2", "x3")), Beat("w2", 9, ("x4",)), Beat("w3", 9, ("x5", "x6")))
    assert chosen(workers.choose("", 1.0)) == "w2"


@pytest.mark.parametrize(
    ("capacity", "sessions", "others", "octets", "room"),
    [
        (2, 1, 0, 0, True),
        (2, 1, 1, 0, False),
        (2, 2, 0, 0, False),
        (0, 0, 0, 0, False),
        (2, 0, 0, WORKER_OCTETS - 1, True),
        (2, 0, 0, WORKER_OCTETS, False),
    ],
)
def test_room_is_sessions_of_all_queues_and_octets(
    capacity: int, sessions: int, others: int, octets: int, room: bool
) -> None:
    worker = Worker("w", capacity, 0.0, {f"s{n}" for n in range(sessions)}, octets, others)
    assert worker.has_room() is room


def test_our_own_sessions_in_a_beat_are_not_counted_twice() -> None:
    workers = heard(Beat("w1", 4, ()))
    worker = workers.get("w1")
    assert worker is not None
    worker.sessions |= {"ours"}
    workers.hear(Beat("w1", 4, ("ours", "theirs")), 2.0)
    assert worker.others == 1


def test_a_silent_worker_is_given_nothing() -> None:
    workers = heard(Beat("w1", 4, ()))
    assert chosen(workers.choose("w1", SILENT_AFTER - 0.1)) == "w1"
    assert chosen(workers.choose("w1", SILENT_AFTER)) == ""


def test_a_busy_worker_is_left_alone_until_its_next_beat() -> None:
    workers = heard(Beat("w1", 4, ()))
    worker = workers.get("w1")
    assert worker is not None
    workers.mark_busy(worker)
    assert workers.choose("w1", 1.0) is None
    workers.hear(Beat("w1", 4, ()), 2.0)
    assert chosen(workers.choose("w1", 2.0)) == "w1"


def test_a_silent_worker_with_jobs_is_lost_only_when_its_lease_has_surely_ended() -> None:
    workers = heard(Beat("idle", 4, ()), Beat("working", 4, ()))
    working = workers.get("working")
    assert working is not None
    working.sessions |= {"s1"}
    assert workers.lost(SILENT_AFTER) == []
    assert [w.id for w in workers.lost(SILENT_AFTER + 0.1)] == ["idle"]
    assert workers.lost(LOST_AFTER) == []
    assert [w.id for w in workers.lost(LOST_AFTER + 0.1)] == ["working"]
    assert len(workers) == 0


def test_lost_comes_after_silence_and_lease() -> None:
    assert LOST_AFTER >= SILENT_AFTER + LEASE


def test_a_worker_that_comes_back_after_it_was_lost_is_new() -> None:
    workers = heard(Beat("w1", 4, ()))
    workers.lost(LOST_AFTER + 1)
    assert workers.hear(Beat("w1", 4, ()), LOST_AFTER + 2)
