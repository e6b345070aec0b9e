"""Whatever a person gets wrong: one sentence on stderr, the exit code, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import Done, configure, heartbit
from tests.support.model_server import ModelServer, Raw, json_answer

UNUSED = "http://127.0.0.1:9"


def one_sentence(done: Done, code: int) -> str:
    """The only line on stderr, for a command that printed nothing else."""
    assert (code, "") == (done.code, done.out), done.err
    assert "Traceback" not in done.err
    assert 1 == len(done.notes), done.err
    return done.notes[0]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["stauts"], "did you mean `heartbit status`?"),
        (["elephants"], "did you mean `heartbit run 'elephants'`?"),
        (["chatt"], "did you mean `heartbit chat`?"),
        (["confg", "show"], "did you mean `heartbit config show`?"),
        (["-"], "heartbit run -"),
        (["run"], "PROMPT"),
        (["run", ""], "the prompt is empty"),
        (["run", "  "], "the prompt is empty"),
        (["run", "-"], "the prompt is empty"),
        (["run", "--jsn", "Go"], "--json"),
        (["--verison"], "--version"),
        (["run", "--model"], "--model"),
        (["Compare these", "--json"], "flags need a command: `heartbit run --json ...`"),
        (["config", "chek"], "check"),
        (["run", "--config", "no.toml", "Go on"], "no.toml: there is no such file"),
        (["run", "--provider", "antropic", "Go on"], "did you mean 'anthropic'?"),
        (["run", b"Go \xff on".decode(errors="surrogateescape")], "not valid UTF-8"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    tmp_path: Path, arguments: list[str], wanted: str
) -> None:
    """And never a call to the model."""
    with ModelServer([]) as server:
        configure(tmp_path, server.url)
        done = heartbit(*arguments, cwd=tmp_path)
    assert wanted in one_sentence(done, 2)
    assert [] == server.requests


def test_a_prompt_on_stdin_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """With the place of the first wrong byte."""
    configure(tmp_path, UNUSED)
    done = heartbit("run", "-", cwd=tmp_path, stdin=b"abc\xff")
    assert "not UTF-8 (byte 4)" in one_sentence(done, 2)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[provider\n", "heartbit.toml:1: not valid TOML"),
        ('[provider]\nname = "anthropic"\nmodle = "m"\n', "heartbit.toml:3: unknown key 'modle'"),
        ("[orchestrator]\nmax_turns = 'many'\n", "heartbit.toml:2: 'max_turns'"),
        ("\xff", "heartbit.toml: the file is not UTF-8"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(tmp_path: Path, text: str, wanted: str) -> None:
    """A heartbit.toml in the working directory is used, so a wrong one is seen."""
    (tmp_path / "heartbit.toml").write_bytes(text.encode("latin-1"))
    done = heartbit("run", "Go on", cwd=tmp_path)
    assert wanted in one_sentence(done, 2)


def test_without_a_key_the_person_is_told_which_variable_to_set(tmp_path: Path) -> None:
    """Before anything is sent anywhere."""
    done = heartbit("run", "Go on", cwd=tmp_path)
    assert "ANTHROPIC_API_KEY" in one_sentence(done, 2)


def test_a_tool_that_does_not_exist_is_a_wrong_configuration(tmp_path: Path) -> None:
    """It is found when the run opens, before the first call."""
    configure(tmp_path, UNUSED, tools='"reed"')
    assert "reed" in one_sentence(heartbit("run", "Go on", cwd=tmp_path), 2)


def failed(done: Done) -> str:
    """The sentence of a run that failed."""
    assert 1 == done.code, done.err
    assert "Traceback" not in done.err
    (sentence,) = [line for line in done.notes if line.startswith("error: ")]
    return sentence


def test_an_unreachable_server_is_one_sentence(tmp_path: Path) -> None:
    """Where it was looked for is in it."""
    configure(tmp_path, UNUSED)
    assert "127.0.0.1" in failed(heartbit("run", "Go on", cwd=tmp_path))


@pytest.mark.parametrize("wire", ["anthropic", "openai"])
@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (json_answer({"error": {"message": "bad key sk-hush"}}, status=401), "401"),
        (Raw(body=b"<html>hello</html>", headers={"content-type": "text/html"}), ""),
        (Raw(body=b"\x00\xff\x00"), ""),
        (Raw(ending="abort"), ""),
        (Raw(status=500, body=b"oops"), "500"),
    ],
    ids=["401", "html", "binary", "abort", "500"],
)
def test_a_provider_that_answers_nonsense_is_one_sentence(
    tmp_path: Path, wire: str, answer: Raw, wanted: str
) -> None:
    """The key is not in it, even where the provider repeats it."""
    with ModelServer([answer]) as server:
        configure(tmp_path, server.url, wire=wire)
        done = heartbit("run", "Go on", cwd=tmp_path)
    assert wanted in failed(done)
    assert "sk-hush" not in done.err


@pytest.mark.parametrize("flags", [["--debug", "run"], ["run", "--debug"]])
def test_debug_shows_the_traceback_of_an_internal_error(tmp_path: Path, flags: list[str]) -> None:
    """Without the flag the same error is one sentence that names the flag."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, heartbit.config\n"
        "def broken(*args, **named): raise ZeroDivisionError('odd\\nthing')\n"
        "sys.modules['heartbit.config.load']._load = broken\n"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
    plain = heartbit("run", "Go on", cwd=tmp_path, env=env)
    wanted = "error: internal error: ZeroDivisionError: odd thing; run again with --debug."
    assert wanted == one_sentence(plain, 1)
    shown = heartbit(*flags, "Go on", cwd=tmp_path, env=env)
    assert "Traceback" in shown.err


def test_a_full_disk_under_stdout_is_said(tmp_path: Path) -> None:
    """The answer is lost, so the exit code is not 0."""
    import subprocess

    from tests.support.command_line import COMMAND, SECONDS, environment

    with ModelServer(["An answer."]) as server, open("/dev/full", "wb") as full:
        configure(tmp_path, server.url)
        done = subprocess.run(
            [*COMMAND, "run", "Go on"],
            cwd=tmp_path,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=SECONDS,
            check=False,
        )
    assert 1 == done.returncode
    assert b"error: the answer could not be written: No space left on device." in done.stderr
    assert b"Traceback" not in done.stderr
