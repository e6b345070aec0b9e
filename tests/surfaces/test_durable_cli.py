"""Durable runs from the command line: real commands, a real worker, real servers."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.support.command_line import COMMAND, Done, environment, heartbit
from tests.support.durable_agents import CONFIG, addresses, wait_for_line, worker
from tests.support.shared_postgres import create_database, drop_database

pytestmark = pytest.mark.slow
MODEL = "another-model"


class Shell:
    """The command line where a worker is running."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder = folder
        self.env = env

    def __call__(self, *arguments: str, env: dict[str, str] | None = None) -> Done:
        return heartbit(*arguments, cwd=self.folder, env=self.env | (env or {}))

    def json(self, *arguments: str) -> dict:
        """The object that a command prints with --json."""
        return json.loads(self(*arguments, "--json").out)

    def asked(self, prompt: str, *flags: str) -> str:
        """The id of a run that waits for a human."""
        done = self("submit", prompt, "--wait", "--json", *flags)
        assert 4 == done.code, done
        return json.loads(done.out)["run_id"]

    def submitted(self, prompt: str) -> str:
        """The id of a run that has ended."""
        return self.json("submit", prompt, "--agent", "saver", "--wait")["run_id"]


@pytest.fixture(scope="module")
def shell(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: str, valkey_server: str
) -> Iterator[Shell]:
    """A folder with a heartbit.toml, a database of its own, and a worker that reads both."""
    with redis.Redis.from_url(valkey_server) as client:
        client.flushall()
    folder = tmp_path_factory.mktemp("durable")
    (folder / "heartbit.toml").write_text(CONFIG)
    name = f"durable_{uuid.uuid4().hex}"
    env = addresses(create_database(postgres_server, name), valkey_server)
    shell = Shell(folder, env)
    assert 0 == shell("migrate").code
    with worker(folder, env):
        yield shell
    drop_database(postgres_server, name)


def test_submit_prints_the_run_id_and_result_the_answer(shell: Shell) -> None:
    """A script can catch the id as it is."""
    done = shell("submit", "say", "good", "morning", "--agent", "saver")
    run_id = done.out.removesuffix("\n")
    assert (0, "", str(uuid.UUID(run_id))) == (done.code, done.err, run_id)
    got = shell("result", run_id, "--wait", "20")
    assert (0, "good morning\n") == (got.code, got.out)


def test_submit_wait_gives_the_result_in_the_shape_of_run(shell: Shell) -> None:
    """One shape for the library, `run --json` and durable runs."""
    durable = shell.json("submit", "look", "--agent", "saver", "--wait")
    local = json.loads(shell("run", "look", "--json").out)
    assert local.keys() == durable.keys()
    assert ("succeeded", "a lake", 1, 2) == tuple(
        durable[key] for key in ("status", "result", "tool_calls_made", "turns")
    )


def test_a_failed_run_is_exit_code_1_with_its_reason(shell: Shell) -> None:
    done = shell("submit", "fail", "--agent", "saver", "--wait")
    assert (1, "") == (done.code, done.out)
    assert "error: The provider was told to refuse." in done.notes


def test_a_run_that_has_not_ended_is_exit_code_4(shell: Shell) -> None:
    done = shell("result", shell.asked("save 1", "--agent", "saver"))
    assert (4, "") == (done.code, done.out)


def test_a_cancelled_run_is_exit_code_3(shell: Shell) -> None:
    run_id = shell.asked("save 1", "--agent", "saver")
    assert 0 == shell("cancel", run_id).code
    done = shell("result", run_id, "--wait", "20")
    assert (3, "") == (done.code, done.out)
    assert "cancelled" in done.notes
    again = shell("cancel", run_id)
    assert (0, f"{run_id} has ended already: cancelled\n") == (again.code, again.err)


def test_submit_wait_ends_at_a_question_and_says_what_to_do(shell: Shell) -> None:
    """Nobody may wait for weeks without knowing for what."""
    done = shell("submit", "save 1", "--agent", "saver", "--wait")
    assert (4, "") == (done.code, done.out)
    assert '[saver] save {\n  "text": "t1"\n}' in done.err
    assert "heartbit approve" in done.err


def test_approve_runs_the_exact_call(shell: Shell) -> None:
    run_id = shell.asked("save 1", "--agent", "saver")
    done = shell("approve", run_id)
    assert (0, 'approve: save {\n  "text": "t1"\n}\n') == (done.code, done.err)
    assert "saved t1\n" == shell("result", run_id, "--wait", "20").out


def test_several_calls_are_never_approved_by_accident(shell: Shell) -> None:
    run_id = shell.asked("save 2", "--agent", "saver")
    done = shell("approve", run_id)
    assert 2 == done.code
    assert "2 calls wait: name some with --call N, or take --all" in done.err
    assert 2 == len(shell.json("status", run_id)["pending"][0]["calls"])


def test_calls_of_a_question_that_are_not_named_are_denied(shell: Shell) -> None:
    run_id = shell.asked("save 2", "--agent", "saver")
    decided = shell.json("approve", run_id, "--call", "2")["decided"]
    assert ["deny", "approve"] == [each["verdict"] for each in decided]
    result = shell("result", run_id, "--wait", "20").out
    assert "Denied by a human reviewer: It was not approved. | saved t2\n" == result


def test_an_edit_is_checked_when_it_is_made(shell: Shell) -> None:
    """What does not fit the tool's schema decides nothing."""
    run_id = shell.asked("save 1", "--agent", "saver")
    for edit in ('{"text": 3}', "{}", "[]", "nonsense"):
        assert 2 == shell("approve", run_id, "--edit", edit).code
    assert 0 == shell("approve", run_id, "--edit", '{"text": "better"}').code
    result = shell("result", run_id, "--wait", "20").out
    assert "saved better" in result
    assert "changed the arguments" in result


def test_deciding_twice_is_an_error(shell: Shell) -> None:
    run_id = shell.asked("save 1", "--agent", "saver")
    assert 0 == shell("approve", run_id).code
    for verb in ("approve", "deny"):
        done = shell(verb, run_id)
        assert (1, "") == (done.code, done.out)
        assert f"error: Run {run_id} does not wait for a decision" in done.err


def test_nobody_approves_what_was_not_asked_yet(shell: Shell) -> None:
    """A decision is about calls that somebody has seen; those of the next turn still wait."""
    run_id = shell("submit", "later 1", "--agent", "saver").out.strip()
    done = shell("approve", run_id, "--all")
    assert (1, "", 1) == (done.code, done.out, len(done.notes))
    assert f"error: Run {run_id} does not wait for a decision" in done.err
    (shell.folder / "go").touch()
    while (status := shell.json("status", run_id))["status"] in ("queued", "running"):
        pass
    assert ("waiting", 1) == (status["status"], len(status["pending"]))


def test_a_decision_on_calls_that_have_changed_is_an_error(shell: Shell) -> None:
    """`--calls` is what a script has seen; it holds for nothing else."""
    run_id = shell.asked("save 1", "--agent", "saver")
    seen = shell.json("approvals")["approvals"]
    shown = next(each["calls_hash"] for each in seen if each["run_id"] == run_id)
    done = shell("approve", run_id, "--calls", "0" * 8)
    assert (1, 1) == (done.code, len(done.notes))
    assert 0 == shell("approve", run_id, "--calls", shown[:8]).code


def test_the_model_reads_why_it_was_denied(shell: Shell) -> None:
    run_id = shell.asked("save 2", "--agent", "saver")
    assert 0 == shell("deny", run_id, "--reason", "not today").code
    result = shell("result", run_id, "--wait", "20").out
    assert 2 == result.count("Denied by a human reviewer: not today")


def test_the_questions_of_sub_agents_are_decided_through_the_root(shell: Shell) -> None:
    """Calls are numbered through over all agents of a run."""
    run_id = shell.asked("delegate save 1; save 2")
    pending = shell.json("status", run_id)["pending"]
    assert [1, 2, 3] == [call["number"] for each in pending for call in each["calls"]]
    assert {"saver"} == {each["agent"] for each in pending}
    assert 0 == shell("approve", run_id, "--all").code
    done = shell("result", run_id, "--wait", "20")
    assert 0 == done.code
    assert "saved t1 | saved t2" in done.out


def test_status_shows_the_tree_of_agents(shell: Shell) -> None:
    run_id = shell.json("submit", "delegate say a; look", "--wait")["run_id"]
    lines = shell("status", run_id).out.splitlines()
    assert f"{run_id}  succeeded  delegate say a; look" == lines[0]
    assert lines[1].startswith("orchestrator  succeeded  2 turns, ")
    assert ["  saver  succeeded  1 turn", "  saver  succeeded  2 turns"] == sorted(
        line.split(",")[0] for line in lines[2:] if "succeeded" in line
    )
    assert "    tools: look x1" in lines
    found = shell.json("status", run_id)
    assert [None, run_id, run_id] == [each["parent_run_id"] for each in found["runs"]]


def test_runs_are_listed_newest_first(shell: Shell) -> None:
    older, newer = shell.submitted("say a"), shell.submitted("say b")
    assert [newer, older] == [each["run_id"] for each in shell.json("runs", "--limit", "2")["runs"]]
    assert newer in shell("runs", "--status", "succeeded").out
    assert newer not in shell("runs", "--status", "failed").out


def test_the_same_id_is_the_same_run(shell: Shell) -> None:
    """A script may submit again when it doesn't know whether it has."""
    flags = ("--agent", "saver", "--run-id", str(uuid.uuid4()))
    first, second = shell("submit", "say a", *flags), shell("submit", "say a", *flags)
    assert (0, first.out) == (second.code, second.out)
    other = shell("submit", "say b", *flags)
    assert (1, 1) == (other.code, len(other.notes))


def test_watch_tells_a_run_from_its_beginning_to_its_end(shell: Shell) -> None:
    done = shell("watch", shell.submitted("look"))
    assert (0, "a lake\n") == (done.code, done.out)
    assert "[saver] turn 1: look()" in done.notes


def test_watch_goes_on_after_an_offset(shell: Shell) -> None:
    """What was read is not told again, and nothing is left out."""
    run_id = shell.submitted("look")
    lines = shell("watch", run_id, "--json").out.splitlines()
    offset = json.loads(lines[1])["offset"]
    rest = shell("watch", run_id, "--json", "--from", offset).out.splitlines()
    without = [{k: v for k, v in json.loads(each).items() if k != "offset"} for each in lines[2:]]
    assert without == [
        {k: v for k, v in json.loads(each).items() if k != "offset"} for each in rest
    ]


def test_watch_sees_what_happens_meanwhile(shell: Shell) -> None:
    run_id = shell.asked("save 1", "--agent", "saver")
    notes = shell.folder / "watch.err"
    with notes.open("wb") as output:
        watching = subprocess.Popen(
            [*COMMAND, "watch", run_id],
            cwd=shell.folder,
            env=environment(shell.env),
            stdout=subprocess.PIPE,
            stderr=output,
        )
    wait_for_line(notes, "asks for approval", watching)
    shell("approve", run_id)
    out, _ = watching.communicate(timeout=20)
    assert (0, b"saved t1\n") == (watching.returncode, out)


def test_a_fork_is_a_new_run_that_keeps_what_was_done(shell: Shell) -> None:
    """Its id is all that is printed, and the look of the first turn is not taken again."""
    first = shell.submitted("look")
    done = shell("fork", first, "--from-turn", "2", "--model", MODEL)
    forked = done.out.removesuffix("\n")
    assert (0, "", str(uuid.UUID(forked))) == (done.code, done.err, forked)
    assert "a lake\n" == shell("result", forked, "--wait", "20").out
    told = shell("replay", forked).out.splitlines()
    assert f"  forked from {first} at turn 2" == told[1]
    assert MODEL == json.loads(shell("replay", forked, "--json").out.splitlines()[0])["model"]
    assert {"run_id": first, "turn": 2} == shell.json("fork", first, "--from-turn", "2")[
        "forked_from"
    ]


def test_a_fork_of_the_first_turn_can_have_another_prompt(shell: Shell) -> None:
    """Whatever the run had said."""
    (shell.folder / "prompt.txt").write_text("say something else\n")
    flags = ("--from-turn", "1", "--prompt-file", "prompt.txt", "--wait")
    done = shell("fork", shell.submitted("say a"), *flags)
    assert (0, "something else\n") == (done.code, done.out)


def test_a_fork_from_a_turn_that_never_was_says_which_there_are(shell: Shell) -> None:
    done = shell("fork", shell.submitted("look"), "--from-turn", "3")
    assert (1, "", 1) == (done.code, done.out, len(done.notes))
    assert "has the turns 1 to 2; it has no turn 3" in done.err


def test_replay_tells_what_happened_turn_by_turn(shell: Shell) -> None:
    run_id = shell.submitted("look")
    done = shell("replay", run_id)
    assert (0, "replayed: succeeded after 2 turns\n") == (done.code, done.err)
    heads = [line.split(":")[0].strip() for line in done.out.splitlines()[1:]]
    assert ["prompt", "turn 1", "calls look()", "1/tool/0 gave", "turn 2", "says", "succeeded"] == (
        heads
    )
    events = [
        json.loads(line)["type"] for line in shell("replay", run_id, "--json").out.splitlines()
    ]
    assert ["run_started", "model_replied", "tool_returned"] == events[:3]


def test_a_run_submitted_without_a_broker_is_run_all_the_same(shell: Shell) -> None:
    """The row is in the journal, and the sweep of some worker sends what was never sent."""
    nowhere = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    done = shell("submit", "say late", "--agent", "saver", env=nowhere)
    assert (0, 2) == (done.code, len(done.notes)), done.err
    assert "warning: The broker cannot be reached" in done.err
    assert "warning: Redis takes no live events" in done.err
    results = (shell("result", done.out.strip(), "--wait", "12") for _ in range(3))
    assert "late\n" == next(each.out for each in results if each.code == 0)


def test_the_doctor_finds_nothing_where_all_is_well(shell: Shell) -> None:
    found = shell.json("doctor")
    assert [] == [each for each in found["checks"] if each["level"] == "fail"]
    assert found["ok"]
    assert "all 5 are read" in shell("doctor").out
