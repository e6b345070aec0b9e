"""`heartbit memory`: what agents remember, from the command line of the person who runs them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from heartbit.stores.memories.postgres import PostgresMemories
from tests.support.command_line import Done, Terminal, heartbit
from tests.support.memories import ME, new
from tests.support.model_server import ModelServer, Raw, Recorded, json_answer

# Every one of these starts programs.
pytestmark = pytest.mark.slow

WHOSE = ("--tenant", "t", "--user", "u")


@pytest.fixture
def database(postgres: str) -> str:
    """A database with two memories."""
    store = PostgresMemories.at(postgres)
    store.store(new("m1", "The customer prefers French.", importance=9))
    store.store(new("m2", "Invoices are sent on Fridays.\nAlways."))
    store.close()
    return postgres


def memory(database: str, *arguments: str, stdin: str = "") -> Done:
    """The command, with a database in the environment."""
    env = {"HEARTBIT_DATABASE_URL": database}
    return heartbit("memory", *arguments, cwd=Path("/"), env=env, stdin=stdin)


def test_memories_are_listed_one_a_line(database: str) -> None:
    """Those of one tenant and user; nobody else's without a word."""
    done = memory(database, "list", *WHOSE)
    expected = [
        "m1  writer  fact  The customer prefers French.",
        "m2  writer  fact  Invoices are sent on Fridays. Always.",
    ]
    assert (0, expected) == (done.code, done.out.splitlines())
    assert (0, "") == (memory(database, "list").code, memory(database, "list").out)


def test_a_look_from_outside_makes_no_memory_stronger(database: str) -> None:
    """The best comes first, with its score; its access count stays 0."""
    done = memory(database, "recall", *WHOSE, "--json", "prefers", "French")
    [found] = map(json.loads, done.out.splitlines())
    assert ("m1", 0, 9) == (found["id"], found["access_count"], found["importance"])
    assert 0 < found["score"] <= 1
    [again] = map(json.loads, memory(database, "list", *WHOSE, "--json").out.splitlines()[:1])
    assert 0 == again["access_count"]


def test_forgetting_says_what_there_is_not(database: str) -> None:
    """And forgets the rest."""
    done = memory(database, "forget", *WHOSE, "--agent", "writer", "m1", "m9")
    assert (1, "error: writer has no memory 'm9'.\n") == (done.code, done.err)
    assert ["m2"] == [line.split()[0] for line in memory(database, "list", *WHOSE).out.splitlines()]
    assert 1 == memory(database, "forget", "--agent", "writer", "m2").code


def test_an_export_goes_into_another_database_and_comes_out_the_same(
    database: str, tmp_path: Path
) -> None:
    """As a file, and through pipes; doing it twice changes nothing."""
    file = tmp_path / "memories.jsonl"
    assert 0 == memory(database, "export", *WHOSE, str(file)).code
    for id_ in ("m1", "m2"):
        memory(database, "forget", *WHOSE, "--agent", "writer", id_)
    for _ in range(2):
        done = memory(database, "import", "-", stdin=file.read_text())
        assert (0, "imported 2 memories\n") == (done.code, done.err)
    assert file.read_text() == memory(database, "export", *WHOSE).out


def test_a_file_that_is_no_export_changes_nothing(database: str) -> None:
    """One sentence with the line."""
    good = json.dumps({"id": "m3", "content": "x", "agent": ME.agent})
    done = memory(database, "import", stdin=f"{good}\nnonsense\n")
    assert 1 == done.code
    assert "error: Line 2 is no memory" in done.err
    assert "" == memory(database, "list").out


def test_a_file_in_another_charset_is_one_sentence(database: str, tmp_path: Path) -> None:
    """The line is named; nothing is stored, and nothing is internal about it."""
    file = tmp_path / "memories.jsonl"
    good = json.dumps({"id": "m3", "content": "x", "agent": ME.agent})
    file.write_bytes(f"{good}\n{good.replace('x', 'é')}\n".encode("latin-1"))
    done = memory(database, "import", str(file))
    assert (1, "error: Line 2 is no memory: it is not in UTF-8.\n") == (done.code, done.err)
    assert "" == memory(database, "list").out


def test_a_memory_cannot_control_the_terminal(postgres: str) -> None:
    """Its escapes are shown, not obeyed, in whatever part of it they are."""
    store = PostgresMemories.at(postgres)
    escape = "\x1b]0;owned\x07\x1b[31m"
    whose = replace(ME, agent=f"w{escape}")
    content = f"red {escape} {'x' * 200}"
    store.store(new(f"m{escape}", content, namespace=whose, category=f"c{escape}"))
    store.close()
    env = {"HEARTBIT_DATABASE_URL": postgres}
    for command in (("list",), ("recall", "red")):
        with Terminal("memory", *command, *WHOSE, cwd=Path("/"), env=env) as terminal:
            assert 0 == terminal.wait()
        assert "\x1b" not in terminal.raw
        assert 4 == terminal.raw.count("\\u001b]0;owned\\u0007")
        assert terminal.raw.rstrip().endswith("xxx...")


@pytest.mark.parametrize("arguments", [("list",), ("recall", "x"), ("export",)])
def test_without_a_database_there_is_one_sentence(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """Nothing to look at, and what to do about it."""
    env = {"XDG_STATE_HOME": str(tmp_path)}
    done = heartbit("memory", *arguments, cwd=tmp_path, env=env)
    assert 2 == done.code
    assert "Memories of type postgres need a database" in done.err
    file = tmp_path / "heartbit.toml"
    file.write_text("[memory]\ntype = 'in_memory'\n[provider]\nname = 'scripted'\n")
    done = heartbit("memory", "list", "--config", str(file), cwd=tmp_path, env=env)
    assert 2 == done.code
    assert "end with the process" in done.err


EMBEDDING = """
[memory]
type = "postgres"
[memory.embedding]
provider = "openai"
base_url = "{url}"
model = "hash"
"""


def embeddings(request: Recorded) -> Raw:
    """A server of embeddings that refuses what is about invoices."""
    texts = request.json["input"]
    if any("Invoices" in text for text in texts):
        return json_answer({"error": {"message": "No invoices.", "type": "bad"}}, 400)
    data = [{"index": n, "embedding": [1.0, 0.5]} for n in range(len(texts))]
    return Raw(body=json.dumps({"data": data}).encode())


def test_embedding_gives_every_memory_a_vector_that_the_model_takes(
    database: str, tmp_path: Path
) -> None:
    """What it refuses is counted, and named."""
    with ModelServer(embeddings) as server:
        (tmp_path / "heartbit.toml").write_text(EMBEDDING.format(url=server.url))
        env = {"HEARTBIT_DATABASE_URL": database}
        done = heartbit("memory", "embed", "--json", cwd=tmp_path, env=env)
        assert (1, {"embedded": 1, "left": 1}) == (done.code, json.loads(done.out))
        assert "Memory m2 cannot be embedded" in done.err
        assert 0 == memory(database, "forget", *WHOSE, "--agent", "writer", "m2").code
        done = heartbit("memory", "embed", cwd=tmp_path, env=env)
    assert (0, "embedded 0 memories, 0 have no vector") == (done.code, done.notes[-1])


def test_embedding_without_a_model_says_what_to_configure(database: str) -> None:
    """Exit code 2."""
    done = memory(database, "embed")
    assert (2, "") == (done.code, done.out)
    assert "set provider to openai or local" in done.err
