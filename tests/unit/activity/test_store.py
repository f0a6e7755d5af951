"""The store and its search, one suite on every database: SQLite always, PostgreSQL where a URL is given.

`STERNPOST_TEST_POSTGRES_URL` names a database in which the tests may make schemas of their own.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select, text

from sternpost_activity.app import open_facts
from sternpost_activity.database import Database, DatabaseDown, RowsRefused, database_url
from sternpost_activity.schema import events, messages, metadata, recipients, tags
from sternpost_activity.search import MAX_PAGE, Search
from sternpost_activity.store import Deleted, Store
from sternpost_mail.events import EventKind
from sternpost_mail.states import State
from sternpost_mail.timeline import ListQuestion
from tests.unit.activity.build import BASE_MS, DEFERRED, DELIVERED, event, facts, mail_id, result

POSTGRES = os.environ.get("STERNPOST_TEST_POSTGRES_URL", "")
ENGINES = ["sqlite", *(["postgresql"] if POSTGRES else [])]


@dataclass
class Memory:
    """One migrated database and what stands on it."""

    url: str
    database: Database
    store: Store
    search: Search

    async def page(self, **question: object) -> list[str]:
        answer = await self.search.page(ListQuestion(**question))  # type: ignore[arg-type]
        return [view.id for view in answer.messages]


@pytest.fixture(params=ENGINES)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/deep/activity.db"
        return
    admin = Database(POSTGRES)
    name = f"t{uuid.uuid4().hex}"
    async with admin.engine.connect() as connection:
        outside = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await outside.execute(text(f"CREATE DATABASE {name}"))
    yield database_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    async with admin.engine.connect() as connection:
        outside = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await outside.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await admin.close()


@pytest.fixture
async def memory(url: str) -> AsyncIterator[Memory]:
    """A migrated database."""
    database = Database(url)
    await database.migrate()
    yield Memory(url, database, Store(database, open_facts), Search(database))
    await database.close()


async def dump(database: Database) -> list[list[tuple[object, ...]]]:
    """Every row of every table of facts."""
    async with database.reading() as connection:
        return [
            [tuple(row) for row in await connection.execute(select(table).order_by(*table.primary_key.columns))]
            for table in (messages, recipients, events, tags)
        ]


async def test_migrations_from_empty_make_exactly_the_declared_schema(memory: Memory) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))

    async with memory.database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_replicas_that_start_together_migrate_once(url: str) -> None:
    replicas = [Database(url) for _ in range(4)]
    await asyncio.gather(*(replica.migrate() for replica in replicas))
    assert await Store(replicas[0], open_facts).position() == 0
    for replica in replicas:
        await replica.close()


async def test_a_message_is_told_with_recipients_tags_facts_and_timeline(memory: Memory) -> None:
    attempt = event("a", 10, DEFERRED, tags=("news", "a"), with_facts=facts("user0@example.net", "user1@example.net"))
    await memory.store.apply([attempt], 1)
    await memory.store.apply([event("b", 20, DELIVERED, attempt=2)], 2)
    view = await memory.search.message(mail_id(0), "shop")
    assert view is not None
    assert (view.state, view.subject, view.door, view.metadata) == (
        State.QUEUED,
        "Hello",
        "submission",
        {"order": "42"},
    )
    assert view.tags == ("a", "news")
    assert [(person.address, person.state, person.attempts) for person in view.recipients] == [
        ("user0@example.net", State.DELIVERED, 2),
        ("user1@example.net", State.QUEUED, 0),
    ]
    assert [(line.at_ms - BASE_MS, line.kind, line.state, line.reply) for line in view.timeline] == [
        (0, "accepted", "queued", ""),
        (10, "attempt", "deferred", "451 4.3.0 Later"),
        (20, "attempt", "delivered", "250 2.0.0 Ok"),
    ]


async def test_the_timeline_is_in_order_of_time_whatever_order_the_events_came_in(memory: Memory) -> None:
    for seq, (name, at) in enumerate([("c", 30), ("a", 10), ("b", 20)], 1):
        await memory.store.apply([event(name, at, DEFERRED)], seq)
    view = await memory.search.message(mail_id(0), "shop")
    assert view is not None
    assert [line.at_ms - BASE_MS for line in view.timeline] == [0, 10, 20, 30]
    assert view.recipients[0].state is State.DEFERRED


async def test_a_redelivered_batch_changes_no_row(memory: Memory) -> None:
    batch = [
        event("a", 1, DEFERRED, with_facts=facts("user0@example.net"), tags=("t",)),
        event("b", 2, result(State.DEFERRED, next_attempt_ms=BASE_MS + 9_000), kind=EventKind.DECISION),
        event("c", 3, DELIVERED, mail=1),
        event("d", 4, kind=EventKind.CANCEL_REQUESTED, mail=1),
    ]
    await memory.store.apply(batch, 7)
    before = await dump(memory.database)
    await memory.store.apply(batch, 7)
    await memory.store.apply(list(reversed(batch)), 8)
    assert await dump(memory.database) == before
    assert [len(rows) for rows in before] == [2, 2, 4, 1]


async def test_the_position_is_written_with_the_rows_and_never_goes_back(memory: Memory) -> None:
    await memory.store.apply([event("a", 1, DELIVERED)], 41)
    await memory.store.apply([event("b", 1, DELIVERED, mail=1)], 40)
    assert await memory.store.position() == 41
    await memory.store.rewind(0)
    assert await memory.store.position() == 0


async def test_a_refused_batch_leaves_neither_rows_nor_position(memory: Memory) -> None:
    good, bad = event("a", 1, DELIVERED), event("b", 2**70, DELIVERED, mail=1)
    with pytest.raises(RowsRefused):
        await memory.store.apply([good, bad], 5)
    assert await memory.store.position() == 0
    assert await memory.page() == []
    await memory.store.apply([good], 6)
    assert await memory.page() == [mail_id(0)]


async def test_two_replicas_that_write_at_the_same_time_lose_nothing(memory: Memory) -> None:
    other = Database(memory.url)
    stores = [memory.store, Store(other, open_facts)]
    pairs = [
        [event(f"{n:03}", 10 + n, DEFERRED, attempt=n + 1), event(f"x{n}", n, DELIVERED, mail=n + 1)] for n in range(40)
    ]
    await asyncio.gather(*(stores[n % 2].apply(pair, n) for n, pair in enumerate(pairs)))
    await other.close()
    view = await memory.search.message(mail_id(0), "shop")
    assert view is not None
    assert (view.recipients[0].attempts, len(view.timeline)) == (40, 41)
    assert len(await memory.page(limit=100)) == 41
    assert await memory.store.position() == 39


async def test_pages_follow_each_other_newest_first_without_gap_or_repeat(memory: Memory) -> None:
    await memory.store.apply([event(f"e{n}", n, DELIVERED, mail=n) for n in range(23)], 1)
    seen: list[str] = []
    before = ""
    for _ in range(5):
        answer = await memory.search.page(ListQuestion(tenant="shop", before=before, limit=5))
        seen += [view.id for view in answer.messages]
        before = answer.next_before
    assert before == ""
    assert seen == [mail_id(n) for n in reversed(range(23))]


async def test_a_page_has_a_limit_whatever_is_asked(memory: Memory) -> None:
    await memory.store.apply([event(f"e{n}", n, DELIVERED, mail=n) for n in range(MAX_PAGE + 5)], 1)
    assert len(await memory.page(limit=10**6)) == MAX_PAGE
    assert len(await memory.page(limit=-1)) == 1


async def test_every_filter_finds_its_mail_alone_and_with_the_others(memory: Memory) -> None:
    wanted = event("a", 1, DEFERRED, mail=1, tags=("news",), with_facts=facts("user0@example.net", "user0@example.net"))
    await memory.store.apply(
        [
            wanted,
            event("b", 2, DELIVERED, mail=2, sender="other@example.com"),
            event("c", 3, result(State.BOUNCED, address="else@example.net"), mail=3, tags=("bulk",)),
        ],
        1,
    )
    everything = {
        "tenant": "shop",
        "state": "queued",
        "sender": "noreply@example.com",
        "recipient": "user0@example.net",
        "tag": "news",
    }
    await memory.store.apply([event("d", 4, result(State.QUEUED), mail=4, tags=("news",))], 2)
    assert await memory.page(**everything) == [mail_id(4)]
    await memory.store.apply([event("e", 5, DELIVERED, mail=1), event("f", 6, DELIVERED, mail=4)], 3)
    everything["state"] = "delivered"
    assert await memory.page(**everything) == [mail_id(4)]
    assert await memory.page(recipient="user0@example.net") == [mail_id(4), mail_id(2), mail_id(1)]
    assert await memory.page(tag="news") == [mail_id(4), mail_id(1)]
    assert await memory.page(sender="other@example.com") == [mail_id(2)]
    assert await memory.page(state="bounced") == [mail_id(3)]
    assert await memory.page(state="queued") == [mail_id(1)]
    assert await memory.page(recipient="nobody@example.net") == []


async def test_no_question_of_one_tenant_shows_mail_of_another(memory: Memory) -> None:
    mine = event("a", 1, DEFERRED, mail=1, tags=("t",))
    theirs = event("b", 2, DEFERRED, mail=2, tags=("t",), tenant="bank")
    await memory.store.apply([mine, theirs], 1)
    assert await memory.search.message(mail_id(2), "shop") is None
    assert await memory.search.message(mail_id(2), "") is not None
    filters: list[dict[str, object]] = [
        {},
        {"state": "deferred"},
        {"sender": "noreply@example.com"},
        {"recipient": "user0@example.net"},
        {"tag": "t"},
        {"recipient": "user0@example.net", "tag": "t"},
    ]
    for narrow in filters:
        assert await memory.page(tenant="shop", **narrow) == [mail_id(1)], narrow
        assert await memory.page(**narrow) == [mail_id(2), mail_id(1)], narrow


async def test_retention_deletes_finished_old_mail_in_pieces_and_keeps_open_and_young(memory: Memory) -> None:
    batch = [event(f"e{n}", n, DEFERRED if n == 3 else DELIVERED, mail=n, tags=("t",)) for n in range(10)]
    await memory.store.apply(batch, 1)
    first = await memory.store.delete_before(BASE_MS + 8, limit=5)
    assert first == Deleted(4, mail_id(4))
    second = await memory.store.delete_before(BASE_MS + 8, cursor=first.cursor, limit=5)
    assert second == Deleted(3, "")
    assert await memory.page() == [mail_id(9), mail_id(8), mail_id(3)]
    assert [len(rows) for rows in await dump(memory.database)] == [3, 3, 3, 3]


async def test_the_list_uses_an_index_for_what_is_rare(memory: Memory) -> None:
    if not memory.database.is_sqlite:
        pytest.skip("PostgreSQL chooses by statistics, of which an empty table has none")
    async with memory.database.reading() as connection:
        plan = await connection.execute(
            text(
                "EXPLAIN QUERY PLAN SELECT id FROM messages WHERE tenant = 'a' AND state = 'held' "
                "AND messages.state <> 'delivered' ORDER BY id DESC"
            )
        )
        assert "ix_messages_tenant_state_id" in " ".join(row.detail for row in plan)


async def test_a_database_that_cannot_be_reached_is_down_and_says_no_secret(tmp_path: Path) -> None:
    nowhere = tmp_path / "file"
    nowhere.write_text("this is no database, and long enough to be seen as one" * 40)
    broken = Database(f"sqlite:///{nowhere}")
    with pytest.raises(DatabaseDown):
        await broken.ping()
    await broken.close()
    remote = Database("postgresql://user:hunter2@127.0.0.1:1/none")
    with pytest.raises(DatabaseDown) as failure:
        await remote.ping()
    assert "hunter2" not in str(failure.value)
    await remote.close()


@pytest.mark.parametrize("wrong", ["mysql://secret@host/x", "nonsense secret", ""])
def test_another_kind_of_database_is_refused_without_quoting_its_url(wrong: str) -> None:
    with pytest.raises(ValueError, match="must look like") as failure:
        database_url(wrong)
    assert "secret" not in str(failure.value)
