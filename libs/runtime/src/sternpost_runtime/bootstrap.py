"""Creates or corrects every stream, consumer and bucket that `subjects` declares. Idempotent: run it at each start.

Only the bootstrap user may do this. This file decides nothing about mail.
"""

import asyncio
import json
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from sternpost_runtime.bus import Bus, BusError, NoAnswer
from sternpost_runtime.subjects import CONSUMERS, STREAMS, Consumer, Stream

MIB = 1024 * 1024


class BootstrapSettings(BaseSettings):
    """How large and how many times the broker keeps our streams."""

    model_config = SettingsConfigDict(env_prefix="STERNPOST_")

    replicas: int = Field(default=1, ge=1, le=5, description="copies of each stream; 3 in a cluster, chosen at install")
    storage_mib: int = Field(
        default=4096,
        ge=64,
        description="MiB that all streams together may use; below the broker's max_file_store, that below the volume",
    )


class BootstrapError(Exception):
    """The broker refused a stream or consumer; the text says which and why."""


def stream_config(stream: Stream, settings: BootstrapSettings) -> dict[str, Any]:
    """The stream as JetStream's API wants it."""
    config: dict[str, Any] = {
        "name": stream.name,
        "description": stream.purpose,
        "subjects": list(stream.subjects),
        "retention": stream.retention.value,
        "storage": "file",
        "num_replicas": settings.replicas,
        "discard": "new" if stream.discard_new else "old",
        "max_bytes": int(settings.storage_mib * MIB * stream.share),
        "max_age": stream.max_age * 1_000_000_000,
        "max_msg_size": stream.max_record,
        "duplicate_window": stream.duplicate_window * 1_000_000_000,
        "allow_direct": True,
        "deny_delete": False,
    }
    if stream.max_age and stream.max_age < stream.duplicate_window:
        config["duplicate_window"] = config["max_age"]
    if stream.schedules:
        config["allow_msg_schedules"] = True
        config["allow_msg_ttl"] = True
        config["allow_rollup_hdrs"] = True
    if stream.per_key:
        config["max_msgs_per_subject"] = 1
        config["allow_rollup_hdrs"] = True
        config["allow_msg_ttl"] = True
    if stream.name.startswith("OBJ_"):
        config["allow_rollup_hdrs"] = True
    return config


def consumer_config(consumer: Consumer) -> dict[str, Any]:
    """The durable pull consumer as JetStream's API wants it; no BackOff, no MaxDeliver: poison goes to HELD by our hand."""
    return {
        "durable_name": consumer.name,
        "filter_subject": consumer.filter,
        "ack_policy": "explicit",
        "ack_wait": consumer.ack_wait * 1_000_000_000,
        "max_ack_pending": consumer.max_ack_pending,
        "max_deliver": -1,
        "deliver_policy": "all",
    }


async def bootstrap(bus: Bus, settings: BootstrapSettings) -> list[str]:
    """Make everything so; returns one line for each thing that was created or changed. Raises BootstrapError."""
    done: list[str] = []
    for stream in STREAMS:
        wanted = stream_config(stream, settings)
        done += await _ensure(bus, f"STREAM.INFO.{stream.name}", "stream", stream.name, wanted)
    for consumer in CONSUMERS:
        wanted = consumer_config(consumer)
        name = f"{consumer.stream}.{consumer.name}"
        done += await _ensure(bus, f"CONSUMER.INFO.{name}", "consumer", name, wanted)
    return done


async def _ensure(bus: Bus, info: str, kind: str, name: str, wanted: dict[str, Any]) -> list[str]:
    found = await _call(bus, info, {}, missing_ok=True)
    if found is None:
        await _write(bus, kind, name, wanted, create=True)
        return [f"created {kind} {name}"]
    current = found["config"]
    if all(current.get(key, _absent(value)) == value for key, value in wanted.items()):
        return []
    await _write(bus, kind, name, wanted, create=False)
    return [f"updated {kind} {name}"]


def _absent(value: Any) -> Any:
    return type(value)()  # the broker omits zero values


async def _write(bus: Bus, kind: str, name: str, wanted: dict[str, Any], *, create: bool) -> None:
    if kind == "stream":
        await _call(bus, f"STREAM.{'CREATE' if create else 'UPDATE'}.{name}", wanted)
    else:
        stream = name.split(".")[0]
        body = {"stream_name": stream, "config": wanted, "action": "create" if create else "update"}
        await _call(bus, f"CONSUMER.CREATE.{name}.{wanted['filter_subject']}", {**body, "config": _named(wanted)})


def _named(wanted: dict[str, Any]) -> dict[str, Any]:
    return {**wanted, "name": wanted["durable_name"]}


async def _call(bus: Bus, call: str, body: dict[str, Any], *, missing_ok: bool = False) -> dict[str, Any] | None:
    last: BusError | None = None
    for _ in range(20):  # JetStream answers a moment after the connection does
        try:
            answer = json.loads(await bus.request(f"$JS.API.{call}", json.dumps(body).encode(), timeout=5))
        except NoAnswer as error:
            last = error
            await asyncio.sleep(0.25)
            continue
        if "error" in answer:
            if missing_ok and answer["error"].get("code") == 404:
                return None
            raise BootstrapError(f"{call}: {answer['error'].get('description')}")
        return dict(answer)
    raise BootstrapError(f"{call}: the broker does not answer ({last})")
