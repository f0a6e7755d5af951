"""argon2id off the event loop: a few threads, a bounded line before them. The C code releases the interpreter's lock.

This file knows hashes and passwords, not logins.
"""

import asyncio
import secrets
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from sternpost_mail.credentials import (
    ARGON2_HASH_OCTETS,
    ARGON2_LANES,
    ARGON2_MEMORY_KIB,
    ARGON2_PASSES,
    ARGON2_SALT_OCTETS,
)


class OverloadedError(Exception):
    """Too many passwords wait already."""


class HashError(Exception):
    """The stored hash cannot be verified: our fault, not the client's. The text holds no part of it."""


def hasher() -> PasswordHasher:
    """A hasher with the parameters that the compiler of manifests uses too."""
    return PasswordHasher(
        time_cost=ARGON2_PASSES,
        memory_cost=ARGON2_MEMORY_KIB,
        parallelism=ARGON2_LANES,
        hash_len=ARGON2_HASH_OCTETS,
        salt_len=ARGON2_SALT_OCTETS,
    )


class PasswordPool:
    """Verifies passwords in `threads` threads; at most `waiting` more stand in line."""

    def __init__(self, threads: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._most = threads + waiting
        self._hasher = hasher()
        self._lock = threading.Lock()
        self.pending = 0
        """Passwords in a thread or in line."""
        self.dummy = self._hasher.hash(secrets.token_urlsafe(32))
        """A hash of a password that nobody knows, of the same cost as every other."""

    async def fits(self, secret_hash: str, password: str) -> bool:
        """Whether the hash is of this password. Raises OverloadedError at once when the line is full, and HashError."""
        with self._lock:
            if self.pending >= self._most:
                raise OverloadedError
            self.pending += 1
        # Counted down when the thread is done, not when the waiting ends: a cancelled wait leaves its thread busy.
        work = self._executor.submit(self._verify, secret_hash, password)
        work.add_done_callback(self._ended)
        return await asyncio.wrap_future(work)

    def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _ended(self, _work: Future[bool]) -> None:
        with self._lock:  # called in the worker's thread
            self.pending -= 1

    def _verify(self, secret_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(secret_hash, password)
        except VerifyMismatchError:
            return False
        except (VerificationError, InvalidHashError) as error:
            raise HashError("a stored hash is not a valid argon2 hash") from error
