"""Fixtures that many tests share: one real broker per test session, connections per test."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings as hypothesis_settings

from tests.support.broker import Broker, running_broker

hypothesis_settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True)
hypothesis_settings.register_profile("dev", max_examples=200, deadline=None)
hypothesis_settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[Broker]:
    """A broker for the whole session; a test that kills or fills its broker starts one of its own."""
    runner = asyncio.Runner()
    context = running_broker()
    broker = runner.run(context.__aenter__())
    try:
        yield broker
    finally:
        runner.run(context.__aexit__(None, None, None))
        runner.close()


@pytest.fixture
async def own_broker() -> AsyncIterator[Broker]:
    """A broker for one test."""
    async with running_broker() as broker:
        yield broker


@pytest.fixture
def broker(shared_broker: Broker) -> Broker:
    """The shared broker."""
    return shared_broker
