"""Every dialogue in tests/dialogues against real doors."""

from pathlib import Path

import pytest

from tests.support.dialogue import Dialogue
from tests.support.smtp_door import on_uvloop

FILES = sorted((Path(__file__).parents[1] / "dialogues").glob("*.dlg"))


def test_there_are_dialogues() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@on_uvloop
async def test_the_server_keeps_to_the_dialogue(path: Path) -> None:
    await Dialogue(path).run()
