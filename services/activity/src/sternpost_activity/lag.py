"""How far the projection is: the position that others wait for, and whether it keeps up. No broker, no database, no
clock."""

import asyncio


class Progress:
    """The position, and a way to wait until it has come to a sequence."""

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self._moved = asyncio.Condition()

    async def advance(self, position: int) -> None:
        """Tell that everything up to here is in the tables. It never goes back."""
        async with self._moved:
            if position > self.position:
                self.position = position
                self._moved.notify_all()

    async def reached(self, seq: int, timeout: float) -> bool:
        """Whether the position came to `seq` within `timeout` seconds; returns at once where it is there already."""
        if self.position >= seq:
            return True
        try:
            async with asyncio.timeout(timeout), self._moved:
                await self._moved.wait_for(lambda: self.position >= seq)
        except TimeoutError:
            return False
        return True


class LagWatch:
    """Since when the projection has been behind.

    A mark is the newest sequence at some moment; while the position has not come to it, the projection is behind by at
    least the time since. Traffic alone never makes it grow, because the mark moves on whenever it is reached.
    """

    def __init__(self) -> None:
        self._mark = 0
        self._marked_at = 0.0

    def observe(self, now: float, last_seq: int, position: int) -> float:
        """Seconds behind, 0 where it keeps up. `now` is in seconds of any clock that does not jump."""
        if position >= self._mark or last_seq < self._mark:
            self._mark, self._marked_at = last_seq, now
        return now - self._marked_at if position < self._mark else 0.0
