"""The subject table is the page that people read, and permissions speak only of what exists."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sternpost_mail.envelope import Lane
from sternpost_runtime import subjects
from sternpost_runtime.subjects import (
    CONSUMERS,
    LANES,
    PERMISSIONS,
    SHARDS,
    STREAMS,
    SUBJECT_ROWS,
    Service,
    defer_subject,
    due_subject,
    event_subject,
    held_subject,
    inbox_prefix,
    lease_subject,
    render_markdown,
    result_subject,
    session_subject,
    site_token,
    spool_subject,
)

TOKEN = re.compile(r"[A-Za-z0-9_-]+")
STREAM_NAMES = {stream.name for stream in STREAMS}
CONSUMER_NAMES = {(consumer.stream, consumer.name) for consumer in CONSUMERS}


def covers(pattern: str, subject: str) -> bool:
    """Whether a NATS pattern covers a subject or a narrower pattern."""
    wanted, given_ = pattern.split("."), subject.split(".")
    for number, token in enumerate(wanted):
        if token == ">":
            return len(given_) > number
        if number >= len(given_) or (token != "*" and token != given_[number]):
            return False
    return len(wanted) == len(given_)


def as_pattern(row_subject: str) -> str:
    """`spool.<lane>.<shard>` as `spool.*.*`."""
    return re.sub(r"<[a-z]+>", "*", row_subject)


ROWS = [as_pattern(row.subject) for row in SUBJECT_ROWS]
CONSTANTS = ["AUTH_VERIFY", "ACTIVITY_MESSAGE", "ACTIVITY_LIST", "QUEUE_CANCEL", "DELIVERY_SITE", "DELIVERY_HOLDS",
             "BEATS", "LEASES"]  # fmt: skip
MADE = [
    spool_subject("bulk", "r1"),
    defer_subject("mx.example.com", "r1"),
    due_subject("r1"),
    event_subject("r1"),
    held_subject("rule"),
    session_subject("w1"),
    result_subject("q1"),
    lease_subject("q1"),
]


def test_the_page_is_the_table() -> None:
    page = Path(__file__).parents[3] / "proto" / "README.md"
    assert page.read_text() == render_markdown(), "run: python -m sternpost_runtime.subjects > proto/README.md"


def test_every_subject_constant_is_in_the_table() -> None:
    missing = [name for name in CONSTANTS if getattr(subjects, name) not in ROWS]
    assert missing == []


def test_no_subject_constant_is_forgotten_by_these_tests() -> None:
    found = {
        name
        for name, value in vars(subjects).items()
        if name.isupper() and isinstance(value, str) and re.fullmatch(r"[a-z]+\.[a-z*]+", value)
    }
    assert found == set(CONSTANTS)


@pytest.mark.parametrize("subject", MADE)
def test_every_subject_that_a_function_makes_is_in_the_table(subject: str) -> None:
    assert [row for row in ROWS if covers(row, subject)] != []


def test_no_row_of_the_table_is_there_twice() -> None:
    assert len(set(ROWS)) == len(ROWS)


def test_every_stream_row_belongs_to_the_stream_that_it_names() -> None:
    for row in SUBJECT_ROWS:
        if row.kind.startswith("stream "):
            [stream] = [s for s in STREAMS if s.name == row.kind.removeprefix("stream ")]
            assert any(covers(wanted, as_pattern(row.subject)) for wanted in stream.subjects), row


def test_no_two_streams_take_the_same_subject() -> None:
    owned = [(stream.name, subject) for stream in STREAMS for subject in stream.subjects]
    overlaps = [
        (one, other)
        for one, subject in owned
        for other, wanted in owned
        if (one, subject) != (other, wanted) and (covers(subject, wanted) or covers(wanted, subject))
    ]
    assert overlaps == []


def test_all_streams_together_stay_below_the_storage() -> None:
    assert sum(stream.share for stream in STREAMS) <= 1.0


def test_every_consumer_reads_a_part_of_its_stream() -> None:
    by_name = {stream.name: stream for stream in STREAMS}
    for consumer in CONSUMERS:
        assert any(covers(subject, consumer.filter) for subject in by_name[consumer.stream].subjects), consumer


def test_every_lane_has_a_consumer_and_no_two_overlap() -> None:
    """A work-queue stream refuses consumers whose filters overlap."""
    assert set(LANES) == {lane.value for lane in Lane}
    filters = [consumer.filter for consumer in CONSUMERS if consumer.stream == subjects.STREAM_SPOOL]
    for lane in LANES:
        assert [f for f in filters if covers(f, spool_subject(lane, "r1"))] == [f"spool.{lane}.*"]


ALLOWED = [
    (service, subject) for service, allowed in PERMISSIONS.items() for subject in (*allowed.publish, *allowed.subscribe)
]


@pytest.mark.parametrize(("service", "subject"), ALLOWED)
def test_permissions_speak_only_of_what_exists(service: Service, subject: str) -> None:
    tokens = subject.split(".")
    if subject == "$JS.API.>":
        assert service is Service.BOOTSTRAP, "the whole API is bootstrap's alone"
    elif subject.startswith("$JS.API.CONSUMER.MSG.NEXT."):
        assert (tokens[5], tokens[6]) in CONSUMER_NAMES
    elif subject.startswith("$JS.ACK.*.*."):
        assert (tokens[4], tokens[5]) in CONSUMER_NAMES
    elif subject.startswith("$JS.ACK."):
        assert (tokens[2], tokens[3]) in CONSUMER_NAMES
    elif subject.startswith("$JS.API."):
        assert STREAM_NAMES & set(tokens), "an API call names one stream"
    elif subject.startswith("$KV."):
        assert f"KV_{tokens[1]}" in STREAM_NAMES
    elif subject.startswith("$O."):
        assert f"OBJ_{tokens[1]}" in STREAM_NAMES
    else:
        assert [row for row in ROWS if covers(row, subject)], "a subject of the table"


def test_every_service_has_permissions_and_an_inbox_of_its_own() -> None:
    assert set(PERMISSIONS) == set(Service)
    prefixes = [inbox_prefix(service) for service in Service]
    assert len({prefix.split(".")[0] for prefix in prefixes}) == len(prefixes)


def may(service: Service, subject: str) -> bool:
    return any(covers(pattern, subject) for pattern in PERMISSIONS[service].publish)


@pytest.mark.parametrize(
    ("subject", "services"),
    [
        (spool_subject("normal", "r1"), {Service.INGRESS, Service.QUEUE}),
        (defer_subject("mx", "r1"), {Service.QUEUE}),
        (event_subject("r1"), {Service.QUEUE, Service.DELIVERY}),
        (held_subject("rule"), {Service.QUEUE}),
        (session_subject("w1"), {Service.QUEUE}),
        (result_subject("q1"), {Service.DELIVERY}),
        (lease_subject("q1"), {Service.QUEUE}),
        ("$KV.CONFIG.domain.x", {Service.BOOTSTRAP}),
        ("$KV.CONTROL.cancel.x", {Service.QUEUE}),
        ("$JS.API.STREAM.CREATE.X", {Service.BOOTSTRAP}),
        ("$JS.API.STREAM.DELETE.SPOOL", {Service.BOOTSTRAP}),
        ("$JS.API.STREAM.PURGE.SPOOL", {Service.BOOTSTRAP}),
    ],
)
def test_who_may_write_what(subject: str, services: set[Service]) -> None:
    assert {service for service in Service if may(service, subject)} == services


@given(st.text(max_size=60))
def test_a_site_of_any_name_is_one_token(site: str) -> None:
    assert TOKEN.fullmatch(site_token(site))
    assert len(defer_subject(site, "r1").split(".")) == 3


@given(st.text(max_size=40), st.sampled_from(LANES))
def test_any_record_id_gives_a_subject_within_its_shards(record: str, lane: str) -> None:
    assert 0 <= int(spool_subject(lane, record).removeprefix(f"spool.{lane}.")) < SHARDS
    assert 0 <= int(due_subject(record).removeprefix("due.")) < SHARDS
    assert 0 <= int(event_subject(record).removeprefix("event.")) < subjects.EVENT_BUCKETS


def test_where_a_record_goes_never_changes() -> None:
    """Ids outlive processes: a hash that changes between versions would hide what EVENTS knows of waiting mail."""
    assert event_subject("01jexample") == "event.270"
    assert spool_subject("normal", "01jexample") == "spool.normal.14"
    assert due_subject("01jexample") == "due.14"
    assert site_token("mx.example.com") == "da46fcc564f8bfd13b47"
