"""A key-value bucket in memory. `test_idempotency` runs the same conformance tests on it and on a real broker's."""

from collections.abc import Callable

from sternpost_runtime.bus import BusDown, Conflict, Entry, OutcomeUnknown


class FakeBucket:
    """Keeps what it is given. Revisions grow over all keys, as in a stream."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.revision = 0
        self.down = False
        self.lose_answers = 0
        """How many of the next writes are stored without an answer."""
        self.before_write: Callable[[], None] | None = None
        """Called once, before the next write: lets a test be the writer who was first."""

    async def get(self, key: str) -> Entry | None:
        """The value and its revision."""
        self._check()
        return self.entries.get(key)

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that must not exist; raises Conflict."""
        return self._write(key, value, 0)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write over a revision; raises Conflict."""
        return self._write(key, value, revision)

    def _write(self, key: str, value: bytes, expected: int) -> int:
        self._check()
        if self.before_write:
            first, self.before_write = self.before_write, None
            first()
        found = self.entries.get(key)
        if (found.revision if found else 0) != expected:
            raise Conflict("wrong last sequence")
        self.revision += 1
        self.entries[key] = Entry(value, self.revision)
        if self.lose_answers:
            self.lose_answers -= 1
            raise OutcomeUnknown("no answer")
        return self.revision

    def _check(self) -> None:
        if self.down:
            raise BusDown("down")
