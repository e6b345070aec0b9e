"""`heartbit config`: what is wrong, and what is in effect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import Terminal, configure, heartbit

WRONG = '[provider]\nname = "anthropic"\nmodle = "m"\n[orchestrator]\nmax_turns = 0\nroutng = "x"\n'


def test_check_lists_every_problem_and_exits_2(tmp_path: Path) -> None:
    """One per line, each with file and line."""
    (tmp_path / "heartbit.toml").write_text(WRONG)
    done = heartbit("config", "check", cwd=tmp_path)
    assert (2, "") == (done.code, done.out)
    wanted = ["heartbit.toml:3: ", "heartbit.toml:5: ", "heartbit.toml:6: "]
    assert wanted == [line[: len("heartbit.toml:3: ")] for line in done.notes]


def test_check_says_which_file_is_right(tmp_path: Path) -> None:
    """Its warnings are one line each on stderr."""
    path = configure(tmp_path, "http://127.0.0.1:9", more="[heartbeat]\ngoal = 'g'\n")
    done = heartbit("config", "check", "--config", str(path), cwd=Path("/"))
    assert (0, f"ok: {path}\n") == (done.code, done.out)
    assert [f"warning: {path}: [heartbeat] is not used yet"] == done.notes


def test_check_without_a_file_says_so(tmp_path: Path) -> None:
    """The defaults are always right."""
    done = heartbit("config", "check", cwd=tmp_path)
    assert (0, "ok: no heartbit.toml here, the defaults are used\n") == (done.code, done.out)


def test_show_gives_value_and_origin_of_every_setting_and_no_secret(tmp_path: Path) -> None:
    """Aligned lines in a pipe."""
    configure(tmp_path, "http://127.0.0.1:9")
    done = heartbit("config", "show", cwd=tmp_path, env={"HEARTBIT_MAX_TURNS": "7"})
    lines = [line.split() for line in done.out.splitlines()]
    assert 0 == done.code
    assert ["provider.api_key", '"***"', "heartbit.toml:4"] in lines
    assert ["provider.prompt_caching", "false", "default"] in lines
    assert ["orchestrator.max_turns", "7", "env", "HEARTBIT_MAX_TURNS"] in lines
    assert "sk-hush" not in done.out


def test_show_as_json_is_one_object(tmp_path: Path) -> None:
    """For a program."""
    configure(tmp_path, "http://127.0.0.1:9")
    done = heartbit("config", "show", "--json", cwd=tmp_path)
    shown = json.loads(done.out)
    assert {"value": "m", "origin": "heartbit.toml:3"} == shown["provider.model"]
    assert "sk-hush" not in done.out


def test_show_on_a_terminal_is_a_table(tmp_path: Path) -> None:
    """Without brackets of a value being taken for markup."""
    configure(tmp_path, "http://127.0.0.1:9", tools='"read"')
    with Terminal("config", "show", cwd=tmp_path) as terminal:
        assert 0 == terminal.wait()
    assert terminal.screen[0].split() == ["setting", "value", "origin"]
    assert any('["read"]' in line for line in terminal.screen)


@pytest.mark.parametrize("command", ["check", "show"])
def test_a_file_that_is_named_but_missing_is_an_error(tmp_path: Path, command: str) -> None:
    """By flag or by variable."""
    done = heartbit("config", command, cwd=tmp_path, env={"HEARTBIT_CONFIG": "gone.toml"})
    assert (2, "") == (done.code, done.out)
    assert 1 == len(done.notes)
    assert "gone.toml: there is no such file" in done.notes[0]


TOOLS = """
import heartbit

@heartbit.tool(name="reserve")
def book(room: str) -> str:
    return room

@heartbit.tool(effect="transactional")
def note(text: str) -> str:
    return text

class Nothing: ...
"""
LISTING = """
[provider]
name = "scripted"

[[agents]]
name = "clerk"
description = "d"
system_prompt = "s"
tools = [
    "read",
    {tools}
]
"""


def listing(tmp_path: Path, *tools: str, more: str = "") -> Path:
    """A configuration in which an agent lists these tools of a module beside it."""
    (tmp_path / "desk.py").write_text(TOOLS)
    path = tmp_path / "heartbit.toml"
    listed = ",\n    ".join(f'"{tool}"' for tool in tools)
    path.write_text(LISTING.replace("{tools}", listed) + more)
    return path


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ("dask:book", "Tool dask:book: there is no module dask"),
        ("desk:bok", "Tool desk:bok: desk has no attribute bok. Did you mean book?"),
        ("desk:Nothing", "Tool desk:Nothing: it is a class, not a tool"),
    ],
)
def test_check_imports_the_tools_and_says_which_cannot_be_had(
    tmp_path: Path, tool: str, message: str
) -> None:
    """With the line of the entry and the agent that lists it; no traceback."""
    listing(tmp_path, "desk:book", tool)
    done = heartbit("config", "check", cwd=tmp_path)
    assert (2, "") == (done.code, done.out)
    [note] = done.notes
    assert note.startswith(f"heartbit.toml:12: {message}"), note
    assert note.endswith("(listed by [[agents]] 'clerk')")


def test_check_tries_the_options_of_each_tool(tmp_path: Path) -> None:
    """An effect that a tool cannot have is found before anything runs."""
    more = '[[tools]]\nname = "note"\neffect = "pure"\n'
    listing(tmp_path, "desk:note", more=more)
    done = heartbit("config", "check", cwd=tmp_path)
    assert 2 == done.code
    assert "no option can make it pure" in done.notes[0]


def test_check_warns_of_options_that_are_about_no_tool(tmp_path: Path) -> None:
    """A reference and a tool's own name are about it; a slip of the keyboard is about nothing."""
    names = ["read", "desk:note", "reserve", "resreve"]
    more = "".join(f'[[tools]]\nname = "{name}"\ntimeout_seconds = 5\n' for name in names)
    listing(tmp_path, "desk:note", "desk:book", more=more)
    done = heartbit("config", "check", cwd=tmp_path)
    assert 0 == done.code, done.notes
    assert ["warning: heartbit.toml:23: [[tools]] 'resreve' is about no agent's tool"] == done.notes


def test_check_does_not_guess_what_an_mcp_server_calls_its_tools(tmp_path: Path) -> None:
    """Only the server knows."""
    more = 'mcp_servers = ["http://127.0.0.1:9"]\n[[tools]]\nname = "far"\ntimeout_seconds = 5\n'
    listing(tmp_path, "desk:book", more=more)
    done = heartbit("config", "check", cwd=tmp_path)
    assert (0, []) == (done.code, done.notes)


def test_one_identical_call_would_be_none_at_all(tmp_path: Path) -> None:
    """The number is that of the turn in a row which is not run any more."""
    listing(tmp_path, "desk:book", more="[orchestrator]\nmax_identical_tool_calls = 1\n")
    done = heartbit("config", "check", cwd=tmp_path)
    assert 2 == done.code
    assert done.notes[0].endswith("must be at least 2, not 1"), done.notes
