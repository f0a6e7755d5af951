"""Every subject, stream, bucket, consumer and permission of Sternpost, in one place.

`proto/README.md` is generated from this file (`python -m sternpost_runtime.subjects`); a test compares them. Nothing here
talks to a broker: `bootstrap` creates what this file declares, `broker_config` renders the permissions.
"""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

SHARDS = 16
"""Subjects per lane. Queue replicas share a consumer, so one is enough to work; sixteen let a large installation split the
consumers by filter later without a migration."""
EVENT_BUCKETS = 1024
"""Subjects of EVENTS. One per record would cost the broker memory for every record kept for seven days."""

# --- streams -------------------------------------------------------------------------------------------------------------
STREAM_SPOOL = "SPOOL"
STREAM_DEFER = "DEFER"
STREAM_EVENTS = "EVENTS"
STREAM_HELD = "HELD"
BUCKET_CONFIG = "CONFIG"
BUCKET_CONTROL = "CONTROL"
BUCKET_IDEMPOTENCY = "IDEMPOTENCY"
OBJECTS_CONTENT = "CONTENT"

# --- questions and answers (core NATS) -----------------------------------------------------------------------------------
AUTH_VERIFY = "auth.verify"
ACTIVITY_MESSAGE = "activity.message"
ACTIVITY_LIST = "activity.list"
QUEUE_CANCEL = "queue.cancel"
DELIVERY_SITE = "delivery.site"
DELIVERY_HOLDS = "delivery.holds"
BEATS = "beat.delivery"
LEASES = "lease.*"

# --- consumers -----------------------------------------------------------------------------------------------------------
CONSUMER_DUE = "queue-due"
CONSUMER_ACTIVITY = "activity"

# --- headers -------------------------------------------------------------------------------------------------------------
HEADER_RETRY = "Sternpost-Retry"
"""On a record that was published again under an id that may be known: its reader looks into EVENTS first."""
HEADER_SCHEDULE = "Nats-Schedule"
HEADER_SCHEDULE_TARGET = "Nats-Schedule-Target"


def spool_consumer(lane: str) -> str:
    """The durable consumer of one lane."""
    return f"queue-{lane}"


def spool_subject(lane: str, record_id: str) -> str:
    """Where a spool record is stored: `spool.<lane>.<shard>`."""
    return f"spool.{lane}.{_bucket(record_id, SHARDS)}"


def due_subject(record_id: str) -> str:
    """Where the broker puts a waiting record when its time has come: `due.<shard>`."""
    return f"due.{_bucket(record_id, SHARDS)}"


def defer_subject(site: str, record_id: str) -> str:
    """Where a record waits: `defer.<site token>.<record id>`, so that a site's waiting mail can be listed and purged."""
    return f"defer.{site_token(site)}.{record_id}"


def site_token(site: str) -> str:
    """A site's name as one subject token (names have dots and may be long)."""
    return hashlib.blake2b(site.encode(), digest_size=10).hexdigest()


def event_subject(record_id: str) -> str:
    """Where the events of a spool record's mails are kept: `event.<bucket>`."""
    return f"event.{_bucket(record_id, EVENT_BUCKETS)}"


def held_subject(reason: str) -> str:
    """Where mail is set aside: `held.<reason>`, the reason being one lower-case token."""
    return f"held.{reason}"


def session_subject(worker: str) -> str:
    """Where one delivery worker takes site sessions."""
    return f"delivery.session.{worker}"


def result_subject(queue: str) -> str:
    """Where one queue instance hears results."""
    return f"queue.result.{queue}"


def lease_subject(queue: str) -> str:
    """Where one queue instance tells that it still holds its jobs."""
    return f"lease.{queue}"


def _bucket(identifier: str, buckets: int) -> int:
    return int.from_bytes(hashlib.blake2b(identifier.encode(), digest_size=4).digest(), "big") % buckets


class Retention(StrEnum):
    """JetStream's words."""

    WORK_QUEUE = "workqueue"
    LIMITS = "limits"


MIB = 1024 * 1024
HOUR = 3600
DAY = 24 * HOUR


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream as bootstrap makes it. `share` is its part of the storage setting, `max_age` is in seconds (0: no limit)."""

    name: str
    subjects: tuple[str, ...]
    retention: Retention
    share: float
    purpose: str
    discard_new: bool = True
    max_age: int = 0
    schedules: bool = False
    per_key: bool = False
    """One value per subject: a key-value bucket."""
    duplicate_window: int = 120
    max_record: int = 4 * MIB


def _kv(name: str, share: float, purpose: str, *, max_age: int = 0) -> Stream:
    return Stream(f"KV_{name}", (f"$KV.{name}.>",), Retention.LIMITS, share, purpose, max_age=max_age, per_key=True)


LANES = ("express", "normal", "bulk")

STREAMS: tuple[Stream, ...] = (
    Stream(
        STREAM_SPOOL,
        ("spool.>",),
        Retention.WORK_QUEUE,
        0.35,
        "accepted mail, in batches; a full spool refuses, so the doors answer 452 and 503",
        # A publish whose answer is lost is settled within 15 s; ten minutes leave room for a client that was stopped.
        duplicate_window=600,
    ),
    Stream(
        STREAM_DEFER,
        ("defer.>", "due.>"),
        Retention.WORK_QUEUE,
        0.25,
        "mail that waits for a moment, published with the broker's own schedule and returned as `due.<shard>`",
        # The server refuses schedules on a stream that discards new records: the queue service keeps the bound.
        discard_new=False,
        schedules=True,
        duplicate_window=600,
    ),
    Stream(
        STREAM_EVENTS,
        ("event.>",),
        Retention.LIMITS,
        0.15,
        "what happened: the only truth about outcomes",
        max_age=7 * DAY,
    ),
    Stream(
        STREAM_HELD,
        ("held.>",),
        Retention.LIMITS,
        0.05,
        "mail that a rule holds, and records that could not be processed",
    ),
    _kv(BUCKET_CONFIG, 0.02, "compiled configuration, one key per resource"),
    _kv(BUCKET_CONTROL, 0.01, "markers per message: cancel", max_age=31 * DAY),
    _kv(BUCKET_IDEMPOTENCY, 0.04, "idempotency keys in hashed buckets, many entries to a key", max_age=2 * DAY),
    Stream(
        f"OBJ_{OBJECTS_CONTENT}",
        (f"$O.{OBJECTS_CONTENT}.C.>", f"$O.{OBJECTS_CONTENT}.M.>"),
        Retention.LIMITS,
        0.13,
        "content above the inline limit; removed with its last job, orphans by age",
        max_age=31 * DAY,
    ),
)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer. `ack_wait` is in seconds; BackOff is never set (it would override it)."""

    stream: str
    name: str
    filter: str
    ack_wait: int = 30
    """A dead reader's records come back after this; living ones beat every 10 s."""
    max_ack_pending: int = 20_000


CONSUMERS: tuple[Consumer, ...] = (
    *(Consumer(STREAM_SPOOL, spool_consumer(lane), f"spool.{lane}.*") for lane in LANES),
    Consumer(STREAM_DEFER, CONSUMER_DUE, "due.*"),
    Consumer(STREAM_EVENTS, CONSUMER_ACTIVITY, "event.*"),
)


class Service(StrEnum):
    """Who connects to the broker. Each has a user of this name."""

    BOOTSTRAP = "bootstrap"
    """Creates streams and consumers, publishes configuration: the operator's hand, never in the mail path."""
    INGRESS = "ingress"
    QUEUE = "queue"
    DELIVERY = "delivery"
    AUTH = "auth"
    ACTIVITY = "activity"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that one service may publish and subscribe to. Replies to a request are allowed once by the server."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...] = ()


def inbox_prefix(service: str) -> str:
    """Each service has an inbox of its own, so that none can read the answers of another."""
    return f"_INBOX_{service}"


def _kv_read(name: str) -> tuple[str, ...]:
    return (f"$JS.API.DIRECT.GET.KV_{name}", f"$JS.API.DIRECT.GET.KV_{name}.>")


def _acks(stream: str, consumer: str) -> tuple[str, ...]:
    # 2.14: $JS.ACK.<stream>.<consumer>.…; 2.15: $JS.ACK.<domain>.<account hash>.<stream>.<consumer>.…
    return (f"$JS.ACK.{stream}.{consumer}.>", f"$JS.ACK.*.*.{stream}.{consumer}.>")


def _pulls(stream: str, consumer: str) -> tuple[str, ...]:
    return (f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", *_acks(stream, consumer))


def _content_read() -> tuple[str, ...]:
    return (f"$JS.API.DIRECT.GET.OBJ_{OBJECTS_CONTENT}",)


_CONFIG_READ = _kv_read(BUCKET_CONFIG)
_CONFIG_WATCH = (f"$KV.{BUCKET_CONFIG}.>",)

PERMISSIONS: dict[Service, Permissions] = {
    Service.BOOTSTRAP: Permissions(publish=("$JS.API.>", f"$KV.{BUCKET_CONFIG}.>"), subscribe=()),
    Service.INGRESS: Permissions(
        publish=(
            "spool.*.*",
            AUTH_VERIFY,
            ACTIVITY_MESSAGE,
            ACTIVITY_LIST,
            QUEUE_CANCEL,
            f"$KV.{BUCKET_IDEMPOTENCY}.>",
            *_kv_read(BUCKET_IDEMPOTENCY),
            *_CONFIG_READ,
            f"$JS.API.DIRECT.GET.{STREAM_EVENTS}",
            *(f"$JS.API.STREAM.INFO.{name}" for name in (STREAM_SPOOL, STREAM_DEFER, STREAM_EVENTS)),
            f"$O.{OBJECTS_CONTENT}.>",
        ),
        subscribe=_CONFIG_WATCH,
    ),
    Service.QUEUE: Permissions(
        publish=(
            "spool.*.*",  # reports enter by the same spool as mail
            "defer.*.*",
            "event.*",
            "held.*",
            "lease.*",
            "delivery.session.*",
            DELIVERY_SITE,
            DELIVERY_HOLDS,
            f"$KV.{BUCKET_CONTROL}.>",
            *_kv_read(BUCKET_CONTROL),
            *_CONFIG_READ,
            *(part for lane in LANES for part in _pulls(STREAM_SPOOL, spool_consumer(lane))),
            *_pulls(STREAM_DEFER, CONSUMER_DUE),
            f"$JS.API.DIRECT.GET.{STREAM_EVENTS}",
            f"$JS.API.STREAM.INFO.{STREAM_SPOOL}",
            f"$JS.API.STREAM.INFO.{STREAM_DEFER}",
            *_content_read(),
            f"$JS.API.STREAM.PURGE.OBJ_{OBJECTS_CONTENT}",
        ),
        subscribe=("queue.result.*", QUEUE_CANCEL, BEATS, f"$KV.{BUCKET_CONTROL}.>", *_CONFIG_WATCH),
    ),
    Service.DELIVERY: Permissions(
        publish=("event.*", "queue.result.*", BEATS, *_content_read(), *_CONFIG_READ),
        subscribe=("delivery.session.*", DELIVERY_SITE, DELIVERY_HOLDS, LEASES, *_CONFIG_WATCH),
    ),
    Service.AUTH: Permissions(publish=_CONFIG_READ, subscribe=(AUTH_VERIFY, *_CONFIG_WATCH)),
    Service.ACTIVITY: Permissions(
        publish=(
            *_pulls(STREAM_EVENTS, CONSUMER_ACTIVITY),
            f"$JS.API.STREAM.INFO.{STREAM_EVENTS}",
            f"$JS.API.DIRECT.GET.{STREAM_SPOOL}",
        ),
        subscribe=(ACTIVITY_MESSAGE, ACTIVITY_LIST),
    ),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the subject table."""

    subject: str
    kind: str
    writer: str
    reader: str
    purpose: str = field(default="")


SUBJECT_ROWS: tuple[Row, ...] = (
    Row("spool.<lane>.<shard>", "stream SPOOL", "ingress, queue (reports)", "queue", "SpoolRecord; empty: a fence"),
    Row("defer.<site>.<record>", "stream DEFER", "queue", "broker", "DeferRecord with a schedule"),
    Row("due.<shard>", "stream DEFER", "broker", "queue", "DeferRecord whose moment has come"),
    Row("event.<bucket>", "stream EVENTS", "delivery, queue", "activity; queue after a redelivery", "EventBatch"),
    Row("held.<reason>", "stream HELD", "queue", "a person", "HeldRecord"),
    Row(AUTH_VERIFY, "request", "ingress", "auth (group)", "VerifyRequest, VerifyReply"),
    Row(ACTIVITY_MESSAGE, "request", "ingress", "activity (group)", "one message with its timeline, JSON"),
    Row(ACTIVITY_LIST, "request", "ingress", "activity (group)", "a page of messages, JSON"),
    Row(QUEUE_CANCEL, "request", "ingress", "queue (group)", "CancelRequest, CancelReply"),
    Row("delivery.session.<worker>", "request", "queue", "one delivery worker", "SiteSession, SessionAnswer"),
    Row("queue.result.<queue>", "request", "delivery", "one queue instance", "SessionResult, empty answer"),
    Row(DELIVERY_SITE, "request", "queue", "delivery (group)", "SiteQuestion, SiteAnswer"),
    Row(DELIVERY_HOLDS, "request", "queue", "every delivery worker", "what do you hold: Beat"),
    Row(BEATS, "publish", "delivery", "every queue instance", "Beat, every 2 s"),
    Row("lease.<queue>", "publish", "queue", "every delivery worker", "milliseconds since the epoch, every 2 s"),
)


def render_markdown() -> str:
    """The page proto/README.md."""
    lines = [
        "# Subjects, streams and buckets",
        "",
        "<!-- generated by `make docs` from libs/runtime/src/sternpost_runtime/subjects.py: change it there -->",
        "",
        "Payloads are protobuf messages of `sternpost_wire.v1` unless the table says otherwise.",
        "",
        "## Subjects",
        "",
        "| subject | kind | written by | read by | payload |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| `{r.subject}` | {r.kind} | {r.writer} | {r.reader} | {r.purpose} |" for r in SUBJECT_ROWS]
    lines += ["", "## Streams and buckets", "", "| name | subjects | retention | when full | share of storage | what |"]
    lines += ["|---|---|---|---|---|---|"]
    for s in STREAMS:
        full = "refuses" if s.discard_new else "queue service stops before"
        age = f", {s.max_age // DAY} days" if s.max_age else ""
        subjects = ", ".join(f"`{subject}`" for subject in s.subjects)
        kept = "last value per key" if s.per_key else s.retention.value
        lines.append(f"| `{s.name}` | {subjects} | {kept}{age} | {full} | {s.share:.0%} | {s.purpose} |")
    lines += ["", "## Consumers", "", "| stream | consumer | filter | ack wait |", "|---|---|---|---|"]
    lines += [f"| `{c.stream}` | `{c.name}` | `{c.filter}` | {c.ack_wait} s |" for c in CONSUMERS]
    lines += [
        "",
        "## Permissions",
        "",
        "| service | may publish | may subscribe (and its own inbox) |",
        "|---|---|---|",
    ]
    for service, allowed in PERMISSIONS.items():
        publish = " ".join(f"`{subject}`" for subject in allowed.publish)
        subscribe = " ".join(f"`{subject}`" for subject in allowed.subscribe)
        lines.append(f"| {service} | {publish} | {subscribe} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(render_markdown(), end="")  # the generator of proto/README.md
