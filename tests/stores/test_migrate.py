"""Databases come to the schema of this heartbit, forward and once, and say what is in the way."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from heartbit.errors import JournalError
from heartbit.stores import migrate as module
from heartbit.stores.migrate import LOCK, migrate, pending
from heartbit.stores.sql import migrations, schema
from tests.support.repository import ROOT

MakeDatabase = Callable[..., str]

# Everything a database consists of that our statements can make.
CATALOGUE = """
select 'column', c.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull::text || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
  from pg_attribute a
  join pg_class c on c.oid = a.attrelid and c.relkind = 'r'
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where c.relnamespace = 'public'::regnamespace and a.attnum > 0 and not a.attisdropped
union all
select 'table', relname, relkind::text, coalesce(reloptions::text, '')
  from pg_class where relnamespace = 'public'::regnamespace
union all
select 'constraint', conrelid::regclass::text || '.' || conname, contype::text,
       pg_get_constraintdef(oid)
  from pg_constraint where connamespace = 'public'::regnamespace
union all
select 'index', indexname, tablename, indexdef from pg_indexes where schemaname = 'public'
union all
select 'function', p.oid::regprocedure::text, l.lanname, pg_get_functiondef(p.oid)
  from pg_proc p join pg_language l on l.oid = p.prolang
 where p.pronamespace = 'public'::regnamespace
   and not exists (select from pg_depend e where e.objid = p.oid and e.deptype = 'e')
union all
select 'trigger', tgrelid::regclass::text || '.' || tgname, '', pg_get_triggerdef(oid)
  from pg_trigger where not tgisinternal
union all
select 'extension', extname, '', '' from pg_extension
order by 1, 2, 3, 4
"""


def rows(url: str, query: str) -> list[tuple[str, ...]]:
    """What a query gives."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Take other files for the migrations of this heartbit."""

    def take(*found: tuple[int, str, str]) -> None:
        monkeypatch.setattr(module, "migrations", lambda: found)

    return take


def test_the_migrations_make_what_the_schema_says(make_database: MakeDatabase) -> None:
    whole, stepwise = make_database(), make_database()
    with psycopg.connect(whole, autocommit=True) as connection:
        connection.execute(schema().encode())
    migrate(stepwise)
    assert rows(whole, CATALOGUE) == rows(stepwise, CATALOGUE)
    assert any(row[1] == "run_events" for row in rows(whole, CATALOGUE))


def test_migrations_are_applied_once(make_database: MakeDatabase) -> None:
    url = make_database()
    every = [f"{version:04}_{name}" for version, name, _ in migrations()]
    assert every == pending(url) == migrate(url)
    assert [] == pending(url) == migrate(url)


def test_asking_what_is_pending_changes_nothing(make_database: MakeDatabase) -> None:
    url = make_database()
    before = rows(url, CATALOGUE)
    pending(url)
    assert before == rows(url, CATALOGUE)


def test_versions_have_no_gap_and_no_name_twice() -> None:
    found = migrations()
    assert list(range(1, len(found) + 1)) == [version for version, _, _ in found]
    assert len(found) == len({name for _, name, _ in found})


def test_an_edited_migration_is_refused(make_database: MakeDatabase, files: Callable) -> None:
    url = make_database()
    files((1, "a", "create table a ()"))
    migrate(url)
    files((1, "a", "create table a (x int)"), (2, "b", "create table b ()"))
    with pytest.raises(JournalError, match="0001_a was edited after it was applied"):
        migrate(url)
    assert [] == rows(url, "select 1 from pg_tables where tablename = 'b'")


def test_a_database_that_is_newer_than_the_code_is_refused(
    make_database: MakeDatabase, files: Callable
) -> None:
    url = make_database()
    files((1, "a", "create table a ()"), (2, "b", "create table b ()"))
    migrate(url)
    files((1, "a", "create table a ()"))
    for ask in (migrate, pending):
        with pytest.raises(JournalError, match="0002_b, which this heartbit does not know: up"):
            ask(url)


def test_a_migration_that_fails_leaves_nothing_but_those_before_it(
    make_database: MakeDatabase, files: Callable
) -> None:
    url = make_database()
    files((1, "a", "create table a ()"), (2, "b", "create table b (); select 1 / 0"))
    with pytest.raises(JournalError, match="division by zero"):
        migrate(url)
    assert [("a",)] == rows(url, "select name from schema_migrations")
    assert [] == rows(url, "select 1 from pg_tables where tablename = 'b'")


def test_a_file_without_transaction_may_do_what_no_transaction_can(
    make_database: MakeDatabase, files: Callable
) -> None:
    url = make_database()
    concurrently = (
        "-- no transaction\n"
        "create index concurrently if not exists a_x on a (x);\n"
        "create index concurrently if not exists a_y on a (y);\n"
    )
    files((1, "a", "create table a (x int, y int)"), (2, "indexes", concurrently))
    assert ["0001_a", "0002_indexes"] == migrate(url)
    assert 2 == len(rows(url, "select 1 from pg_indexes where tablename = 'a'"))


def test_only_one_process_migrates_at_a_time(make_database: MakeDatabase) -> None:
    url = make_database()
    applied: list[list[str]] = []
    waiting = threading.Event()
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(%s)", [LOCK])
        released = threading.Event()

        def sleep(_: float) -> None:
            waiting.set()
            released.wait(30)

        threads = [
            threading.Thread(target=lambda: applied.append(migrate(url, sleep=sleep)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        assert waiting.wait(30)
        assert [] == applied
        holder.execute("select pg_advisory_unlock(%s)", [LOCK])
        released.set()
    for thread in threads:
        thread.join(30)
    every = [f"{version:04}_{name}" for version, name, _ in migrations()]
    assert sorted([every, []]) == sorted(applied)


def test_tables_of_another_origin_are_not_touched(make_database: MakeDatabase) -> None:
    url = make_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table runs (mine int)")
    with pytest.raises(JournalError, match="finds a table of its own there already"):
        migrate(url)
    assert [("mine",)] == rows(
        url, "select column_name from information_schema.columns where table_name = 'runs'"
    )


def test_a_missing_vector_extension_is_told_with_its_remedy(
    make_database: MakeDatabase, files: Callable
) -> None:
    files(
        (
            1,
            "vectors",
            "do $$ begin raise exception using errcode = '0A000', message = "
            "'extension \"vector\" is not available'; end $$",
        )
    )
    with pytest.raises(JournalError, match="no pgvector; install the extension `vector`"):
        migrate(make_database())


def test_a_user_who_may_not_make_tables_is_told_so(make_database: MakeDatabase) -> None:
    url = make_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop role if exists reader")
        connection.execute("create role reader login password 'readable'")
        connection.execute("revoke create on schema public from public")
    address = url.rpartition("@")[2]
    with pytest.raises(JournalError, match="user may not do this; grant it"):
        migrate(f"postgresql://reader:readable@{address}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("drop role reader")


@pytest.mark.parametrize("ask", [migrate, pending])
def test_what_is_wrong_with_a_url_is_told_without_its_password(
    postgres_server: str, ask: Callable[[str], object]
) -> None:
    server, _, database = postgres_server.rpartition("/")
    scheme, _, address = server.rpartition("@")
    user = scheme.partition("://")[2].partition(":")[0]
    wrong = {
        f"postgresql://{user}:hunter2@{address}/{database}": "refused the password",
        f"{server}/nowhere": "does not exist; create it",
        f"postgresql://{user}:hunter2@127.0.0.1:1/x": "cannot be reached .*Connection refused",
        "hunter2": "url cannot be understood",
        "postgresql://hunter2:hunter2@127.0.0.1:hunter2/x": "cannot be reached; check",
    }
    for url, sentence in wrong.items():
        with pytest.raises(JournalError, match=sentence) as told:
            ask(url)
        assert "hunter2" not in told.value.message


def test_make_migration_makes_the_next_file(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "migration.py"
    folder = tmp_path / "heartbit" / "stores" / "sql" / "migrations"
    folder.mkdir(parents=True)
    (folder / "0041_older.sql").touch()
    script.parent.mkdir()
    script.write_bytes((ROOT / "scripts" / "migration.py").read_bytes())

    def make(name: str) -> int:
        return subprocess.run([sys.executable, str(script), name], capture_output=True).returncode

    assert 0 == make("add_prices")
    assert 2 == make("../elsewhere")
    assert 2 == make("")
    assert ["0041_older.sql", "0042_add_prices.sql"] == sorted(p.name for p in folder.iterdir())
