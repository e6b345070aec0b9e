"""`heartbit chat`: a conversation, each line of it a run."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.support.command_line import Terminal, configure, heartbit, send, start
from tests.support.model_server import Call, Gate, ModelServer, Raw, Reply

# Every one of these starts programs.
pytestmark = pytest.mark.slow

PROMPT = ">"  # the blank behind it is a movement of the cursor


def prompts(server: ModelServer) -> list[str]:
    """What each request said last."""
    return [json.dumps(request.json["messages"][-1]["content"]) for request in server.requests]


def test_each_line_is_answered_and_knows_what_was_said_before(tmp_path: Path) -> None:
    """Without a terminal the lines come from stdin; an empty one ends it."""
    with ModelServer(["Hello Ada.", "Your name is Ada."]) as server:
        configure(tmp_path, server.url)
        done = heartbit("chat", cwd=tmp_path, stdin="I am Ada\nWho am I?\n\nnever read\n")
    assert (0, "Hello Ada.\nYour name is Ada.\n") == (done.code, done.out)
    first, second = prompts(server)
    assert "The conversation so far" not in first
    assert ["I am Ada", "Hello Ada.", "Who am I?"] == [
        text for text in ("I am Ada", "Hello Ada.", "Who am I?") if text in second
    ]


def test_a_failed_answer_does_not_end_the_chat(tmp_path: Path) -> None:
    """The error is one line, the next line gets an answer."""
    with ModelServer([Raw(status=400, body=b"no"), "Better."]) as server:
        configure(tmp_path, server.url)
        done = heartbit("chat", cwd=tmp_path, stdin="one\ntwo")
    assert (0, "Better.\n") == (done.code, done.out)
    assert any(line.startswith("error: ") for line in done.notes)


def test_ctrl_c_cancels_the_answer_and_at_the_prompt_the_chat(tmp_path: Path) -> None:
    """Two different things to want."""
    with ModelServer([Raw(ending="hang"), "I am back."]) as server:
        configure(tmp_path, server.url)
        with Terminal("chat", cwd=tmp_path) as terminal:
            terminal.wait_for(PROMPT)
            terminal.type("Are you there?\r")
            hanging = server.wait_for_requests(1)[0]
            terminal.interrupt()
            terminal.wait_for("cancelled")
            assert hanging.abandoned.wait(10)
            terminal.wait_for(PROMPT)
            terminal.type("And now?\r")
            terminal.wait_for("I am back.")
            terminal.wait_for(PROMPT)
            terminal.interrupt()
            assert 3 == terminal.wait()
    assert "Traceback" not in terminal.raw
    assert "(no answer: The run was cancelled.)" in prompts(server)[1]


def test_ctrl_d_ends_the_chat(tmp_path: Path) -> None:
    """As an empty line does."""
    with ModelServer([]) as server:
        configure(tmp_path, server.url)
        with Terminal("chat", cwd=tmp_path) as terminal:
            terminal.wait_for(PROMPT)
            terminal.type("\x04")
            assert 0 == terminal.wait()


def test_approvals_are_asked_for_between_the_lines(tmp_path: Path) -> None:
    """The question and the chat read from one keyboard in turn."""
    call = Call(name="bash", arguments={"command": "touch one"})
    with ModelServer([Reply(calls=(call,)), "Touched."]) as server:
        configure(tmp_path, server.url, tools='"bash"')
        with Terminal("chat", "--approve", cwd=tmp_path) as terminal:
            terminal.wait_for(PROMPT)
            terminal.type("Touch it\r")
            terminal.wait_for("a[l]l? ")
            terminal.type("a\n")
            terminal.wait_for("Touched.")
            terminal.wait_for(PROMPT)
            terminal.type("\r")
            assert 0 == terminal.wait()
    assert (tmp_path / "one").exists()


def test_sigterm_ends_a_chat_that_waits_for_a_line(tmp_path: Path) -> None:
    """After the answer that it has given."""
    gate = Gate()
    with ModelServer([Reply(text="Hello.", gate=gate)]) as server:
        configure(tmp_path, server.url)
        with Terminal("chat", cwd=tmp_path) as terminal:
            terminal.wait_for(PROMPT)
            send(terminal.process, signal.SIGTERM)
            assert 3 == terminal.wait()
    assert "Traceback" not in terminal.raw


def test_a_wrong_configuration_is_said_before_the_first_line(tmp_path: Path) -> None:
    """Exit code 2, as anywhere."""
    (tmp_path / "heartbit.toml").write_text("odd = 1\n")
    process = start("chat", cwd=tmp_path)
    _, err = process.communicate(timeout=20)
    assert 2 == process.returncode
    assert b"unknown key 'odd'" in err
