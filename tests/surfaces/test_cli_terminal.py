"""On a terminal: the live tree never garbles the answer, and a person decides about calls."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import SECONDS, Terminal, configure, render
from tests.support.marks import slow
from tests.support.model_server import Call, Gate, ModelServer, Raw, Recorded, Reply
from tests.support.model_wires import stream_events

# Every one of these starts programs.
pytestmark = pytest.mark.slow

ASKED = "a[l]l? "
REMOVE = Call(name="bash", arguments={"command": "rm note.txt"})


def squad_of_two(request: Recorded) -> Reply:
    """An orchestrator that speaks, asks two slow agents and speaks again, without a newline."""
    if "delegate_task" not in [tool["name"] for tool in request.json.get("tools", [])]:
        return Reply(text="found", delay_seconds=0.3)
    if len(request.json["messages"]) > 1:
        return Reply(text="First line\nSecond line", piece=2)
    tasks = [{"agent": name, "task": "Look"} for name in ("researcher", "writer")]
    return Reply(text="I ask.", calls=(Call(name="delegate_task", arguments={"tasks": tasks}),))


def test_the_tree_and_the_answer_share_a_terminal(tmp_path: Path) -> None:
    """While it lasts the tree shows the agents; what stays is the text, the last tree, the sums."""
    with ModelServer(squad_of_two) as server:
        configure(tmp_path, server.url, agents=("researcher", "writer"))
        with Terminal("run", "Go on", cwd=tmp_path) as terminal:
            terminal.wait_for("writer")
            terminal.wait_for("running")
            assert 0 == terminal.wait()
    wanted = [
        "I ask.",
        "",
        "First line",
        "Second line",
        "orchestrator  done  2 turns, 40 tokens in, 20 out",
        "├── researcher  done  1 turn, 10 tokens in, 5 out",
        "└── writer  done  1 turn, 10 tokens in, 5 out",
        "40 tokens in, 20 out | 1 tool call | 2 turns",
        "",
    ]
    assert wanted == terminal.screen
    assert terminal.raw.rstrip().rfind("\x1b[?25h") > terminal.raw.rfind("\x1b[?25l")


def test_a_warning_never_stands_in_the_middle_of_a_line_of_the_answer(tmp_path: Path) -> None:
    """The stream breaks off in a line; the note about it gets its own."""
    events = stream_events("anthropic", Reply(text="A wrong start", piece=7))
    cut = Raw(headers={"content-type": "text/event-stream"}, chunks=tuple(events[:4]), ending="cut")
    with ModelServer([cut, "Right."]) as server:
        path = configure(tmp_path, server.url)
        path.write_text(path.read_text().replace("max_retries = 0", "max_retries = 1"))
        with Terminal("run", "Go on", cwd=tmp_path) as terminal:
            assert 0 == terminal.wait()
    lines = terminal.screen
    assert "A wrong" == lines[0]
    assert lines[1].startswith("[researcher] turn 1: its text starts again")
    assert "Right." in lines


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    """Nothing is drawn where nothing can be erased."""
    with ModelServer(squad_of_two) as server:
        configure(tmp_path, server.url, agents=("researcher", "writer"))
        with Terminal("run", "Go on", cwd=tmp_path, env={"TERM": "dumb"}) as terminal:
            assert 0 == terminal.wait()
    assert "\x1b" not in terminal.raw
    assert "[writer] done: 1 turn, 10 tokens in, 5 out" in terminal.screen


def test_ctrl_c_takes_the_tree_off_the_screen_and_gives_the_cursor_back(tmp_path: Path) -> None:
    """The last tree stays, as cancelled."""
    call = Call(name="list", arguments={"path": "."})
    with ModelServer([Reply(text="Wait.", calls=(call,)), Raw(ending="hang")]) as server:
        configure(tmp_path, server.url, tools='"list"')
        with Terminal("run", "Go on", cwd=tmp_path) as terminal:
            server.wait_for_requests(2)
            terminal.wait_for("running")
            terminal.interrupt()
            assert 3 == terminal.wait()
    shown = [line for line in terminal.screen if line != "^C"]
    assert "Wait." == shown[0]
    assert "10 tokens in, 5 out | 1 tool call | 2 turns" == shown[-2]
    assert 1 == sum("cancelled  1 turn" in line for line in shown)
    assert terminal.raw.rfind("\x1b[?25h") > terminal.raw.rfind("\x1b[?25l")


def test_a_model_cannot_control_the_terminal(tmp_path: Path) -> None:
    """Escapes in a text are shown, not obeyed; a pipe gets the text as it is."""
    with ModelServer(["red \x1b[31malert\x07"]) as server:
        configure(tmp_path, server.url)
        with Terminal("run", "Go on", cwd=tmp_path) as terminal:
            assert 0 == terminal.wait()
    assert "red \\u001b[31malert\\u0007" == terminal.screen[0]


def test_text_arrives_as_it_is_spoken(tmp_path: Path) -> None:
    """The first words are there while the model still thinks about the last ones."""
    gate = Gate()
    events = stream_events("anthropic", Reply(text="first last", piece=6))
    chunks: tuple[bytes | Gate, ...] = (*events[:4], gate, *events[4:])
    with ModelServer([Raw(headers={"content-type": "text/event-stream"}, chunks=chunks)]) as server:
        configure(tmp_path, server.url)
        with Terminal("run", "Go on", cwd=tmp_path) as terminal:
            terminal.wait_for("first")
            gate.open()
            terminal.wait_for("last")
            assert 0 == terminal.wait()


def ask(folder: Path, *answers: str, calls: tuple[Call, ...] = (REMOVE,)) -> tuple[Terminal, list]:
    """A run that asks about `calls` in one turn; gives its end and the results the model got."""
    (folder / "note.txt").write_text("keep me")
    with ModelServer([Reply(calls=calls), "Over."]) as server:
        configure(folder, server.url, tools='"bash"')
        with Terminal("run", "--approve", "Go on", cwd=folder) as terminal:
            for answer in answers:
                terminal.wait_for(ASKED)
                terminal.type(answer)
            terminal.wait()
    if len(server.requests) < 2:
        return terminal, []
    return terminal, server.requests[1].json["messages"][-1]["content"]


@pytest.mark.parametrize("answer", ["a\n", *slow("A\n", "yes\n", " approve \n")])
def test_an_approved_call_runs(tmp_path: Path, answer: str) -> None:
    """What is asked about is exactly what runs: agent, tool and arguments are shown."""
    terminal, _ = ask(tmp_path, answer)
    assert 0 == terminal.process.returncode
    assert "[researcher] wants to call bash" in terminal.screen
    assert '  "command": "rm note.txt"' in terminal.screen
    assert not (tmp_path / "note.txt").exists()


@pytest.mark.parametrize("answer", ["deny we need it\n", *slow("d\n", "no\n", "n\n")])
def test_a_denied_call_does_not_run_and_the_model_reads_why(tmp_path: Path, answer: str) -> None:
    """The run goes on without it."""
    terminal, results = ask(tmp_path, answer)
    assert 0 == terminal.process.returncode
    assert (tmp_path / "note.txt").exists()
    assert results[0]["is_error"]
    if "need" in answer:
        assert "we need it" in results[0]["content"]


@pytest.mark.parametrize(
    "answer", ["a rm it\n", *slow("\n", "ok\n", "\x1b[A\n", "e {\n", "e [1]\n")]
)
def test_an_unclear_answer_is_asked_again(tmp_path: Path, answer: str) -> None:
    """Nothing is approved by accident."""
    terminal, _ = ask(tmp_path, answer, "d\n")
    assert 0 == terminal.process.returncode
    assert (tmp_path / "note.txt").exists()


def test_a_call_can_be_edited(tmp_path: Path) -> None:
    """Arguments behind the letter, in place of an editor."""
    ask(tmp_path, 'e {"command": "touch other.txt"}\n')
    assert (tmp_path / "note.txt").exists()
    assert (tmp_path / "other.txt").exists()


def test_a_call_can_be_edited_in_an_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """$EDITOR gets the arguments as JSON."""
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nsed -i "s/rm note/touch other/" "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    ask(tmp_path, "e\n")
    assert (tmp_path / "note.txt").exists()
    assert (tmp_path / "other.txt").exists()


def test_an_editor_that_fails_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is one in which nothing was changed."""
    monkeypatch.setenv("VISUAL", "false")
    terminal, _ = ask(tmp_path, "e\n", "d\n")
    assert (0, True) == (terminal.process.returncode, (tmp_path / "note.txt").exists())


def touch(name: str) -> Call:
    """A call that leaves a file."""
    return Call(name="bash", arguments={"command": f"touch {name}"})


def test_all_approves_the_rest_of_a_question_and_no_more(tmp_path: Path) -> None:
    """The second call of the turn is not asked about."""
    terminal, _ = ask(tmp_path, "all\n", calls=(touch("one"), touch("two")))
    assert 0 == terminal.process.returncode
    assert [True, True] == [(tmp_path / name).exists() for name in ("one", "two")]


def test_each_call_of_a_turn_gets_its_own_answer(tmp_path: Path) -> None:
    """One denied, one approved."""
    ask(tmp_path, "d\n", "a\n", calls=(touch("one"), touch("two")))
    assert [False, True] == [(tmp_path / name).exists() for name in ("one", "two")]


def test_always_holds_for_every_agent_of_the_run(tmp_path: Path) -> None:
    """Two agents want the same tool: one question."""

    def script(request: Recorded) -> Reply:
        names = [tool["name"] for tool in request.json.get("tools", [])]
        if len(request.json["messages"]) > 1:
            return Reply(text="Over.")
        if "delegate_task" not in names:
            number = "one" if "You are one" in str(request.json["system"]) else "two"
            return Reply(calls=(touch(number),))
        tasks = [{"agent": name, "task": "Go"} for name in ("one", "two")]
        return Reply(calls=(Call(name="delegate_task", arguments={"tasks": tasks}),))

    rule = '[[permissions]]\ntool = "bash"\naction = "ask"\n'
    with ModelServer(script) as server:
        configure(tmp_path, server.url, agents=("one", "two"), tools='"bash"', more=rule)
        with Terminal("run", "Go on", cwd=tmp_path) as terminal:
            terminal.wait_for(ASKED)
            terminal.type("always\n")
            assert 0 == terminal.wait()
    assert 1 == terminal.raw.count(ASKED)
    assert [True, True] == [(tmp_path / name).exists() for name in ("one", "two")]


def test_the_end_of_the_input_leaves_the_run_waiting(tmp_path: Path) -> None:
    """Ctrl-D decides nothing."""
    terminal, _ = ask(tmp_path, "\x04")
    assert 4 == terminal.process.returncode
    assert "waiting for an approval of:" in terminal.screen
    assert (tmp_path / "note.txt").exists()


def test_ctrl_c_at_a_question_cancels_the_run(tmp_path: Path) -> None:
    """No thread is left waiting for the answer."""
    terminal, _ = ask(tmp_path, "\x03")
    assert 3 == terminal.process.returncode
    assert "cancelled" in terminal.screen
    assert "Traceback" not in terminal.raw
    assert (tmp_path / "note.txt").exists()


def test_what_was_typed_before_the_question_is_no_answer(tmp_path: Path) -> None:
    """An impatient Enter approves nothing."""
    gate = Gate()
    (tmp_path / "note.txt").write_text("keep me")
    with ModelServer([Reply(calls=(REMOVE,), gate=gate), "Over."]) as server:
        configure(tmp_path, server.url, tools='"bash"')
        with Terminal("run", "--approve", "Go on", cwd=tmp_path) as terminal:
            server.wait_for_requests(1)
            terminal.type("a\n")
            terminal.wait_for("a\r\n")
            gate.open()
            terminal.wait_for(ASKED)
            terminal.type("d\n")
            assert 0 == terminal.wait()
    assert (tmp_path / "note.txt").exists()


def test_a_prompt_from_stdin_leaves_the_terminal_for_the_questions(tmp_path: Path) -> None:
    """`heartbit run --approve - < prompt.txt`: the answers come from /dev/tty."""
    (tmp_path / "prompt.txt").write_text("Go on")
    with ModelServer([Reply(calls=(touch("one"),)), "Over."]) as server:
        configure(tmp_path, server.url, tools='"bash"')
        with (
            (tmp_path / "prompt.txt").open() as prompt,
            Terminal("run", "--approve", "-", cwd=tmp_path, stdin=prompt.fileno()) as terminal,
        ):
            terminal.wait_for(ASKED)
            terminal.type("a\n")
            assert 0 == terminal.wait()
    assert (tmp_path / "one").exists()


def test_stdout_in_a_pipe_gets_the_text_alone(tmp_path: Path) -> None:
    """The tree stays on the terminal."""
    with ModelServer(squad_of_two) as server:
        configure(tmp_path, server.url, agents=("researcher", "writer"))
        with Terminal("run", "Go on", cwd=tmp_path, stdout=subprocess.PIPE) as terminal:
            assert terminal.process.stdout is not None
            out = terminal.process.stdout.read()
            assert 0 == terminal.wait()
    assert b"I ask.\n\nFirst line\nSecond line\n" == out
    assert "orchestrator  done" in "\n".join(terminal.screen)


def test_the_renderer_of_these_tests_obeys_the_escapes_that_rich_uses() -> None:
    """Up, erase, return."""
    assert ["one", "new", ""] == render("one\r\nold\r\n\x1b[1A\x1b[2Knew\r\n")
    assert SECONDS > 0
