"""read, write and edit: what is shown, what is refused, and which bytes end up in the file."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.tools.builtin import read as reading
from heartbit.tools.builtin.text import cut, head, tail
from tests.support.builtin_tools import ToolUser

needs_permissions = pytest.mark.skipif(
    os.geteuid() == 0, reason="root may read and write everything"
)


@pytest.fixture
def agent(tmp_path: Path) -> ToolUser:
    return ToolUser(tmp_path)


def known(agent: ToolUser, path: Path, content: bytes) -> None:
    """Put a file there and let the agent read it."""
    path.write_bytes(content)
    agent.ok("read", file_path=path.name)


def test_read_shows_numbered_lines_without_their_ends(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\nthree")
    assert "     1\tone\n     2\ttwo\n     3\tthree" == agent.ok("read", file_path="a.txt")


def test_read_starts_at_the_offset_and_says_where_to_go_on(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {n}\n" for n in range(1, 10)))
    shown = agent.ok("read", file_path="a.txt", offset=3, limit=2)
    assert "     3\tline 3\n     4\tline 4\n[there is more: continue with offset=5]" == shown
    assert shown.startswith("     3")
    assert "more" not in agent.ok("read", file_path="a.txt", offset=8, limit=2)


def test_read_says_how_long_the_file_is_when_the_offset_is_past_it(
    agent: ToolUser, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert "a.txt has only 2 lines" in agent.fails("read", file_path="a.txt", offset=3)


def test_read_says_that_a_file_is_empty(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert "[the file is empty]" == agent.ok("read", file_path="a.txt")


def test_read_cuts_long_lines_between_characters(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" + "é" * 5000 + "\nnext\n")
    first, second = agent.ok("read", file_path="a.txt").split("\n")
    assert f"     1\tx{'é' * 999} [line cut]" == first
    assert "     2\tnext" == second


def test_read_of_a_huge_file_gives_a_bounded_answer_that_can_be_continued(
    agent: ToolUser, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("x" * 999 + "\n")
    with (tmp_path / "a.txt").open("a") as file:
        file.writelines("y" * 1999 + "\n" for _ in range(5000))
    shown = agent.ok("read", file_path="a.txt", limit=5000)
    assert reading.MAX_BYTES <= len(shown) < reading.MAX_BYTES + 3000
    offset = int(shown.rpartition("offset=")[2].rstrip("]"))
    assert agent.ok("read", file_path="a.txt", offset=offset, limit=1).startswith(f"{offset:6}\ty")


def test_read_of_one_endless_line_keeps_only_its_beginning(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"z" * 10_000_000)
    assert f"     1\t{'z' * 2000} [line cut]" == agent.ok("read", file_path="a.txt")


@pytest.mark.parametrize("content", [b"\x7fELF\0\0\1", "text".encode("utf-16"), bytes(range(9))])
def test_read_refuses_binary_files(agent: ToolUser, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(content)
    refusal = agent.fails("read", file_path="a.bin")
    assert f"a.bin is a binary file ({len(content)} bytes)" in refusal


def test_read_shows_what_is_no_utf8_with_a_note(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("größe\n".encode("latin-1"))
    first, note = agent.ok("read", file_path="a.txt").split("\n")
    assert "     1\tgr\ufffd\ufffde" == first
    assert "not valid UTF-8" in note


def test_read_of_a_missing_file_names_similar_ones(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "config.toml").touch()
    refusal = agent.fails("read", file_path="sub/confg.toml")
    assert "sub/confg.toml does not exist. Did you mean config.toml?" == refusal


def test_read_of_a_directory_says_to_use_list(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for path in ("sub", ".", ""):
        assert "is a directory; use list" in agent.fails("read", file_path=path)


def test_a_pipe_is_refused_and_does_not_hang(agent: ToolUser, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in agent.fails("read", file_path="pipe")
    assert "pipe" in agent.fails("write", file_path="pipe", content="x")


@pytest.mark.parametrize("path", ["nul\0byte", "sur\ud800rogate", "x" * 5000, "a\nb"])
def test_paths_that_cannot_be_are_error_results(agent: ToolUser, path: str) -> None:
    assert agent.fails("read", file_path=path)


@needs_permissions
def test_an_unreadable_file_is_an_error_result(agent: ToolUser, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch(mode=0)
    assert "Permission denied: a.txt." == agent.fails("read", file_path="a.txt")


@needs_permissions
def test_a_read_only_file_is_not_replaced(agent: ToolUser, tmp_path: Path) -> None:
    known(agent, tmp_path / "a.txt", b"old")
    (tmp_path / "a.txt").chmod(0o400)
    refusal = agent.fails("write", file_path="a.txt", content="new")
    assert "Permission denied: a.txt." == refusal


def test_write_creates_a_file_and_its_directories(agent: ToolUser, tmp_path: Path) -> None:
    agent.ok("write", file_path="deep/er/a.txt", content="é\r\n")
    assert "é\r\n".encode() == (tmp_path / "deep/er/a.txt").read_bytes()


def test_write_refuses_an_existing_file_the_agent_has_not_read(
    agent: ToolUser, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("theirs")
    assert "has not been read" in agent.fails("write", file_path="a.txt", content="mine")
    assert "theirs" == (tmp_path / "a.txt").read_text()
    agent.ok("read", file_path="a.txt")
    agent.ok("write", file_path="a.txt", content="mine")
    assert "mine" == (tmp_path / "a.txt").read_text()


def test_write_refuses_a_file_that_changed_since_it_was_read(
    agent: ToolUser, tmp_path: Path
) -> None:
    known(agent, tmp_path / "a.txt", b"old")
    (tmp_path / "a.txt").write_text("theirs")
    assert "was modified" in agent.fails("write", file_path="a.txt", content="mine")
    assert "was modified" in agent.fails(
        "edit", file_path="a.txt", old_string="theirs", new_string="mine"
    )
    assert "theirs" == (tmp_path / "a.txt").read_text()


def test_one_agents_read_does_not_satisfy_another_agents_guard(
    agent: ToolUser, tmp_path: Path
) -> None:
    known(agent, tmp_path / "a.txt", b"old")
    other = ToolUser(tmp_path)
    assert "has not been read" in other.fails("write", file_path="a.txt", content="new")


def test_a_replaced_file_of_the_same_size_and_time_counts_as_modified(
    agent: ToolUser, tmp_path: Path
) -> None:
    known(agent, tmp_path / "a.txt", b"old")
    before = (tmp_path / "a.txt").stat()
    (tmp_path / "b.txt").write_bytes(b"new")
    os.utime(tmp_path / "b.txt", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "b.txt").rename(tmp_path / "a.txt")
    assert "was modified" in agent.fails("write", file_path="a.txt", content="x")


def test_writing_the_same_content_again_succeeds_and_changes_nothing(
    agent: ToolUser, tmp_path: Path
) -> None:
    agent.ok("write", file_path="a.txt", content="same")
    before = (tmp_path / "a.txt").stat()
    again = ToolUser(tmp_path).ok("write", file_path="a.txt", content="same")
    assert "nothing was changed" in again
    assert before == (tmp_path / "a.txt").stat()


def test_an_agent_may_go_on_changing_what_it_wrote(agent: ToolUser, tmp_path: Path) -> None:
    agent.ok("write", file_path="a.txt", content="one")
    agent.ok("write", file_path="a.txt", content="two")
    agent.ok("edit", file_path="a.txt", old_string="two", new_string="three")
    agent.ok("edit", file_path="a.txt", old_string="three", new_string="four")
    assert "four" == (tmp_path / "a.txt").read_text()


def test_a_replaced_file_keeps_its_mode_and_leaves_no_temporary_file(
    agent: ToolUser, tmp_path: Path
) -> None:
    known(agent, tmp_path / "run.sh", b"#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    agent.ok("write", file_path="run.sh", content="#!/bin/bash\n")
    assert 0o755 == stat.S_IMODE((tmp_path / "run.sh").stat().st_mode)
    assert ["run.sh"] == os.listdir(tmp_path)


def test_readers_see_the_old_or_the_new_content_and_nothing_between(
    agent: ToolUser, tmp_path: Path
) -> None:
    known(agent, tmp_path / "a.txt", b"old")
    with (tmp_path / "a.txt").open() as opened_before:
        agent.ok("write", file_path="a.txt", content="new and longer")
        assert "old" == opened_before.read()


def test_write_onto_a_directory_or_through_a_file_is_refused(
    agent: ToolUser, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.txt").touch()
    assert "is a directory" in agent.fails("write", file_path="sub", content="x")
    assert "a.txt is no directory" in agent.fails("write", file_path="a.txt/b", content="x")


def test_content_that_no_utf8_file_can_hold_is_refused(agent: ToolUser, tmp_path: Path) -> None:
    assert "surrogate" in agent.fails("write", file_path="a.txt", content="\ud800")
    assert [] == os.listdir(tmp_path)


def test_edit_replaces_the_only_occurrence_and_shows_the_lines_around(
    agent: ToolUser, tmp_path: Path
) -> None:
    known(agent, tmp_path / "a.txt", b"1\n2\n3\nold\n5\n6\n7\n")
    shown = agent.ok("edit", file_path="a.txt", old_string="old", new_string="new\nnewer")
    assert b"1\n2\n3\nnew\nnewer\n5\n6\n7\n" == (tmp_path / "a.txt").read_bytes()
    expected = ["     2\t2", "     3\t3", "     4\tnew", "     5\tnewer", "     6\t5", "     7\t6"]
    assert expected == shown.split("\n")[1:]


def test_edit_tells_how_often_a_passage_occurs(agent: ToolUser, tmp_path: Path) -> None:
    known(agent, tmp_path / "a.txt", b"x x x aaa")
    refusal = agent.fails("edit", file_path="a.txt", old_string="x", new_string="y")
    assert "occurs 3 times in a.txt" in refusal
    refusal = agent.fails("edit", file_path="a.txt", old_string="aa", new_string="y")
    assert "more than once, overlapping itself" in refusal
    refusal = agent.fails("edit", file_path="a.txt", old_string="z", new_string="y")
    assert "does not occur" in refusal
    assert b"x x x aaa" == (tmp_path / "a.txt").read_bytes()


def test_edit_replaces_all_occurrences_when_told_to(agent: ToolUser, tmp_path: Path) -> None:
    known(agent, tmp_path / "a.txt", b"x x x")
    shown = agent.ok("edit", file_path="a.txt", old_string="x", new_string="y", replace_all=True)
    assert "Replaced 3 occurrences" in shown
    assert b"y y y" == (tmp_path / "a.txt").read_bytes()


def test_edit_refuses_what_changes_nothing_and_what_was_not_read(
    agent: ToolUser, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("old")
    same = {"old_string": "old", "new_string": "old"}
    assert "are the same" in agent.fails("edit", file_path="a.txt", **same)
    change = {"old_string": "old", "new_string": "new"}
    assert "has not been read" in agent.fails("edit", file_path="a.txt", **change)
    assert "does not exist" in agent.fails("edit", file_path="b.txt", **change)
    assert "is a directory" in agent.fails("edit", file_path=".", **change)


@pytest.mark.parametrize(
    ("before", "old", "new", "after"),
    [
        (b"a\r\nb\r\nc", "a\nb", "x\ny\nz", b"x\r\ny\r\nz\r\nc"),
        (b"a\r\nb\r\n", "b", "x\ny", b"a\r\nx\r\ny\r\n"),
        (b"a\nb\r\nc\r\n", "a\n", "x\n", b"x\nb\r\nc\r\n"),
        (b"a\nb\r\nc\r\n", "b\nc", "x\ny", b"a\nx\r\ny\r\n"),
        (b"a\nb", "b", "c", b"a\nc"),
        (b"gr\xf6\xdfe x", "x", "y", b"gr\xf6\xdfe y"),
        (b"\xef\xbb\xbfa\n", "a", "b", b"\xef\xbb\xbfb\n"),
    ],
)
def test_edit_leaves_line_ends_and_every_other_byte_as_they_are(
    agent: ToolUser, tmp_path: Path, before: bytes, old: str, new: str, after: bytes
) -> None:
    known(agent, tmp_path / "a.txt", before)
    agent.ok("edit", file_path="a.txt", old_string=old, new_string=new)
    assert after == (tmp_path / "a.txt").read_bytes()


def test_parallel_edits_of_one_file_lose_nothing(agent: ToolUser, tmp_path: Path) -> None:
    words = [f"<{n}>" for n in range(20)]
    known(agent, tmp_path / "a.txt", " ".join(words).encode())

    async def edit_all() -> None:
        calls = (
            agent.call("edit", file_path="a.txt", old_string=word, new_string=word.upper() + "!")
            for word in words
        )
        outputs = await asyncio.gather(*calls)
        assert [] == [output.content for output in outputs if output.is_error]

    asyncio.run(edit_all())
    assert "! ".join(words) + "!" == (tmp_path / "a.txt").read_text()


@given(st.text(), st.integers(0, 20))
def test_cuts_are_between_characters_and_within_the_limit(text: str, limit: int) -> None:
    data = text.encode("utf-8", "replace")
    for kept in (head(data, limit), tail(data, limit)):
        assert len(kept) <= limit or kept == data
        assert kept.decode("utf-8") in data.decode("utf-8")
    assert data.startswith(head(data, limit))
    assert data.endswith(tail(data, limit))


def test_a_cut_says_how_many_bytes_are_missing() -> None:
    assert "ab\n\n[cut: 2 bytes omitted]" == cut("abé", 3)
    assert "abé" == cut("abé", 4)
