"""The active set loses no job, doubles none, and lets nobody wait for another's backlog."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_mail.envelope import Lane
from sternpost_queue.active import (
    FIRST_GUESS,
    LANE_TURNS,
    SESSION_SECONDS,
    ActiveJob,
    ActiveLimits,
    ActiveSet,
    Site,
)
from tests.unit.queue.build import make_job, make_site

TENANTS = ("a", "b", "c")
PUSH = st.tuples(st.just("push"), st.sampled_from(TENANTS), st.sampled_from(list(Lane)), st.integers(1, 50))
POP = st.tuples(st.just("pop"), st.integers(1, 6), st.integers(1, 120))
PUT_BACK = st.tuples(st.just("put_back"))
NEWEST = st.tuples(st.just("newest"), st.integers(1, 6))


def names(jobs: list[ActiveJob]) -> list[str]:
    return [job.mail.mail.id for job in jobs]


@given(st.lists(st.one_of(PUSH, POP, PUT_BACK, NEWEST), max_size=60))
def test_no_job_is_lost_or_doubled_and_the_counts_agree(steps: list[tuple[object, ...]]) -> None:
    site = make_site()
    active = ActiveSet(ActiveLimits())
    site = active.site(site.key, lambda: site)
    waiting: dict[str, ActiveJob] = {}
    out: list[ActiveJob] = []
    for number, step in enumerate(steps):
        match step:
            case ("push", str(tenant), Lane() as lane, int(size)):
                job = make_job(site, f"m{number}", tenant=tenant, lane=lane, size=size)
                active.add(job)
                waiting[job.mail.mail.id] = job
            case ("pop", int(count), int(octets)):
                jobs = site.pop(count, octets)
                assert len(jobs) <= count
                assert bool(jobs) == bool(waiting)
                out += [waiting.pop(name) for name in names(jobs)]
            case ("newest", int(count)):
                jobs = site.pop_newest(count)
                assert len(jobs) == min(count, len(waiting))
                out += [waiting.pop(name) for name in names(jobs)]
            case _:
                active.put_back(out)
                waiting.update({job.mail.mail.id: job for job in out})
                out = []
        assert site.count == len(waiting)
        assert site.bytes == sum(job.size for job in waiting.values())
        assert active.jobs == len(waiting) + len(out)
        assert active.octets == sum(job.size for job in [*waiting.values(), *out])
    rest = names(site.pop(1000, 10**9))
    assert sorted(rest) == sorted(waiting)
    assert (site.count, site.bytes) == (0, 0)


def test_a_tenant_with_ten_thousand_jobs_does_not_delay_a_tenant_with_one() -> None:
    site = make_site()
    for number in range(10_000):
        site.push(make_job(site, f"big{number}", tenant="big"))
    site.push(make_job(site, "small", tenant="small"))
    assert "small" in names(site.pop(2, 10**9))


def test_tenants_take_turns_one_job_each() -> None:
    site = make_site()
    for tenant, count in (("a", 5), ("b", 2), ("c", 3)):
        for number in range(count):
            site.push(make_job(site, f"{tenant}{number}", tenant=tenant))
    assert names(site.pop(10, 10**9)) == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "c2", "a3", "a4"]


def test_lanes_of_one_tenant_share_by_their_turns_and_bulk_is_never_starved() -> None:
    site = make_site()
    for lane in Lane:
        for number in range(60):
            site.push(make_job(site, f"{lane}-{number}", lane=lane))
    served = Counter(name.partition("-")[0] for name in names(site.pop(60, 10**9)))
    assert served == {lane.value: 10 * LANE_TURNS.count(lane) for lane in Lane}


def test_within_a_lane_the_oldest_goes_first() -> None:
    site = make_site()
    for number in range(4):
        site.push(make_job(site, f"m{number}"))
    assert names(site.pop(4, 10**9)) == ["m0", "m1", "m2", "m3"]


def test_a_pop_stops_at_its_octets_but_always_gives_one() -> None:
    site = make_site()
    for number in range(5):
        site.push(make_job(site, f"m{number}", size=1000))
    assert len(site.pop(5, 2500)) == 3
    assert len(site.pop(5, 1)) == 1


def test_jobs_put_back_keep_their_turn() -> None:
    active = ActiveSet(ActiveLimits())
    site = active.site("s", lambda: make_site("s"))
    for number in range(3):
        active.add(make_job(site, f"a{number}", tenant="a"))
    active.add(make_job(site, "b0", tenant="b"))
    first = site.pop(2, 10**9)
    assert names(first) == ["a0", "b0"]
    active.put_back(first)
    assert names(site.pop(2, 10**9)) == ["b0", "a0"]  # both before a1: nobody lost a place to a later job


def test_jobs_put_back_after_their_idle_site_was_forgotten_are_found_again() -> None:
    active = ActiveSet(ActiveLimits())
    site = active.site("s", lambda: make_site("s"))
    active.add(make_job(site, "m1"))
    looked_up = site.pop(1, 10**9)  # its worker was lost; EVENTS is being read
    active.tick(0.0, 1.0)
    assert active.sites == {}
    active.put_back(looked_up)
    [startable] = active.startable(0.0)
    assert names(startable.pop(1, 10**9)) == ["m1"]


def test_jobs_put_back_join_the_site_that_took_the_place_of_theirs() -> None:
    active = ActiveSet(ActiveLimits())
    site = active.site("s", lambda: make_site("s"))
    active.add(make_job(site, "m1"))
    looked_up = site.pop(1, 10**9)
    active.tick(0.0, 1.0)
    successor = active.site("s", lambda: make_site("s"))
    active.add(make_job(successor, "m2"))
    active.put_back(looked_up)
    assert looked_up[0].site is successor
    assert names(successor.pop(5, 10**9)) == ["m1", "m2"]


@pytest.mark.parametrize(
    ("strikes", "running", "blocked_until", "count", "expected", "why"),
    [
        (0, 0, 0.0, 1, True, "room and work"),
        (0, 3, 0.0, 1, False, "as many sessions as it may have"),
        (0, 2, 0.0, 1, True, "one more fits"),
        (0, 0, 0.0, 0, False, "nothing to do"),
        (0, 0, 11.0, 1, False, "it rests"),
        (1, 0, 9.0, 1, True, "after its rest one session asks"),
        (1, 1, 9.0, 1, False, "and only one"),
        (2, 0, 10.0, 1, True, "the rest ends at its moment"),
    ],
)
def test_when_a_session_may_start(
    strikes: int, running: int, blocked_until: float, count: int, expected: bool, why: str
) -> None:
    site = make_site(max_sessions=3)
    site.strikes, site.running, site.blocked_until = strikes, running, blocked_until
    for number in range(count):
        site.push(make_job(site, f"m{number}"))
    assert site.may_start(10.0) is expected, why


@pytest.mark.parametrize(
    ("waiting", "running", "mail_seconds", "expected", "why"),
    [
        (1, 0, FIRST_GUESS, 5, "a guess at a new site: what fills a session"),
        (100, 0, SESSION_SECONDS * 10, 5, "a slow site's mails are spread over the sessions it may have"),
        (100, 15, SESSION_SECONDS * 10, 20, "few sessions left: each carries more"),
        (1000, 0, SESSION_SECONDS, 20, "never more than the setting"),
        (1, 20, SESSION_SECONDS * 10, 1, "at least one"),
        (3, 0, SESSION_SECONDS / 100, 20, "a fast site fills its sessions"),
    ],
)
def test_how_many_mails_share_a_session(
    waiting: int, running: int, mail_seconds: float, expected: int, why: str
) -> None:
    site = make_site()
    site.count, site.running, site.mail_seconds = waiting, running, mail_seconds
    assert site.session_size(20) == expected, why


def test_a_site_learns_how_long_a_mail_takes() -> None:
    site = make_site()
    for _ in range(50):
        site.learn(10, 20.0)
    assert site.mail_seconds == pytest.approx(2.0, rel=0.01)
    site.learn(0, 100.0)
    assert site.mail_seconds == pytest.approx(2.0, rel=0.01)


def test_sites_take_turns_and_one_that_may_not_start_waits_to_be_woken() -> None:
    active = ActiveSet(ActiveLimits())
    sites = [active.site(key, lambda key=key: make_site(key)) for key in ("s1", "s2", "s3")]  # type: ignore[misc]
    for site in sites:
        active.add(make_job(site, site.key))
        active.add(make_job(site, site.key))
    sites[1].blocked_until = 100.0
    assert [site.key for site in active.startable(1.0)] == ["s1", "s3"]
    sites[1].blocked_until = 0.0
    assert [site.key for site in active.startable(1.0)] == ["s1", "s3"], "nobody woke it"
    active.wake(sites[1])
    assert "s2" in [site.key for site in active.startable(1.0)]


def test_a_tick_wakes_the_blocked_and_forgets_the_idle() -> None:
    active = ActiveSet(ActiveLimits())
    busy, idle, running = (active.site(key, lambda key=key: make_site(key)) for key in ("busy", "idle", "running"))  # type: ignore[misc]
    active.add(make_job(busy, "m1"))
    running.running = 1
    assert [site.key for site in active.startable(0.0)] == ["busy"]
    busy.blocked_until = 5.0
    assert list(active.startable(1.0)) == []
    active.tick(6.0, 1.0)
    assert set(active.sites) == {"busy", "running"}
    assert idle.count == 0
    assert [site.key for site in active.startable(6.0)] == ["busy"]


def make_full(limits: ActiveLimits, slow: int, fast: int) -> tuple[ActiveSet, Site, Site]:
    active = ActiveSet(limits)
    tarpit, quick = active.site("tarpit", lambda: make_site("tarpit")), active.site("quick", lambda: make_site("quick"))
    for number in range(slow):
        active.add(make_job(tarpit, f"t{number}"))
    for number in range(fast):
        active.add(make_job(quick, f"q{number}"))
    quick.rate = 100.0
    return active, tarpit, quick


def test_a_slow_site_beyond_its_share_is_parked_when_the_set_is_full_newest_first() -> None:
    active, tarpit, quick = make_full(ActiveLimits(mails=100), slow=60, fast=40)
    parked = active.surplus(0.0)
    assert names(parked) == [f"t{number}" for number in range(59, 24, -1)]
    assert (tarpit.count, quick.count) == (25, 40)


def test_nothing_is_parked_while_there_is_room() -> None:
    active, _, _ = make_full(ActiveLimits(mails=101), slow=60, fast=40)
    assert active.surplus(0.0) == []


def test_a_site_that_keeps_up_is_not_parked_however_much_it_has() -> None:
    active, tarpit, _ = make_full(ActiveLimits(mails=100), slow=100, fast=0)
    tarpit.rate = 100.0
    assert active.surplus(0.0) == []
    tarpit.blocked_until = 31.0
    assert len(active.surplus(0.0)) == 75, "a site that rests for long does not keep up"


def test_the_share_holds_for_octets_as_well() -> None:
    active, tarpit, _ = make_full(ActiveLimits(octets=10_000), slow=90, fast=10)
    active.surplus(0.0)
    assert tarpit.bytes <= 2_600


def test_the_tenant_with_most_waiting_gives_first() -> None:
    site = make_site()
    for number in range(8):
        site.push(make_job(site, f"big{number}", tenant="big"))
    site.push(make_job(site, "small0", tenant="small"))
    assert all(name.startswith("big") for name in names(site.pop_newest(6)))
