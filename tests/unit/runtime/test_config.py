"""The configuration as services follow it: the last good one stays, whatever comes."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from sternpost_mail.config import EMPTY_CONFIG, Config, Domain, Generation, Resource
from sternpost_runtime.bus import Bus
from sternpost_runtime.codec import encode_config_entry
from sternpost_runtime.config import GENERATION_KEY, ConfigWatch
from sternpost_runtime.subjects import BUCKET_CONFIG


class Bucket:
    """A bucket whose changes the test tells."""

    def __init__(self) -> None:
        self.name = ""
        self.tell: Callable[[str, bytes | None], None]

    def bucket(self, name: str) -> "Bucket":
        self.name = name
        return self

    async def watch(self, handler: Callable[[str, bytes | None], None]) -> None:
        self.tell = handler

    def put(self, key: str, entry: Resource | Generation) -> None:
        self.tell(key, encode_config_entry(entry))


@pytest.fixture
async def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
async def watch(bucket: Bucket) -> ConfigWatch:
    watch = ConfigWatch(cast(Bus, bucket), "sternpost")
    await watch.start()
    return watch


def domain(name: str) -> Domain:
    return Domain("team-a", name, f"{name}.example")


async def settle() -> None:
    """Let the loop run what was called soon."""
    await asyncio.sleep(0)


async def test_before_anything_was_heard_the_configuration_is_empty_and_not_complete(
    watch: ConfigWatch, bucket: Bucket
) -> None:
    assert bucket.name == BUCKET_CONFIG
    assert watch.config is EMPTY_CONFIG
    assert not watch.ready.is_set()


async def test_resources_without_a_generation_are_not_obeyed(watch: ConfigWatch, bucket: Bucket) -> None:
    bucket.put("domain.a", domain("a"))
    await settle()
    assert not watch.ready.is_set()
    assert watch.config is EMPTY_CONFIG


async def test_a_complete_generation_is_obeyed_whatever_came_first(watch: ConfigWatch, bucket: Bucket) -> None:
    bucket.put(GENERATION_KEY, Generation(3, 2))
    bucket.put("domain.a", domain("a"))
    await settle()
    assert not watch.ready.is_set(), "one of two"
    bucket.put("domain.b", domain("b"))
    await settle()
    assert watch.ready.is_set()
    assert watch.config.generation == 3
    assert set(watch.config.domains) == {"a.example", "b.example"}


async def test_an_empty_generation_is_complete(watch: ConfigWatch, bucket: Bucket) -> None:
    bucket.put(GENERATION_KEY, Generation(1, 0))
    await settle()
    assert watch.config.is_complete
    assert watch.config.domains == {}


async def test_a_partial_read_keeps_the_last_good_one(watch: ConfigWatch, bucket: Bucket) -> None:
    bucket.put("domain.a", domain("a"))
    bucket.put(GENERATION_KEY, Generation(1, 1))
    await settle()
    bucket.put(GENERATION_KEY, Generation(2, 3))
    bucket.put("domain.b", domain("b"))
    await settle()
    assert (watch.config.generation, set(watch.config.domains)) == (1, {"a.example"})


async def test_an_entry_that_cannot_be_read_leaves_its_last_good_form(watch: ConfigWatch, bucket: Bucket) -> None:
    bucket.put("domain.a", domain("a"))
    bucket.put(GENERATION_KEY, Generation(1, 1))
    await settle()
    bucket.tell("domain.a", b"\xff\xff damaged")
    await settle()
    assert watch.config.tenant_of("a.example") == "team-a"


async def test_a_resource_that_is_deleted_is_gone(watch: ConfigWatch, bucket: Bucket) -> None:
    bucket.put("domain.a", domain("a"))
    bucket.put("domain.b", domain("b"))
    bucket.put(GENERATION_KEY, Generation(1, 2))
    await settle()
    bucket.put(GENERATION_KEY, Generation(2, 1))
    bucket.tell("domain.a", None)
    await settle()
    assert set(watch.config.domains) == {"b.example"}


async def test_a_burst_of_changes_is_one_change(watch: ConfigWatch, bucket: Bucket) -> None:
    heard: list[Config] = []
    watch.on_change(heard.append)
    for number in range(50):
        bucket.put(f"domain.{number}", domain(f"d{number}"))
    bucket.put(GENERATION_KEY, Generation(1, 50))
    await settle()
    assert [len(config.domains) for config in heard] == [50]


async def test_who_asks_late_hears_the_present_one_at_once(watch: ConfigWatch, bucket: Bucket) -> None:
    bucket.put(GENERATION_KEY, Generation(1, 0))
    await settle()
    heard: list[Config] = []
    watch.on_change(heard.append)
    assert heard == [watch.config]
