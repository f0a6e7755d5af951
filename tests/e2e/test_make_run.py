"""What `make run` starts: ready in time, a first message, everything where quickstart.env says, an orderly end."""

import stat
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.platform import running_platform

pytestmark = pytest.mark.e2e


async def test_a_first_message_by_http_arrives_and_its_timeline_ends_in_delivered(tmp_path: Path) -> None:
    async with running_platform(tmp_path) as platform:
        assert stat.S_IMODE((platform.data / "quickstart.env").stat().st_mode) == 0o600
        body = {"from": "hello@example.test", "to": ["you@example.org"], "subject": "First", "text": "It works."}
        async with httpx.AsyncClient(base_url=platform.url, headers=platform.headers) as client:
            answer = await client.post("/v1/messages", json=body)
        assert answer.status_code == 202, answer.text
        (received,) = await platform.wait_sink(1, recipient="you@example.org")
        assert b"It works." in await platform.sink_raw(received["id"])
        message = await platform.wait_state(answer.json()["id"], "delivered")
        assert message["recipients"][0]["last_reply"].startswith("250")
        children = [entry["pid"] for entry in platform.state().values()]
        assert await platform.stop() == 0
        assert not [pid for pid in children if psutil.pid_exists(pid)]


async def test_a_service_that_dies_is_started_again(tmp_path: Path) -> None:
    async with running_platform(tmp_path) as platform:
        for program in ("auth", "nats"):
            first = platform.pid(program)
            await platform.kill(program)
            assert platform.pid(program) != first
        await platform.wait_ready()
