"""One platform for the tests that only send; those that kill start their own."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import Platform, running_platform

MANIFESTS = Path(__file__).parent / "manifests"


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A running platform with impatient retries, shared by the session."""
    runner = asyncio.Runner()
    context = running_platform(tmp_path_factory.mktemp("platform"), manifests=MANIFESTS)
    found = runner.run(context.__aenter__())
    try:
        yield found
    finally:
        runner.run(context.__aexit__(None, None, None))
        runner.close()
