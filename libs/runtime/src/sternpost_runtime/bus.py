"""The broker as a service sees it: durable stores, requests, pulls, buckets. nats-py underneath, its exceptions mapped here.

This file knows JetStream's wire API and nothing of mail. Reading goes through direct get, so no service needs the right to
create a consumer.
"""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import SecretStr

from sternpost_runtime.subjects import OBJECTS_CONTENT, inbox_prefix

log = structlog.get_logger()

RECONNECT_WAIT = 0.2
"""Seconds between tries to reach the broker again."""
PING_INTERVAL = 5
"""Seconds between pings; a broker that misses two is taken for gone."""
PENDING_LIMIT = 256 * 1024 * 1024
"""Octets of unread messages that a subscription may hold; services bound what they ask for far below."""
CHUNK = 512 * 1024
"""Octets per chunk of a large content."""
DIRECT_BATCH = 64
"""Records per direct get."""
DIRECT_BYTES = 8 * 1024 * 1024
"""Octets per direct get."""


class BusError(Exception):
    """Something between us and the broker failed."""


class BusDown(BusError):
    """Known not stored: there was no connection, or nobody answers for JetStream."""


class StoreRefused(BusError):
    """Known not stored: the broker answered with an error."""


class StreamFull(StoreRefused):
    """Known not stored: the stream, or the store, is at its limit."""


class Conflict(StoreRefused):
    """Known not stored: the key has another revision than expected."""


class OutcomeUnknown(BusError):
    """Published, and no answer came: it may be stored or not, now or later."""


class NoAnswer(BusError):
    """Nobody answered a request in time."""


class ObjectMissing(BusError):
    """There is no such content, or not all of it."""


class BusSettings(Protocol):
    """What a connection needs; `sternpost_runtime.settings` implements it."""

    @property
    def nats_url(self) -> str:
        """One URL, or several separated by commas."""

    @property
    def nats_user(self) -> str:
        """The service's user, empty for none."""

    @property
    def nats_password(self) -> SecretStr:
        """Its password."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A PubAck: the record is durable (the broker fsyncs before it answers)."""

    stream: str
    seq: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A record read by direct get."""

    subject: str
    seq: int
    payload: bytes
    stored_ms: int
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A bucket's value and the revision that an update must name."""

    value: bytes
    revision: int


_FULL = frozenset({10077, 10047, 10023, 10122})
_WRONG_SEQUENCE = frozenset({10071, 10164})
_DELETED = frozenset({"DEL", "PURGE"})


def _refusal(error: dict[str, Any]) -> StoreRefused:
    code = int(error.get("err_code", 0))
    text = str(error.get("description", "refused"))
    if code in _FULL:
        return StreamFull(text)
    if code in _WRONG_SEQUENCE:
        return Conflict(text)
    return StoreRefused(f"{text} ({code})")


class Delivery:
    """One record pulled from a consumer. It is ours until it is acknowledged, given back, or 30 s pass without a beat."""

    __slots__ = ("_bus", "_reply", "headers", "num_delivered", "payload", "seq", "stored_ms", "subject")

    def __init__(self, bus: "Bus", message: Msg) -> None:
        self._bus = bus
        self._reply = message.reply
        self.payload: bytes = message.data
        self.subject: str = message.subject
        self.headers: dict[str, str] = message.headers or {}
        # …<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<ns>.<pending>[.<token>], v1 with nine tokens
        tokens = message.reply.split(".")
        base = 2 if len(tokens) == 9 else 4
        self.num_delivered = int(tokens[base + 2])
        self.seq = int(tokens[base + 3])
        self.stored_ms = int(tokens[base + 5]) // 1_000_000

    async def ack(self, timeout: float = 5.0) -> None:
        """Done with it: returns when the broker confirmed, so that even its crash does not bring the record back.

        Raises NoAnswer; the record may then come again and its reader looks into EVENTS.
        """
        await self._bus.request(self._reply, b"+ACK", timeout=timeout)

    async def in_progress(self) -> None:
        """Still working on it: the wait for an acknowledgement starts anew."""
        await self._bus.publish(self._reply, b"+WPI")

    async def nak(self, delay: float) -> None:
        """Give it back, to come again after `delay` seconds (never at once: that is a hot loop)."""
        body = json.dumps({"delay": int(max(delay, 0.1) * 1e9)})
        await self._bus.publish(self._reply, b"-NAK " + body.encode())

    async def term(self, timeout: float = 5.0) -> None:
        """Never again: it was moved to HELD."""
        await self._bus.request(self._reply, b"+TERM", timeout=timeout)


class Puller:
    """Pulls records from one durable consumer, with one outstanding pull at a time."""

    def __init__(self, bus: "Bus", stream: str, consumer: str) -> None:
        self._bus = bus
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = ""
        self._queue: asyncio.Queue[Msg] = asyncio.Queue()
        self._outstanding = 0
        self._epoch = -1
        self._asked = 0.0

    async def fetch(self, count: int, timeout: float, *, max_bytes: int = 16 * 1024 * 1024) -> list[Delivery]:
        """At most `count` records; returns as soon as there is one, an empty list after `timeout` seconds without any."""
        if not self._inbox:
            self._inbox = await self._bus.open_inbox(self._queue)
        # An empty pull means nothing yet; the server's own expiry may get lost, so an old pull is not counted on.
        stale = time.monotonic() - self._asked > timeout + 1.0
        if self._outstanding <= 0 or self._epoch != self._bus.epoch or stale:
            self._epoch = self._bus.epoch
            self._asked = time.monotonic()
            request = {"batch": count, "expires": int(timeout * 1e9), "max_bytes": max_bytes}
            self._outstanding = count
            await self._bus.publish_with_reply(self._next, json.dumps(request).encode(), self._inbox)
        found: list[Delivery] = []
        try:
            async with asyncio.timeout(timeout + 0.5):
                while not found:
                    self._take(await self._queue.get(), found)
        except TimeoutError:
            self._outstanding = 0
            return found
        while not self._queue.empty() and len(found) < count:
            self._take(self._queue.get_nowait(), found)
        return found

    def _take(self, message: Msg, found: list[Delivery]) -> None:
        if message.reply and message.reply.startswith("$JS.ACK"):
            self._outstanding -= 1
            found.append(Delivery(self._bus, message))
        else:  # 404 no messages, 408 expired, 409 limits: this pull is over
            self._outstanding = 0


class Bucket:
    """A key-value bucket of small values. Keys are subject tokens joined by dots."""

    def __init__(self, bus: "Bus", name: str) -> None:
        self._bus = bus
        self._stream = f"KV_{name}"
        self._prefix = f"$KV.{name}."

    async def get(self, key: str) -> Entry | None:
        """The value and revision, or None."""
        found = await self._bus.direct_get(self._stream, {"last_by_subj": self._prefix + key})
        if not found or found[0].headers.get("KV-Operation") in _DELETED:
            return None
        return Entry(found[0].payload, found[0].seq)

    async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        """Write whatever was there; returns the revision. `ttl` in seconds."""
        return await self._write(key, value, _ttl(ttl))

    async def create(self, key: str, value: bytes, *, ttl: float | None = None) -> int:
        """Write a key that must not exist; raises Conflict where it does.

        A deleted key exists as a marker: it is replaced at its own revision.
        """
        try:
            return await self._write(key, value, {**_ttl(ttl), "Nats-Expected-Last-Subject-Sequence": "0"})
        except Conflict:
            found = await self._bus.direct_get(self._stream, {"last_by_subj": self._prefix + key})
            if found and found[0].headers.get("KV-Operation") in _DELETED:
                return await self.update(key, value, found[0].seq, ttl=ttl)
            raise

    async def update(self, key: str, value: bytes, revision: int, *, ttl: float | None = None) -> int:
        """Write over the given revision; raises Conflict where another writer was first."""
        return await self._write(key, value, {**_ttl(ttl), "Nats-Expected-Last-Subject-Sequence": str(revision)})

    async def delete(self, key: str) -> None:
        """Remove the key."""
        await self._write(key, b"", {"KV-Operation": "DEL", "Nats-Rollup": "sub"})

    async def items(self) -> dict[str, bytes]:
        """Every key with its value."""
        return {key: value for key, value, _ in await self._read(1)}

    async def watch(self, handler: Callable[[str, bytes | None], None], ready: asyncio.Event | None = None) -> None:
        """Call `handler(key, value)` for every key and then for every change; None means deleted. `ready` is set after the
        first full read. Changes are heard at once; every 30 s and after each reconnect the whole bucket is read again, so
        nothing heard is trusted more than what is stored.
        """
        changed = asyncio.Event()

        async def poke(_subject: str, _payload: bytes) -> None:
            changed.set()

        await self._bus.subscribe(self._prefix + ">", poke)
        self._bus.on_reconnect(changed.set)
        self._bus.spawn(self._follow(handler, ready, changed))

    async def _follow(
        self, handler: Callable[[str, bytes | None], None], ready: asyncio.Event | None, changed: asyncio.Event
    ) -> None:
        known: dict[str, int] = {}
        while True:
            changed.clear()
            try:
                entries = await self._read(1)
            except BusError:
                await asyncio.sleep(RECONNECT_WAIT)
                continue
            seen = {key for key, _, _ in entries}
            for key, value, seq in entries:
                if known.get(key) != seq:
                    known[key] = seq
                    handler(key, value)
            for key in [key for key in known if key not in seen]:
                del known[key]
                handler(key, None)
            if ready is not None:
                ready.set()
            try:
                async with asyncio.timeout(30):
                    await changed.wait()
                await asyncio.sleep(0.02)  # a burst of changes (an apply) is read once
            except TimeoutError:
                pass

    async def _read(self, since: int) -> list[tuple[str, bytes, int]]:
        skip = len(self._prefix)
        found = [m async for m in self._bus.scan(self._stream, self._prefix + ">", {"seq": since})]
        return [(m.subject[skip:], m.payload, m.seq) for m in found if m.headers.get("KV-Operation") not in _DELETED]

    async def _write(self, key: str, value: bytes, headers: dict[str, str]) -> int:
        stored = await self._bus.store(self._prefix + key, value, msg_id="", headers=headers)
        return stored.seq


def _ttl(seconds: float | None) -> dict[str, str]:
    return {} if seconds is None else {"Nats-TTL": f"{max(int(seconds), 1)}s"}


class Bus:
    """One connection to the broker. Reconnects for ever; `connected` tells, `epoch` counts the connections."""

    def __init__(self) -> None:
        self._nc = Client()
        self._on_reconnect: list[Callable[[], None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.epoch = 0
        self.connected_at_ms = 0

    @classmethod
    async def connect(cls, settings: BusSettings, service: str) -> "Bus":
        """Connect as a service; waits until the broker is there (a pod may start before it)."""
        bus = cls()
        bus._nc = await nats.connect(
            [url.strip() for url in settings.nats_url.split(",")],
            name=f"sternpost-{service}",
            user=settings.nats_user or None,
            password=settings.nats_password.get_secret_value() or None,
            inbox_prefix=inbox_prefix(service),
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_WAIT,
            connect_timeout=2,
            ping_interval=PING_INTERVAL,
            max_outstanding_pings=2,
            error_cb=bus._error,
            disconnected_cb=bus._lost,
            reconnected_cb=bus._back,
        )
        bus._connected()
        return bus

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return bool(self._nc.is_connected)

    async def close(self) -> None:
        """Close the connection and end what follows buckets."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._nc.close()

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call after each reconnect."""
        self._on_reconnect.append(callback)

    def spawn(self, work: Any) -> None:
        """Run a coroutine for the life of the connection."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("bus_task_failed", error=repr(task.exception()))

    # --- durable writes ----------------------------------------------------------------------------------------------

    async def store(
        self,
        subject: str,
        payload: bytes,
        *,
        msg_id: str,
        headers: dict[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Stored:
        """Publish to a stream and wait for the PubAck.

        Raises BusDown and StoreRefused (StreamFull, Conflict), which mean known not stored, or OutcomeUnknown.
        `msg_id` makes a repeat recognisable; an empty one publishes without.
        """
        if not self._nc.is_connected:
            raise BusDown("no connection to the broker")
        sent = dict(headers) if headers else {}
        if msg_id:
            sent["Nats-Msg-Id"] = msg_id
        try:
            answer = await self._nc.request(subject, payload, timeout=timeout, headers=sent or None)
        except nats.errors.NoRespondersError as error:
            raise BusDown("no stream takes this subject, or JetStream is down") from error
        except (nats.errors.ConnectionClosedError, nats.errors.OutboundBufferLimitError) as error:
            raise BusDown("no connection to the broker") from error
        except nats.errors.MaxPayloadError as error:
            raise StoreRefused("record is larger than the broker takes") from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise OutcomeUnknown(f"no answer within {timeout:g} s") from error
        ack = json.loads(answer.data)
        if "error" in ack:
            raise _refusal(ack["error"])
        return Stored(ack["stream"], int(ack["seq"]), bool(ack.get("duplicate", False)))

    # --- requests and subjects ---------------------------------------------------------------------------------------

    async def request(self, subject: str, payload: bytes, *, timeout: float) -> bytes:
        """Ask and wait for one answer; raises NoAnswer."""
        if not self._nc.is_connected:
            raise NoAnswer("no connection to the broker")
        try:
            answer = await self._nc.request(subject, payload, timeout=timeout)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise NoAnswer(f"no answer on {subject.split('.')[0]} within {timeout:g} s") from error
        return bytes(answer.data)

    async def publish(self, subject: str, payload: bytes) -> None:
        """Send without an answer; lost when there is no connection."""
        if self._nc.is_connected:
            await self._nc.publish(subject, payload)

    async def publish_with_reply(self, subject: str, payload: bytes, reply: str) -> None:
        """Send and let answers come to an inbox of ours."""
        if self._nc.is_connected:
            await self._nc.publish(subject, payload, reply=reply)

    async def open_inbox(self, queue: "asyncio.Queue[Msg]") -> str:
        """A fresh inbox whose messages are put into the queue."""
        inbox = self._nc.new_inbox()

        async def take(message: Msg) -> None:
            queue.put_nowait(message)

        await self._nc.subscribe(inbox, cb=take, pending_bytes_limit=PENDING_LIMIT)
        return inbox

    async def serve(
        self,
        subject: str,
        handler: Callable[[bytes], Awaitable[bytes]],
        *,
        group: str = "",
        concurrency: int = 64,
    ) -> None:
        """Answer requests. A handler that raises leaves the question unanswered (the asker times out) and is logged."""
        room = asyncio.Semaphore(concurrency)

        async def answer(message: Msg) -> None:
            try:
                payload = await handler(message.data)
                if message.reply and self._nc.is_connected:
                    await self._nc.publish(message.reply, payload)
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("request_failed", subject=subject)
            finally:
                room.release()

        async def take(message: Msg) -> None:
            await room.acquire()
            self.spawn(answer(message))

        await self._nc.subscribe(subject, queue=group, cb=take, pending_bytes_limit=PENDING_LIMIT)

    async def subscribe(self, subject: str, handler: Callable[[str, bytes], Awaitable[None]]) -> None:
        """Hear what is published, one message after the other."""

        async def take(message: Msg) -> None:
            try:
                await handler(message.subject, message.data)
            except Exception:
                log.exception("message_failed", subject=subject)

        await self._nc.subscribe(subject, cb=take, pending_bytes_limit=PENDING_LIMIT)

    async def ask_all(self, subject: str, payload: bytes, *, wait: float, expected: int = 0) -> list[bytes]:
        """Every answer that comes within `wait` seconds; returns early with `expected` of them."""
        queue: asyncio.Queue[Msg] = asyncio.Queue()
        inbox = self._nc.new_inbox()

        async def take(message: Msg) -> None:
            queue.put_nowait(message)

        subscription = await self._nc.subscribe(inbox, cb=take)
        answers: list[bytes] = []
        try:
            await self.publish_with_reply(subject, payload, inbox)
            async with asyncio.timeout(wait):
                while not expected or len(answers) < expected:
                    message = await queue.get()
                    if message.data:  # no responders is an empty answer
                        answers.append(bytes(message.data))
        except TimeoutError:
            pass
        finally:
            await subscription.unsubscribe()
        return answers

    # --- reading -----------------------------------------------------------------------------------------------------

    def puller(self, stream: str, consumer: str) -> Puller:
        """A puller of a durable consumer that bootstrap created."""
        return Puller(self, stream, consumer)

    def bucket(self, name: str) -> Bucket:
        """A key-value bucket."""
        return Bucket(self, name)

    async def direct_get(self, stream: str, query: dict[str, Any], *, wait: float = 5.0) -> list[StoredMessage]:
        """One direct get; a query with `batch` returns several records, an empty list means there is none.

        Raises NoAnswer, also when an answer stays incomplete.
        """
        queue: asyncio.Queue[Msg] = asyncio.Queue()
        if not self._nc.is_connected:
            raise NoAnswer("no connection to the broker")
        inbox = self._nc.new_inbox()

        async def take(message: Msg) -> None:
            queue.put_nowait(message)

        subscription = await self._nc.subscribe(inbox, cb=take, pending_bytes_limit=PENDING_LIMIT)
        found: list[StoredMessage] = []
        try:
            await self.publish_with_reply(f"$JS.API.DIRECT.GET.{stream}", json.dumps(query).encode(), inbox)
            async with asyncio.timeout(wait):
                while True:
                    message = await queue.get()
                    headers = message.headers or {}
                    status = headers.get("Status", "")
                    if status == "404":
                        return found
                    if status == "204" or status.startswith(("4", "5")):
                        if status != "204":
                            raise NoAnswer(f"{stream} cannot be read: {status} {headers.get('Description', '')}")
                        return found
                    found.append(_stored(message))
                    if "batch" not in query:
                        return found
        except TimeoutError as error:
            raise NoAnswer(f"{stream} did not answer within {wait:g} s") from error
        finally:
            await subscription.unsubscribe()

    async def scan(self, stream: str, subject: str, start: dict[str, Any]) -> AsyncIterator[StoredMessage]:
        """Every record of a subject (wildcards allowed) from a start: `{"seq": n}` or `{"start_time": iso}`."""
        while True:
            query = {**start, "next_by_subj": subject, "batch": DIRECT_BATCH, "max_bytes": DIRECT_BYTES}
            page = await self.direct_get(stream, query)
            for message in page:
                yield message
            if not page:
                return
            start = {"seq": page[-1].seq + 1}

    async def read_from(
        self, stream: str, subject: str, since_ms: int, *, limit: int = 1_000_000
    ) -> AsyncIterator[StoredMessage]:
        """Records of a subject stored since a moment, oldest first, at most `limit`."""
        moment = datetime.fromtimestamp(max(since_ms, 0) / 1000).astimezone().isoformat()
        count = 0
        async for message in self.scan(stream, subject, {"start_time": moment}):
            yield message
            count += 1
            if count >= limit:
                return

    async def stream_state(self, stream: str) -> dict[str, Any]:
        """The stream's `config` and `state` as the broker tells them."""
        answer = json.loads(await self.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=5))
        if "error" in answer:
            raise NoAnswer(f"{stream}: {answer['error'].get('description', 'no such stream')}")
        return dict(answer)

    async def last_seq(self, stream: str) -> int:
        """The sequence of the newest record."""
        return int((await self.stream_state(stream))["state"]["last_seq"])

    # --- large contents ----------------------------------------------------------------------------------------------

    async def put_object(self, name: str, data: bytes) -> None:
        """Store a large content durably, in the layout of NATS object stores; raises like `store`.

        The name is unique (a mail's id), so its chunks need no other one.
        """
        chunk_subject = f"$O.{OBJECTS_CONTENT}.C.{name}"
        chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        for number, chunk in enumerate(chunks):
            await self.store(chunk_subject, chunk, msg_id=f"{name}.{number}")
        meta = {
            "name": name,
            "bucket": OBJECTS_CONTENT,
            "nuid": name,
            "size": len(data),
            "chunks": len(chunks),
            "digest": "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode(),
            "options": {"max_chunk_size": CHUNK},
        }
        await self.store(_meta_subject(name), json.dumps(meta).encode(), msg_id="", headers={"Nats-Rollup": "sub"})

    async def get_object(self, name: str) -> bytes:
        """The content; raises ObjectMissing where it, or a part of it, is not there, NoAnswer where nobody tells."""
        stream = f"OBJ_{OBJECTS_CONTENT}"
        found = await self.direct_get(stream, {"last_by_subj": _meta_subject(name)})
        meta = json.loads(found[0].payload) if found else {}
        if not meta or meta.get("deleted"):
            raise ObjectMissing(f"content {name} is not in the store")
        parts = [m.payload async for m in self.scan(stream, f"$O.{OBJECTS_CONTENT}.C.{name}", {"seq": 1})]
        data = b"".join(parts)
        digest = "SHA-256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
        if len(data) != meta["size"] or digest != meta["digest"]:
            raise ObjectMissing(f"content {name} is damaged: {len(data)} of {meta['size']} octets")
        return data

    async def delete_object(self, name: str) -> None:
        """Remove a content; one that is not there is no error."""
        for subject in (_meta_subject(name), f"$O.{OBJECTS_CONTENT}.C.{name}"):
            query = json.dumps({"filter": subject}).encode()
            await self.request(f"$JS.API.STREAM.PURGE.OBJ_{OBJECTS_CONTENT}", query, timeout=5)

    # --- connection life ---------------------------------------------------------------------------------------------

    def _connected(self) -> None:
        self.epoch += 1
        self.connected_at_ms = time.time_ns() // 1_000_000

    async def _error(self, error: Exception) -> None:
        log.warning("broker_error", error=repr(error))

    async def _lost(self) -> None:
        log.warning("broker_lost")

    async def _back(self) -> None:
        self._connected()
        log.info("broker_back", epoch=self.epoch)
        for callback in self._on_reconnect:
            callback()


def _meta_subject(name: str) -> str:
    return f"$O.{OBJECTS_CONTENT}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"


def _stored(message: Msg) -> StoredMessage:
    headers = message.headers or {}
    moment = datetime.fromisoformat(headers["Nats-Time-Stamp"][:26].rstrip("Z") + "+00:00")
    return StoredMessage(
        subject=headers["Nats-Subject"],
        seq=int(headers["Nats-Sequence"]),
        payload=bytes(message.data),
        stored_ms=int(moment.timestamp() * 1000),
        headers=headers,
    )
