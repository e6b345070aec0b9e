"""glob, grep and list: what is found, what is left out, and where they stop."""

from __future__ import annotations

import asyncio
import os
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.tools.builtin import search
from heartbit.tools.builtin.deadline import Deadline
from heartbit.tools.builtin.globs import compile_glob
from heartbit.tools.builtin.walk import Walk
from tests.support.builtin_tools import ToolUser, until


@pytest.fixture
def agent(tmp_path: Path) -> ToolUser:
    return ToolUser(tmp_path)


def tree(root: Path, *paths: str) -> None:
    """Files that hold their own path."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"this is {path}\n")


def test_glob_finds_files_by_pattern_the_least_nested_first(
    agent: ToolUser, tmp_path: Path
) -> None:
    tree(tmp_path, "z.py", "a/b/c.py", "a/m.py", "a/m.txt")
    assert "z.py\na/m.py\na/b/c.py" == agent.ok("glob", pattern="**/*.py")
    assert "z.py" == agent.ok("glob", pattern="*.py")
    assert "a/m.py\na/m.txt" == agent.ok("glob", pattern="m.{py,txt}", path="a")
    assert "No files match." == agent.ok("glob", pattern="*.rs")


def test_glob_and_list_leave_out_what_is_hidden_or_bulky(agent: ToolUser, tmp_path: Path) -> None:
    tree(tmp_path, "a.py", ".git/b.py", ".c.py", "node_modules/d.py", "target/e.py")
    assert "a.py" == agent.ok("glob", pattern="**/*.py")
    assert "./\n  a.py" == agent.ok("list")
    assert "a.py:1: this is a.py" == agent.ok("grep", pattern="this")
    assert ".git/b.py" == agent.ok("glob", pattern="**", path=".git")


def test_glob_stops_at_a_hundred_and_says_how_many_there_are(
    agent: ToolUser, tmp_path: Path
) -> None:
    tree(tmp_path, *(f"{n:03}.txt" for n in range(120)))
    lines = agent.ok("glob", pattern="*").split("\n")
    assert [f"{n:03}.txt" for n in range(100)] == lines[:-1]
    assert lines[-1].startswith("[100 of 120 files")


@pytest.mark.parametrize("pattern", ["/etc/*", "../*", "a/../../b"])
def test_glob_patterns_cannot_leave_the_directory(agent: ToolUser, pattern: str) -> None:
    assert "is relative" in agent.fails("glob", pattern=pattern)


def test_a_pattern_with_too_many_alternatives_is_refused(agent: ToolUser) -> None:
    assert "at most 100" in agent.fails("glob", pattern="{a,b}" * 20)


def test_glob_of_a_file_or_a_missing_directory_is_an_error(agent: ToolUser, tmp_path: Path) -> None:
    tree(tmp_path, "source/a.py")
    assert "source/a.py is not a directory" in agent.fails("glob", pattern="*", path="source/a.py")
    refusal = agent.fails("glob", pattern="*", path="sorce")
    assert "sorce does not exist. Did you mean source?" == refusal


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("**/*.py", "a.py", True),
        ("**/*.py", "a/b/c.py", True),
        ("*.py", "a/b.py", False),
        ("a/**", "a/b/c", True),
        ("a/**", "a", True),
        ("a/**/d", "a/b/c/d", True),
        ("a/**/d", "a/d", True),
        ("a/**/d", "a/b/c", False),
        ("**", "a/b", True),
        ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False),
        ("?.txt", "ab.txt", False),
        ("{src,tests}/*.{py,pyi}", "tests/a.pyi", True),
        ("{src,tests}/*.{py,pyi}", "docs/a.py", False),
        ("x{,.bak}", "x", True),
        ("[", "[", True),
        ("A.txt", "a.txt", False),
    ],
)
def test_globs_mean_what_people_expect(pattern: str, path: str, fits: bool) -> None:
    assert fits == compile_glob(pattern)(path)


@given(st.text("ab*?[]!-", min_size=1), st.text("ab", min_size=1))
def test_within_one_name_globs_agree_with_fnmatch(pattern: str, name: str) -> None:
    if pattern != "**":
        assert fnmatchcase(name, pattern) == compile_glob(pattern)(name)


def test_hostile_globs_are_matched_in_no_time() -> None:
    assert not compile_glob("*a" * 50 + "b")("a" * 250)
    assert not compile_glob("**/a/" * 50 + "b")("a/" * 250 + "c")


def test_grep_shows_path_number_and_line(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo 42\r\nthree\n")
    tree(tmp_path, "sub/b.txt")
    assert r"a.txt:2: two 42" == agent.ok("grep", pattern=r"\d+")
    assert "sub/b.txt:1: this is sub/b.txt" == agent.ok("grep", pattern="this", path="sub")
    assert "a.txt:3: three" == agent.ok("grep", pattern="^th", path="a.txt")
    assert "No matches." == agent.ok("grep", pattern="four")


def test_grep_takes_a_literal_pattern_as_it_is(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("f(x)\nfx\n")
    assert "a.txt:1: f(x)" == agent.ok("grep", pattern="f(x)", literal=True)
    assert "a.txt:2: fx" == agent.ok("grep", pattern="f(x)")


def test_grep_include_is_a_glob_on_names_or_on_paths(agent: ToolUser, tmp_path: Path) -> None:
    tree(tmp_path, "a.py", "src/b.py", "src/c.ts", "src/d.md")
    found = agent.ok("grep", pattern="this", include="*.{py,ts}")
    assert ["a.py", "src/b.py", "src/c.ts"] == [line.split(":")[0] for line in found.split("\n")]
    assert "src/b.py:1: this is src/b.py" == agent.ok("grep", pattern="this", include="src/*.py")
    assert "is relative" in agent.fails("grep", pattern="this", include="/x/*")


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "a{99999999999}", "(" * 5000, "*"])
def test_a_pattern_that_is_no_regular_expression_is_an_error(agent: ToolUser, pattern: str) -> None:
    assert "not a valid regular expression" in agent.fails("grep", pattern=pattern)


def test_a_pattern_python_only_warns_about_warns_nobody(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("[")
    assert "a.txt:1: [" == agent.ok("grep", pattern="[[]")


def test_grep_skips_binary_files_and_tolerates_other_encodings(
    agent: ToolUser, tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(b"needle\0")
    (tmp_path / "b.txt").write_bytes("nädel needle".encode("latin-1"))
    assert "b.txt:1: n\ufffddel needle" == agent.ok("grep", pattern="needle")


def test_grep_skips_pipes_and_links(agent: ToolUser, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("a.txt")
    tree(tmp_path, "a.txt")
    assert "a.txt:1: this is a.txt" == agent.ok("grep", pattern="this")


def test_grep_stops_at_a_hundred_matches_and_says_so(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n" * 101)
    lines = agent.ok("grep", pattern="x").split("\n")
    assert 101 == len(lines)
    assert lines[-1].startswith("[cut after 100 matches")
    (tmp_path / "a.txt").write_text("x\n" * 100)
    assert 100 == len(agent.ok("grep", pattern="x").split("\n"))


def test_grep_shows_the_part_of_a_long_line_that_matches(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.min.js").write_text("a" * 5000 + "needle" + "b" * 5000 + "\nneedle\n")
    first, second = agent.ok("grep", pattern="needle").split("\n")
    assert "needle" in first
    assert len(first) < 500
    assert "a.min.js:2: needle" == second


def test_a_pattern_that_would_take_for_ever_is_ended_and_the_loop_goes_on(
    agent: ToolUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SECONDS", 1.0)
    (tmp_path / "a.txt").write_text("b\n")
    (tmp_path / "b.txt").write_text("a" * 60 + "!\n")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async def grep() -> str:
        ticking = asyncio.create_task(tick())
        output = await agent.call("grep", pattern="(a+)+$|b")
        ticking.cancel()
        return output.content

    found = asyncio.run(grep())
    assert found.startswith("a.txt:1: b\n[ended after 1 seconds")
    assert ticks > 10


def test_a_cancelled_grep_leaves_no_process_behind(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("b\n" + "a" * 60 + "!\n")
    servers = children()  # of the tests before this one

    async def cancel() -> None:
        call = asyncio.create_task(agent.call("grep", pattern="(a+)+$|b"))
        await until(lambda: children() - servers)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    asyncio.run(cancel())
    assert set() == children() - servers


def children() -> set[str]:
    """The processes this one has started and that are alive."""
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        found.update((task / "children").read_text().split())
    return found


def test_grep_runs_without_the_environment_and_its_secrets(
    agent: ToolUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tree(tmp_path, "json.py", "a.txt")
    assert "a.txt:1: this is a.txt" == agent.ok("grep", pattern="a.txt")


def test_list_shows_the_tree(agent: ToolUser, tmp_path: Path) -> None:
    tree(tmp_path, "b.txt", "a/c.txt", "a/d/e.txt")
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "pipe")
    expected = ["./", "  a/", "    c.txt", "    d/", "      e.txt", "  b.txt", "  link@", "  pipe?"]
    assert expected == agent.ok("list").split("\n")
    assert "a/d/\n  e.txt" == agent.ok("list", path="a/d")


def test_list_leaves_out_what_it_is_told_to(agent: ToolUser, tmp_path: Path) -> None:
    tree(tmp_path, "b.txt", "a/c.txt", "a/d.log", "docs/a/x.md")
    shown = agent.ok("list", ignore=["*.log", "docs/a"])
    assert "./\n  a/\n    c.txt\n  b.txt\n  docs/" == shown
    assert "is relative" in agent.fails("list", ignore=["../x"])


def test_list_stops_at_a_thousand_entries_and_twenty_levels(
    agent: ToolUser, tmp_path: Path
) -> None:
    tree(tmp_path / "many", *(f"{n:04}" for n in range(1001)))
    lines = agent.ok("list", path="many").split("\n")
    assert 1002 == len(lines)
    assert lines[-1].startswith("[cut after 1000 entries")
    tree(tmp_path / "deep", "/".join("d" * 25) + "/f")
    lines = agent.ok("list", path="deep").split("\n")
    assert "[directories deeper than 20 levels are not shown]" == lines[-1]
    assert 22 == len(lines)


def test_list_of_an_empty_directory_of_a_file_and_of_nothing(
    agent: ToolUser, tmp_path: Path
) -> None:
    tree(tmp_path, "a.txt")
    (tmp_path / "empty").mkdir()
    assert "empty/\n  (empty)" == agent.ok("list", path="empty")
    assert "a.txt is not a directory; use read" in agent.fails("list", path="a.txt")
    assert "does not exist" in agent.fails("list", path="missing")


def test_names_that_are_no_text_are_shown_on_one_line(agent: ToolUser, tmp_path: Path) -> None:
    os.close(os.open(os.fsencode(tmp_path) + b"/bad\xff\nname.txt", os.O_CREAT | os.O_WRONLY))
    assert "./\n  bad??name.txt" == agent.ok("list")
    assert "bad??name.txt" == agent.ok("glob", pattern="*.txt")
    (tmp_path / os.listdir(tmp_path)[0]).write_text("x")
    assert "bad??name.txt:1: x" == agent.ok("grep", pattern="x")


def test_a_walk_stops_when_its_time_is_over(tmp_path: Path) -> None:
    tree(tmp_path, "a", "b", "c")
    times = iter([0.0, 1.0, 2.0, 3.0])
    walk = Walk(Deadline(2.0, clock=lambda: next(times)))
    opened = os.open(tmp_path, os.O_RDONLY)
    assert ["a"] == [entry.path for entry in walk.entries(opened)]
    os.close(opened)
    assert ["stopped: this takes too long, use a narrower path"] == walk.notes


def test_a_directory_swapped_for_a_link_during_a_walk_is_not_entered(tmp_path: Path) -> None:
    tree(tmp_path, "outside/secret", "inside/sub/a")
    walk = Walk(Deadline())
    opened = os.open(tmp_path / "inside", os.O_RDONLY)
    entries = walk.entries(opened)
    assert "sub" == next(entries).path
    (tmp_path / "inside/sub").rename(tmp_path / "moved")
    (tmp_path / "inside/sub").symlink_to(tmp_path / "outside")
    assert [] == list(entries)
    os.close(opened)
    assert ["sub could not be opened"] == [note.split(":")[0] for note in walk.notes]
