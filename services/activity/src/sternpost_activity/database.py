"""The database as a resource: the engine for a URL, its transactions, its migrations, and the two ways in which it
fails.

SQLAlchemy's exceptions end here: a caller sees DatabaseDown (again later) or RowsRefused (never). This file knows no
table.
"""

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

BUSY_SECONDS = 30
"""How long a transaction waits for another writer of the same SQLite file, such as retention's short ones."""
CACHE_KIB = 65_536
"""SQLite's page cache per connection: the hot leaves of all indexes of a busy day."""
CHECKPOINT_PAGES = 4_000
"""Pages in the write-ahead log before SQLite copies them into the file (16 MiB): fewer, larger copies than by
default."""
POOL_SIZE = 5
"""Connections that are kept: one projects, one deletes, three answer."""
MIGRATION_LOCK = 0x5354524E
"""Key of PostgreSQL's advisory lock under which migrations run ("STRN")."""

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
_WRITES = "sternpost_writes"


class DatabaseDown(Exception):
    """The database does not answer, or not now: try again later."""


class RowsRefused(Exception):
    """The database will never take these rows."""


def database_url(url: str) -> URL:
    """The URL with the driver that we use. Raises ValueError for a database that is neither SQLite nor PostgreSQL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    backend = parsed.drivername.partition("+")[0] if parsed is not None else ""
    if parsed is None or backend not in _DRIVERS:
        # The URL may hold a password, so it is not quoted.
        raise ValueError("must look like sqlite:////var/lib/sternpost/activity.db or postgresql://user@host/database")
    return parsed.set(drivername=_DRIVERS[backend])


class Database:
    """An engine whose transactions say whether they write."""

    def __init__(self, url: str) -> None:
        parsed = database_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            if parsed.database and parsed.database != ":memory:":
                Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self.engine: AsyncEngine = create_async_engine(parsed, connect_args={"timeout": BUSY_SECONDS})
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        else:
            self.engine = create_async_engine(parsed, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_pre_ping=True)
        self._writer = self.engine.execution_options(**{_WRITES: True})

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads. Raises DatabaseDown."""
        async with _errors(), self.engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes; SQLite takes the write lock at its begin. Raises DatabaseDown, RowsRefused."""
        async with _errors(), self._writer.begin() as connection:
            yield connection

    async def migrate(self) -> None:
        """Bring the schema to the newest version; replicas that start together do it one after the other.

        Raises DatabaseDown.
        """
        async with self.writing() as connection:
            if not self.is_sqlite:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            await connection.run_sync(_upgrade)

    async def ping(self) -> None:
        """One statement. Raises DatabaseDown."""
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close all connections."""
        await self.engine.dispose()


def migrations_config() -> Config:
    """Alembic's configuration: the scripts are part of this package, there is no ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _upgrade(connection: Connection) -> None:
    config = migrations_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@asynccontextmanager
async def _errors() -> AsyncIterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        kind = RowsRefused if _is_final(error) else DatabaseDown
        raise kind(_reason(error)) from error
    except OverflowError as error:  # an integer beyond 64 bits, from sqlite3 itself
        raise RowsRefused("an integer does not fit") from error
    except OSError as error:  # asyncpg could not connect
        raise DatabaseDown(f"cannot reach the database: {error.strerror or type(error).__name__}") from error


def _is_final(error: SQLAlchemyError) -> bool:
    """Whether the rows are at fault. A missing table or column is not their fault: that waits for a person."""
    if isinstance(error, DataError | IntegrityError):
        return True
    original = error.orig if isinstance(error, DBAPIError) else None
    state = str(getattr(original, "sqlstate", "") or "")
    # Classes of the SQL standard: 22 data exception, 23 integrity. asyncpg's own check of an argument is a ValueError.
    return state[:2] in ("22", "23") or isinstance(getattr(original, "__cause__", None), ValueError)


def _reason(error: SQLAlchemyError) -> str:
    """The driver's first line, without statement and parameters: those are somebody's mail."""
    original = error.orig if isinstance(error, DBAPIError) else None
    lines = str(original if original is not None else error).splitlines()
    return lines[0] if lines else type(error).__name__


def _prepare_sqlite(dbapi_connection: Any, _record: object) -> None:
    # The driver's own BEGIN is off, so that a writer can begin with the write lock and DDL is part of its transaction.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    _turn_to_wal(cursor)
    cursor.execute("PRAGMA synchronous = NORMAL")  # EVENTS is the truth: what a power failure takes is projected again
    cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    cursor.close()


def _turn_to_wal(cursor: Any) -> None:
    """Where two connections turn a fresh file to WAL at once, SQLite refuses one without asking its busy handler."""
    for _ in range(BUSY_SECONDS * 100):
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.01)
    cursor.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
