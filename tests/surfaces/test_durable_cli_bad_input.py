"""What is wrong around durable runs is said in one sentence, with the exit code of its kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Done, heartbit
from tests.support.durable_agents import CONFIG, addresses
from tests.support.marks import slow
from tests.support.services import DatabaseMaker

# Every one of these starts programs.
pytestmark = pytest.mark.slow

NOWHERE = "redis://127.0.0.1:1/0"
UNKNOWN = "00000000-0000-0000-0000-000000000000"
VERBS = ("status", "result", "cancel", "approve", "deny", "replay", "watch")
OF_A_RUN = [*((verb, UNKNOWN) for verb in VERBS), ("fork", UNKNOWN, "--from-turn", "1")]
ASKING = [("runs",), ("approvals",), ("submit", "say a"), *OF_A_RUN]


def by_name(arguments: tuple[str, ...]) -> str:
    """What a case is called."""
    return arguments[0]


def told(done: Done, code: int) -> str:
    """The one sentence of a command that could not answer."""
    assert (code, "") == (done.code, done.out), done
    (sentence,) = done.notes
    return sentence


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a heartbit.toml that names no servers."""
    (tmp_path / "heartbit.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    """An environment in which no `heartbit dev` is found."""
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.mark.parametrize("arguments", [OF_A_RUN[0], *slow(*OF_A_RUN[1:])], ids=by_name)
def test_an_unknown_run_is_exit_code_1(
    arguments: tuple[str, ...], folder: Path, postgres: str
) -> None:
    done = heartbit(*arguments, cwd=folder, env=addresses(postgres, NOWHERE))
    assert f"error: There is no run {UNKNOWN}." == told(done, 1)


def test_what_can_be_no_run_id_is_an_unknown_run(folder: Path, postgres: str) -> None:
    done = heartbit("status", "nonsense", cwd=folder, env=addresses(postgres, NOWHERE))
    assert "error: There is no run nonsense." == told(done, 1)


@pytest.mark.parametrize("arguments", [("migrate",), ASKING[0], *slow(*ASKING[1:])], ids=by_name)
def test_without_a_database_it_is_exit_code_2(
    arguments: tuple[str, ...], folder: Path, alone: dict[str, str]
) -> None:
    done = heartbit(*arguments, cwd=folder, env=alone)
    sentence = told(done, 2)
    assert all(way in sentence for way in ("[database]", "$HEARTBIT_DATABASE_URL", "heartbit dev"))


@pytest.mark.parametrize("arguments", [("runs",), ("migrate",)], ids=by_name)
def test_a_wrong_password_is_one_sentence_without_it(
    arguments: tuple[str, ...], folder: Path, postgres: str
) -> None:
    wrong = f"postgresql://heartbit:hush-hush@{postgres.rpartition('@')[2]}"
    sentence = told(heartbit(*arguments, cwd=folder, env=addresses(wrong, NOWHERE)), 1)
    assert "password" in sentence
    assert "hush" not in sentence


def test_a_database_that_cannot_be_reached_is_one_sentence(folder: Path) -> None:
    env = addresses("postgresql://heartbit:hush@127.0.0.1:1/heartbit", NOWHERE)
    sentence = told(heartbit("runs", cwd=folder, env=env), 1)
    assert "cannot be reached" in sentence
    assert "hush" not in sentence


@pytest.mark.slow
def test_a_database_without_our_tables_says_to_migrate(
    folder: Path, make_database: DatabaseMaker
) -> None:
    env = addresses(make_database(), NOWHERE)
    for arguments in (["runs"], ["submit", "say a", "--agent", "saver"]):
        assert "heartbit migrate" in told(heartbit(*arguments, cwd=folder, env=env), 1)


@pytest.mark.slow
def test_migrate_applies_what_is_missing_and_says_so(
    folder: Path, make_database: DatabaseMaker
) -> None:
    """It can be run at any time, and --check changes nothing."""
    env = addresses(make_database(), NOWHERE)
    check = heartbit("migrate", "--check", cwd=folder, env=env)
    assert (1, True) == (check.code, check.out.startswith("missing: 0001_"))
    first = heartbit("migrate", cwd=folder, env=env)
    assert (0, True) == (first.code, first.out.startswith("applied: 0001_"))
    again = heartbit("migrate", "--json", cwd=folder, env=env)
    assert (0, {"applied": []}) == (again.code, json.loads(again.out))
    assert 0 == heartbit("migrate", "--check", cwd=folder, env=env).code


@pytest.mark.slow
def test_an_unknown_agent_is_exit_code_2_and_leaves_no_run(folder: Path, postgres: str) -> None:
    env = addresses(postgres, NOWHERE)
    done = heartbit("submit", "say a", "--agent", "nobody", cwd=folder, env=env)
    assert "There is no agent 'nobody'; there are saver, reader" in told(done, 2)
    assert {"runs": []} == json.loads(heartbit("runs", "--json", cwd=folder, env=env).out)


@pytest.mark.parametrize("prompt", ["", "  ", "\udcff"])
def test_a_prompt_that_is_none_is_exit_code_2(prompt: str, folder: Path, postgres: str) -> None:
    told(heartbit("submit", prompt, cwd=folder, env=addresses(postgres, NOWHERE)), 2)


@pytest.mark.slow
def test_an_offset_that_is_none_is_exit_code_2(folder: Path, postgres: str) -> None:
    env = addresses(postgres, NOWHERE)
    flags = ("--agent", "saver", "--json")
    run_id = json.loads(heartbit("submit", "say a", *flags, cwd=folder, env=env).out)["run_id"]
    done = heartbit("watch", run_id, "--from", "yesterday", cwd=folder, env=env)
    assert "'yesterday' is no offset" in told(done, 2)


@pytest.mark.slow
def test_the_doctor_says_what_is_missing_and_the_remedy(
    folder: Path, make_database: DatabaseMaker
) -> None:
    env = addresses(make_database(), NOWHERE)
    done = heartbit("doctor", cwd=folder, env=env)
    assert (1, "") == (done.code, done.err)
    lines = done.out.splitlines()
    assert "      Run `heartbit migrate`." == lines[1 + find(lines, "fail  migrations")]
    assert "broker_url" in lines[1 + find(lines, "fail  broker")]


@pytest.mark.slow
def test_the_doctor_goes_on_without_a_database(
    folder: Path, alone: dict[str, str], valkey: str
) -> None:
    """What is wrong with one thing says nothing about the next one."""
    done = heartbit("doctor", "--json", cwd=folder, env=alone | {"CELERY_BROKER_URL": valkey})
    levels = {each["name"]: each["level"] for each in json.loads(done.out)["checks"]}
    assert (1, "fail", "ok", "fail") == (
        done.code,
        levels["database"],
        levels["eviction"],
        levels["workers"],
    )


def find(lines: list[str], start: str) -> int:
    """Where the line stands that starts so."""
    return next(number for number, line in enumerate(lines) if line.startswith(start))


FORKS = [
    (("--from-turn", "1", "--prompt-file", "bytes.txt"), "cannot be read as text"),
    ((), "--from-turn"),
    (("--from-turn", "0"), "0 is not in the range"),
    (("--from-turn", "x"), "'x' is not a valid integer"),
    (("--from-turn", "1", "--prompt-file", "none.txt"), "'none.txt' does not exist"),
    (("--from-turn", "1", "--prompt-file", "empty.txt"), "empty.txt holds no text"),
]


@pytest.mark.parametrize(
    "case", [FORKS[0], *slow(*FORKS[1:])], ids=lambda case: " ".join(case[0]) or "no turn"
)
def test_a_fork_that_cannot_be_meant_is_exit_code_2(
    case: tuple[tuple[str, ...], str], folder: Path, alone: dict[str, str]
) -> None:
    (folder / "empty.txt").write_text(" \n")
    (folder / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    arguments, problem = case
    done = heartbit("fork", UNKNOWN, *arguments, cwd=folder, env=alone)
    assert (2, "") == (done.code, done.out)
    assert problem in done.err
