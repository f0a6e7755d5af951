"""Every dialogue in tests/dialogues against real doors."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from tests.support.dialogue import Dialogue

FILES = sorted((Path(__file__).parents[1] / "dialogues").glob("*.dlg"))


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """The loop that serves in production: it calls protocols in another order than asyncio's own."""
    return uvloop.EventLoopPolicy()


def test_there_are_dialogues() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_the_server_keeps_to_the_dialogue(path: Path) -> None:
    await Dialogue(path).run()
