"""`heartbit run` as a process: what goes to stdout, what to stderr, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import configure, heartbit
from tests.support.marks import slow
from tests.support.model_server import Call, ModelServer, Raw, Recorded, Reply, json_answer
from tests.support.model_wires import stream_events

SCHEMA = """
[agents.response_schema]
type = "object"
required = ["colour"]
properties = { colour = { type = "string" } }
"""
PRICES = '[pricing."m"]\ninput_per_million = 1000\noutput_per_million = 0\n'


def with_two_agents(request: Recorded) -> Reply:
    """An orchestrator that asks two agents and then answers."""
    if "delegate_task" not in [tool["name"] for tool in request.json.get("tools", [])]:
        return Reply(text="a finding", piece=3)
    if len(request.json["messages"]) > 1:
        return Reply(text="Both agree.")
    tasks = [{"agent": name, "task": f"Look, {name}"} for name in ("researcher", "writer")]
    return Reply(text="I ask.", calls=(Call(name="delegate_task", arguments={"tasks": tasks}),))


@pytest.mark.parametrize("wire", ["anthropic", "openai"])
def test_the_answer_is_on_stdout_and_everything_else_on_stderr(tmp_path: Path, wire: str) -> None:
    """On both wires: the text, ended by a newline, and nothing beside it."""
    with ModelServer([Reply(text="Forty-two.")]) as server:
        configure(tmp_path, server.url, wire=wire)
        done = heartbit("run", "What", "is", "it?", cwd=tmp_path)
    assert (0, "Forty-two.\n") == (done.code, done.out)
    assert "[researcher] turn 1: answered" in done.notes
    assert "10 tokens in, 5 out | 0 tool calls | 1 turn" == done.notes[-1]
    assert "What is it?" in json.dumps(server.requests[0].json["messages"])
    assert "sk-hush" not in done.err + done.out


def test_turns_that_both_spoke_are_apart_by_a_blank_line_and_sub_agents_are_silent(
    tmp_path: Path,
) -> None:
    """Only the agent that answers the prompt speaks on stdout."""
    with ModelServer(with_two_agents) as server:
        configure(tmp_path, server.url, agents=("researcher", "writer"))
        done = heartbit("run", "Ask them", cwd=tmp_path)
    assert (0, "I ask.\n\nBoth agree.\n") == (done.code, done.out)
    assert "[writer] started: Look, writer" in done.notes
    assert "[writer] done: 1 turn, 10 tokens in, 5 out" in done.notes
    assert "40 tokens in, 20 out | 1 tool call | 2 turns" == done.notes[-1]


def test_json_is_exactly_one_object(tmp_path: Path) -> None:
    """No streamed text beside it; progress stays on stderr."""
    with ModelServer([Reply(text="Done.", cache_read_tokens=3)]) as server:
        configure(tmp_path, server.url, more=PRICES)
        done = heartbit("run", "--json", "Do it", cwd=tmp_path)
    output = json.loads(done.out)
    wanted = {
        "status": "succeeded",
        "result": "Done.",
        "structured": None,
        "tool_calls_made": 0,
        "turns": 1,
        "cost_usd": pytest.approx(0.013),
    }
    assert wanted == {key: output[key] for key in wanted}
    assert {"run_id", "usage", "error"} < set(output)
    assert 3 == output["usage"]["cache_read_tokens"]
    assert "[researcher] turn 1: answered" in done.notes


def test_the_last_line_tells_cost_and_cache_only_when_there_is_something_to_tell(
    tmp_path: Path,
) -> None:
    """The cost is known once the model has a price."""
    reply = Reply(text="Done.", cache_read_tokens=1000, cache_write_tokens=20)
    with ModelServer([reply]) as server:
        configure(tmp_path, server.url, more=PRICES)
        done = heartbit("run", "Do it", cwd=tmp_path)
    wanted = "10 tokens in, 5 out | cache: 1,000 read, 20 written | 0 tool calls | 1 turn | $1.0300"
    assert wanted == done.notes[-1]


def test_a_structured_result_is_printed_as_json(tmp_path: Path) -> None:
    """What a schema asked for is the result, so it stands on stdout."""
    answer = Call(name="__respond__", arguments={"colour": "blue"})
    with ModelServer([Reply(calls=(answer,))]) as server:
        configure(tmp_path, server.url, more=SCHEMA)
        done = heartbit("run", "Which", "colour?", cwd=tmp_path)
    assert (0, {"colour": "blue"}) == (done.code, json.loads(done.out))


def test_verbose_prints_every_event_as_json_on_stderr(tmp_path: Path) -> None:
    """The same objects as `on_event` hears, text included."""
    with ModelServer([Reply(text="Done.")]) as server:
        configure(tmp_path, server.url)
        done = heartbit("run", "-v", "Do it", cwd=tmp_path)
    events = [json.loads(line.removeprefix("[event] ")) for line in done.notes if "[event]" in line]
    wanted = ["run_started", "run_routed", "text_delta", "model_replied", "run_finished"]
    assert wanted == [event["type"] for event in events]
    assert "Done.\n" == done.out


def test_a_text_that_starts_again_is_announced(tmp_path: Path) -> None:
    """What a broken stream had said is void, and stands on lines of its own."""
    events = stream_events("anthropic", Reply(text="A wrong start", piece=7))
    cut = Raw(headers={"content-type": "text/event-stream"}, chunks=tuple(events[:4]), ending="cut")
    with ModelServer([cut, "Right."]) as server:
        path = configure(tmp_path, server.url)
        path.write_text(path.read_text().replace("max_retries = 0", "max_retries = 1"))
        done = heartbit("run", "Go on", cwd=tmp_path)
    assert (0, "A wrong\n\nRight.\n") == (done.code, done.out), done.err
    assert any("turn 1: its text starts again" in line for line in done.notes), done.err


def test_a_dash_reads_the_prompt_from_stdin(tmp_path: Path) -> None:
    """Any text, on any number of lines."""
    with ModelServer(["Read."]) as server:
        configure(tmp_path, server.url)
        done = heartbit("run", "-", cwd=tmp_path, stdin="Größe\nof the file?\n")
    assert (0, "Read.\n") == (done.code, done.out)
    sent = json.dumps(server.requests[0].json["messages"], ensure_ascii=False)
    assert "Größe\\nof the file?" in sent


@pytest.mark.parametrize(
    "words", [["Go", "-", "now"], *slow(["Compare three"], ["Compare", "three"])]
)
def test_words_without_a_command_are_a_prompt(tmp_path: Path, words: list[str]) -> None:
    """Several words, or one argument with a blank."""
    with ModelServer(["Compared."]) as server:
        configure(tmp_path, server.url)
        done = heartbit(*words, cwd=tmp_path)
    assert (0, "Compared.\n") == (done.code, done.out)
    assert " ".join(words) in json.dumps(server.requests[0].json)


@pytest.mark.parametrize("before", [True, False], ids=["before run", "after run"])
def test_config_may_stand_before_or_after_the_command(tmp_path: Path, before: bool) -> None:
    """The flag is the command's and the program's."""
    (tmp_path / "elsewhere").mkdir()
    with ModelServer(["Found."]) as server:
        flag = ["--config", str(configure(tmp_path, server.url))]
        words = [*flag, "run", "Go on"] if before else ["run", *flag, "Go on"]
        done = heartbit(*words, cwd=tmp_path / "elsewhere")
    assert (0, "Found.\n") == (done.code, done.out)


def test_model_on_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    """Flags before the file."""
    with ModelServer(["Hello."]) as server:
        configure(tmp_path, server.url)
        heartbit("run", "--model", "other", "Go on", cwd=tmp_path)
    assert "other" == server.requests[0].json["model"]


def test_a_failed_run_exits_1_says_why_and_what_was_used(tmp_path: Path) -> None:
    """Also with --json, where the object tells the same."""
    refusal = json_answer({"type": "error", "error": {"type": "x", "message": "Never"}}, status=400)
    calls = Reply(calls=(Call(name="nothing"),))
    for flags in ([], ["--json"]):
        with ModelServer([calls, refusal]) as server:
            configure(tmp_path, server.url)
            done = heartbit("run", *flags, "Go on", cwd=tmp_path)
        assert 1 == done.code
        assert any(line.startswith("error: ") and "Never" in line for line in done.notes)
        assert "10 tokens in, 5 out | 1 tool call | 2 turns" == done.notes[-1]
    assert "failed" == json.loads(done.out)["status"]


def test_a_run_that_nobody_can_approve_ends_waiting_with_the_calls_and_the_remedy(
    tmp_path: Path,
) -> None:
    """Exit code 4: never allowed because nobody was there."""
    call = Call(name="write", arguments={"file_path": "x.txt", "content": "hello"})
    with ModelServer([Reply(calls=(call,))]) as server:
        configure(tmp_path, server.url, tools='"write"')
        done = heartbit("run", "--approve", "Write", "it", cwd=tmp_path)
    assert 4 == done.code
    assert "waiting for an approval of:" in done.notes
    assert "[researcher] write {" in done.notes
    assert '  "content": "hello"' in done.notes
    assert any("in a terminal with --approve" in line for line in done.notes)
    assert not (tmp_path / "x.txt").exists()


def test_a_pending_approval_is_in_the_json(tmp_path: Path) -> None:
    """A program can see what the run waits for."""
    call = Call(name="list", arguments={"path": "."})
    with ModelServer([Reply(calls=(call,))]) as server:
        rule = '[[permissions]]\ntool = "list"\naction = "ask"\n'
        configure(tmp_path, server.url, tools='"list"', more=rule)
        done = heartbit("run", "--json", "List", "it", cwd=tmp_path)
    output = json.loads(done.out)
    assert (4, "waiting") == (done.code, output["status"])
    assert {"path": "."} == output["pending"][0]["calls"][0]["arguments"]


def test_text_that_the_encoding_of_stdout_lacks_is_escaped(tmp_path: Path) -> None:
    """A pipe in an old encoding is no reason to fail."""
    with ModelServer(["5 € → ok"]) as server:
        configure(tmp_path, server.url)
        done = heartbit("run", "Go on", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert (0, "5 \\u20ac \\u2192 ok\n") == (done.code, done.out)


def test_an_mcp_server_that_cannot_be_reached_is_a_warning_in_one_line(tmp_path: Path) -> None:
    """The run goes on without its tools."""
    with ModelServer(["Without tools."]) as server:
        path = configure(tmp_path, server.url)
        path.write_text(path.read_text() + 'mcp_servers = ["http://127.0.0.1:9/mcp"]\n')
        done = heartbit("run", "Go on", cwd=tmp_path)
    assert (0, "Without tools.\n") == (done.code, done.out)
    (warning,) = [line for line in done.notes if line.startswith("warning: ")]
    assert "127.0.0.1:9" in warning
    assert "Traceback" not in done.err


def test_a_warning_about_the_configuration_is_one_line(tmp_path: Path) -> None:
    """Settings of parts that are not built yet, for instance."""
    with ModelServer(["Fine."]) as server:
        configure(tmp_path, server.url, more="[heartbeat]\ngoal = 'x'\n")
        done = heartbit("run", "Go on", cwd=tmp_path)
    assert "warning: heartbit.toml: [heartbeat] is not used yet" == done.notes[0]
    assert "Fine.\n" == done.out
