"""Deletes finished messages that are older than the setting, in small transactions, between those of the projection."""

import asyncio
import time
from collections.abc import Callable

from sternpost_activity import telemetry
from sternpost_activity.database import DatabaseDown, RowsRefused
from sternpost_activity.store import Store

DAY_MS = 86_400_000
PAUSE = 0.1
"""Seconds between two pieces: the projection's transactions come first."""


async def delete_old(store: Store, *, days: int, chunk: int, is_stopping: Callable[[], bool]) -> int:
    """One round; returns how many messages were deleted. Raises DatabaseDown."""
    before_ms = time.time_ns() // 1_000_000 - days * DAY_MS
    total = 0
    cursor = ""
    while not is_stopping():
        deleted = await store.delete_before(before_ms, cursor=cursor, limit=chunk)
        telemetry.messages_deleted(deleted.messages)
        total += deleted.messages
        cursor = deleted.cursor
        if not cursor:
            break
        await asyncio.sleep(PAUSE)
    return total


async def keep_deleting(
    store: Store, *, days: int, chunk: int, interval: float, is_stopping: Callable[[], bool]
) -> None:
    """A round now and then one every `interval` seconds, for the life of the service."""
    while True:
        try:
            await delete_old(store, days=days, chunk=chunk, is_stopping=is_stopping)
        except (DatabaseDown, RowsRefused) as error:
            telemetry.database_down(str(error), interval)
        await asyncio.sleep(interval)
