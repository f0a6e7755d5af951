"""A bound on octets in memory that is waited for in turn (promise P8). It knows nothing of mails."""

import asyncio
from collections import deque


class Budget:
    """At most `limit` octets at once, first come first served; a single larger item is let in alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def used(self) -> int:
        """Octets reserved now."""
        return self._used

    def fits(self, octets: int) -> bool:
        """Whether so much would be let in now, without waiting."""
        return not self._waiting and (self._used == 0 or self._used + octets <= self._limit)

    async def reserve(self, octets: int) -> None:
        """Wait for room; `release` gives it back."""
        if self.fits(octets):
            self._used += octets
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((octets, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(octets)  # let in at the very moment of the cancellation
            else:
                self._waiting.remove((octets, turn))
                self._let_in()
            raise

    def take(self, octets: int) -> bool:
        """Reserve without waiting; False where there is no room."""
        if not self.fits(octets):
            return False
        self._used += octets
        return True

    def release(self, octets: int) -> None:
        """Give back what was reserved."""
        self._used -= octets
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting:
            octets, turn = self._waiting[0]
            if self._used and self._used + octets > self._limit:
                return
            self._waiting.popleft()
            if not turn.done():
                self._used += octets
                turn.set_result(None)
