"""Delivery runs on uvloop; its TLS and transports differ from asyncio's own, so what uses sockets is tested on both."""

import asyncio

import pytest
import uvloop


@pytest.fixture(
    scope="module", params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"]
)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Read by pytest-asyncio."""
    policy: asyncio.AbstractEventLoopPolicy = request.param()
    return policy
