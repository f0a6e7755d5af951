"""Fixtures of the HTTP door's tests."""

from collections.abc import AsyncIterator, Iterator
from typing import cast

import httpx
import pytest
import structlog
import structlog.testing

from sternpost_ingress.http import HttpDeps, create_app
from sternpost_ingress.http_settings import HttpSettings
from sternpost_ingress.spool import Spool
from tests.unit.ingress.http_door import Open, OpenDoor


@pytest.fixture
async def open_door(quiet_logs: None) -> AsyncIterator[Open]:
    clients: list[httpx.AsyncClient] = []

    async def start(settings: HttpSettings) -> OpenDoor:
        client = httpx.AsyncClient(base_url="http://door", headers={"authorization": "Bearer good"})
        door = OpenDoor(client)
        app = create_app(
            HttpDeps(
                spool=cast(Spool, door.spool),
                identify=door.identify,
                config=lambda: door.config,
                bus=door.bus,
                settings=settings,
                hostname="mx.sternpost.example",
                now_ms=lambda: door.now_ms,
            )
        )
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("192.0.2.7", 40000))
        client._transport = transport  # the application needs the door, which needs the client
        clients.append(client)
        return door

    yield start
    for client in clients:
        await client.aclose()


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """Faults that tests cause on purpose are not rendered with their tracebacks, which takes seconds."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
async def door(open_door: Open) -> OpenDoor:
    return await open_door(HttpSettings())
