"""Publishing into a real bucket: only what changed, removals with care, the generation last."""

import asyncio
import re

import pytest

from sternpost_mail.config import Certificate, Credential, CredentialKind, Domain, Resource
from sternpost_mail.route import Action, Match, RelayRule
from sternpost_operator.publish import MassRemovalError, PublishError, config_key, publish
from sternpost_runtime.bus import Bus, Conflict
from sternpost_runtime.config import GENERATION_KEY, ConfigWatch
from sternpost_runtime.subjects import BUCKET_CONFIG, Service
from tests.support.broker import Broker

RESOURCES: tuple[Resource, ...] = (
    *(Domain("acme", f"d{number}", f"d{number}.example") for number in range(5)),
    RelayRule("acme", "r.with.dots", 1, Match(), Action.HOLD),
    Credential("acme", "c", CredentialKind.SMTP_PASSWORD, "c", "$hash"),
    Certificate("sternpost", "t", ("a.example",), b"PEM", b"sealed"),
)


@pytest.mark.parametrize(
    ("resource", "key"),
    [
        (RESOURCES[0], "domain.acme.d0"),
        (RESOURCES[5], "relayrule.acme.r=2Ewith=2Edots"),
        (RESOURCES[6], "credential.acme.c"),
        (RESOURCES[7], "certificate.sternpost.t"),
        (Domain("a", "ü *>", "x"), "domain.a.=C3=BC=20=2A=3E"),
    ],
)
def test_keys_are_valid_and_tell_their_resource(resource: Resource, key: str) -> None:
    assert config_key(resource) == key
    assert re.fullmatch(r"[-/_=.a-zA-Z0-9]+", key)


def test_names_with_dots_never_collide_with_others() -> None:
    assert config_key(Domain("a", "b.c", "x")) != config_key(Domain("a", "b=2Ec", "x"))


async def values(bus: Bus) -> dict[str, bytes]:
    return await bus.bucket(BUCKET_CONFIG).items()


async def test_a_life_of_a_configuration(own_broker: Broker) -> None:
    bus = await own_broker.connect(Service.BOOTSTRAP)
    first = await publish(bus, RESOURCES)
    assert (first.generation, len(first.written), first.removed) == (1, 8, ())
    stored = await values(bus)

    again = await publish(bus, RESOURCES)
    assert (again.generation, again.changed) == (1, False)
    assert await values(bus) == stored

    changed = await publish(bus, (*RESOURCES[:4], Domain("acme", "d4", "other.example"), *RESOURCES[5:]))
    assert (changed.generation, changed.written) == (2, ("domain.acme.d4",))

    more = await publish(bus, (*RESOURCES, Domain("acme", "new", "new.example")))
    assert (more.generation, more.written) == (3, ("domain.acme.d4", "domain.acme.new"))
    await bus.close()


async def test_more_than_a_fifth_goes_only_when_it_is_meant(own_broker: Broker) -> None:
    bus = await own_broker.connect(Service.BOOTSTRAP)
    await publish(bus, RESOURCES)
    stored = await values(bus)
    with pytest.raises(MassRemovalError, match="2 of 8 resources would be removed"):
        await publish(bus, RESOURCES[2:])
    assert await values(bus) == stored
    one_less = await publish(bus, RESOURCES[1:])  # 1 of 8 is an eighth
    assert one_less.removed == ("domain.acme.d0",)
    none = await publish(bus, (), allow_mass_removal=True)
    assert len(none.removed) == 7
    assert list(await values(bus)) == [GENERATION_KEY]
    await bus.close()


async def test_services_see_a_complete_set_and_then_every_change(own_broker: Broker) -> None:
    bus = await own_broker.connect(Service.BOOTSTRAP)
    reader = await own_broker.connect(Service.AUTH)
    watch = ConfigWatch(reader, "sternpost")
    await watch.start()
    await publish(bus, RESOURCES)
    async with asyncio.timeout(10):
        await watch.ready.wait()
    assert set(watch.config.domains) == {f"d{number}.example" for number in range(5)}
    assert watch.config.certificates == (RESOURCES[7],)

    seen = asyncio.Event()
    watch.on_change(lambda config: seen.set() if "new.example" in config.domains else None)
    await publish(bus, (*RESOURCES, Domain("acme", "new", "new.example")))
    async with asyncio.timeout(10):
        await seen.wait()
    await reader.close()
    await bus.close()


async def test_two_publishers_at_once_are_told(own_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = await own_broker.connect(Service.BOOTSTRAP)
    await publish(bus, RESOURCES)
    bucket = bus.bucket(BUCKET_CONFIG)
    put = type(bucket).put

    async def overtaken(self: object, key: str, value: bytes) -> int:
        await put(bucket, GENERATION_KEY, b"")  # another publisher finishes between our read and our last write
        return await put(bucket, key, value)

    monkeypatch.setattr(type(bucket), "put", overtaken)
    with pytest.raises(PublishError, match="another publish was under way") as caught:
        await publish(bus, (*RESOURCES, Domain("acme", "new", "new.example")))
    assert isinstance(caught.value.__cause__, Conflict)
    await bus.close()


async def test_a_publish_that_broke_off_is_completed_by_the_next(own_broker: Broker) -> None:
    bus = await own_broker.connect(Service.BOOTSTRAP)
    await publish(bus, RESOURCES)
    bucket = bus.bucket(BUCKET_CONFIG)
    await bucket.delete(GENERATION_KEY)
    await bucket.delete("domain.acme.d0")
    done = await publish(bus, RESOURCES)
    assert (done.generation, done.written) == (1, ("domain.acme.d0",))
    await bus.close()
