"""No path leads a file tool out of its workspace."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from heartbit.errors import ToolError
from heartbit.tools.base import ToolContext
from heartbit.tools.builtin.workspace import existing_file, locate, parent_of
from tests.support.builtin_tools import ToolUser

SECRET = "the secret outside"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the workspace, with a file that must stay out of reach."""
    directory = tmp_path / "workspace-outside"
    directory.mkdir()
    (directory / "secret.txt").write_text(SECRET)
    return directory


@pytest.fixture
def inside(tmp_path: Path, outside: Path) -> Path:
    """The workspace, with links that lead out of it."""
    directory = tmp_path / "workspace"
    directory.mkdir()
    (directory / "file-link").symlink_to(outside / "secret.txt")
    (directory / "directory-link").symlink_to(outside)
    (directory / "dangling").symlink_to(outside / "new.txt")
    (directory / "chain").symlink_to("directory-link/secret.txt")
    return directory


def escapes(inside: Path, outside: Path) -> list[str]:
    return [
        "../workspace-outside/secret.txt",
        "sub/../../workspace-outside/secret.txt",
        str(outside / "secret.txt"),
        "file-link",
        "directory-link/secret.txt",
        "directory-link/missing/new.txt",
        "dangling",
        "chain",
        f"/proc/self/root{outside}/secret.txt",
        "/proc/self/environ",
        "/etc/passwd",
        "..",
        "/",
    ]


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("read", "file_path", {}),
    ("write", "file_path", {"content": "taken"}),
    ("edit", "file_path", {"old_string": SECRET, "new_string": "taken"}),
    ("list", "path", {}),
    ("glob", "path", {"pattern": "**"}),
    ("grep", "path", {"pattern": "secret"}),
]


@pytest.mark.parametrize(("tool", "argument", "others"), CALLS, ids=[call[0] for call in CALLS])
def test_no_tool_leaves_the_workspace(
    inside: Path, outside: Path, tool: str, argument: str, others: dict[str, Any]
) -> None:
    agent = ToolUser(inside)
    for path in escapes(inside, outside):
        refusal = agent.fails(tool, **{argument: path}, **others)
        assert f"outside the workspace; use a path inside {inside}." in refusal, path
        assert SECRET not in refusal
    assert ["secret.txt"] == os.listdir(outside)
    assert SECRET == (outside / "secret.txt").read_text()


def test_searches_do_not_follow_links_out_of_the_workspace(inside: Path, outside: Path) -> None:
    agent = ToolUser(inside)
    assert "No matches." == agent.ok("grep", pattern="secret")
    assert "secret.txt" not in agent.ok("glob", pattern="**/*")
    assert "secret.txt" not in agent.ok("list")


def test_a_link_that_stays_inside_is_followed_and_kept(inside: Path) -> None:
    agent = ToolUser(inside)
    (inside / "real").mkdir()
    (inside / "link").symlink_to("real")
    agent.ok("write", file_path="link/a.txt", content="one")
    (inside / "alias.txt").symlink_to("real/a.txt")
    agent.ok("write", file_path="alias.txt", content="two")
    assert "two" == (inside / "real" / "a.txt").read_text()
    assert (inside / "alias.txt").is_symlink()


def test_a_workspace_that_is_itself_a_link_works(inside: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(inside)
    agent = ToolUser(tmp_path / "link")
    agent.ok("write", file_path=str(tmp_path / "link" / "a.txt"), content="x")
    assert "x" == (inside / "a.txt").read_text()


def test_links_in_a_circle_are_an_error_result(inside: Path) -> None:
    (inside / "a").symlink_to("b")
    (inside / "b").symlink_to("a")
    for tool, argument, others in CALLS:
        assert ToolUser(inside).fails(tool, **{argument: "a"}, **others)


def test_a_directory_swapped_for_a_link_after_the_check_leads_nowhere(
    inside: Path, outside: Path
) -> None:
    (inside / "sub").mkdir()
    (inside / "sub" / "secret.txt").write_text("harmless")
    place = locate(ToolContext(workspace=inside), "sub/secret.txt")
    (inside / "sub").rename(inside / "old")
    (inside / "sub").symlink_to(outside)
    with pytest.raises(ToolError), existing_file(place):
        pass
    with pytest.raises(ToolError), parent_of(place, create=True):
        pass


def test_a_file_swapped_for_a_link_after_the_check_is_not_opened(
    inside: Path, outside: Path
) -> None:
    (inside / "a.txt").write_text("harmless")
    place = locate(ToolContext(workspace=inside), "a.txt")
    (inside / "a.txt").unlink()
    (inside / "a.txt").symlink_to(outside / "secret.txt")
    with pytest.raises(OSError, match="symbolic links"), existing_file(place):
        pass


@pytest.mark.parametrize("tool", ["read", "write", "edit", "glob", "grep", "list", "bash"])
def test_without_a_workspace_there_are_no_files_to_work_on(tool: str) -> None:
    arguments = {
        "read": {"file_path": "a"},
        "write": {"file_path": "a", "content": ""},
        "edit": {"file_path": "a", "old_string": "b", "new_string": "c"},
        "glob": {"pattern": "*"},
        "grep": {"pattern": "x"},
        "list": {},
        "bash": {"command": "true"},
    }[tool]
    assert "No workspace is configured" in ToolUser(None).fails(tool, **arguments)


def test_a_workspace_that_does_not_exist_is_an_error_result(tmp_path: Path) -> None:
    agent = ToolUser(tmp_path / "missing")
    assert "is not a directory" in agent.fails("read", file_path="a")
    assert "is not a directory" in agent.fails("bash", command="true")
