"""What sources name: files inside and outside the workspace, without links, up to a limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from heartbit.errors import DocumentUnreadable
from heartbit.knowledge import sources
from heartbit.knowledge.sources import (
    FileSource,
    GlobSource,
    Listing,
    Source,
    UrlSource,
    listed,
    read,
    source_id,
)
from heartbit.tools.builtin.workspace import Place

FILES = (
    "README.md",
    "docs/a.md",
    "docs/b.txt",
    "docs/deep/er/c.md",
    "docs/.hidden.md",
    "docs/node_modules/d.md",
    "notes/e.md",
)


TEXTS = ["docs/a.md", "docs/b.txt", "docs/deep/er/c.md"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace with some files."""
    folder = tmp_path / "workspace"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(root: Path, *given: Source) -> list[str]:
    """What sources name."""
    return list(listed(given, root).found)


def problems(listing: Listing) -> list[str]:
    """What is said of sources that could not be listed."""
    return [f"{each.name}: {each.message}" for each in listing.problems]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("docs/*.md", ["docs/a.md"]),
        ("docs/**/*.md", ["docs/a.md", "docs/deep/er/c.md"]),
        ("./docs/../docs/*.md", ["docs/a.md"]),
        (
            "**/*.{md,txt}",
            ["README.md", "docs/a.md", "docs/b.txt", "docs/deep/er/c.md", "notes/e.md"],
        ),
        ("{docs,notes}/*.md", ["docs/a.md", "notes/e.md"]),
        ("docs/[ab].*", ["docs/a.md", "docs/b.txt"]),
        ("docs/*/*/?.md", ["docs/deep/er/c.md"]),
        ("README.md", ["README.md"]),
        ("docs/.hidden.md", []),
    ],
)
def test_a_pattern_names_files_relative_to_the_workspace(
    root: Path, pattern: str, expected: list[str]
) -> None:
    """Hidden names and directories of packages are left out."""
    assert expected == sorted(names(root, GlobSource(pattern)))


def test_a_file_may_be_anywhere_and_is_named_as_it_was_given(root: Path) -> None:
    """Who writes the configuration may read what the process may read."""
    outside = root.parent / "outside.md"
    outside.write_text("x")
    given: list[Source] = [
        FileSource("docs/../README.md"),
        FileSource("../outside.md"),
        FileSource(str(outside)),
    ]
    assert ["README.md", "../outside.md", str(outside)] == names(root, *given)
    assert [str(outside)] == names(root, GlobSource(f"{root.parent}/*.md"))
    assert ["../outside.md"] == names(root, GlobSource("../*.md"))


def test_a_document_that_two_sources_name_is_one(root: Path) -> None:
    """In the order in which they are named."""
    both: list[Source] = [
        FileSource("docs/a.md"),
        GlobSource("docs/*"),
        UrlSource("https://x.test/a"),
    ]
    assert ["docs/a.md", "docs/b.txt", "https://x.test/a"] == names(root, *both)


def test_links_are_followed_only_where_a_file_is_named(root: Path) -> None:
    """A pattern finds neither a secret behind a link nor its way around in a loop of them."""
    (root.parent / "secret.md").write_text("secret")
    (root / "docs" / "link.md").symlink_to(root.parent / "secret.md")
    (root / "docs" / "loop").symlink_to(root)
    assert ["docs/a.md", "docs/deep/er/c.md"] == names(root, GlobSource("docs/**/*.md"))
    found = listed([FileSource("docs/link.md")], root).found["docs/link.md"]
    assert found.place is not None
    assert b"secret" == read(found.place)


def test_what_is_not_there_is_a_problem_and_keeps_nothing_else_out(root: Path) -> None:
    """A listing is complete when what is missing is known to be missing."""
    listing = listed(
        [
            FileSource("no.md"),
            GlobSource("no/*.md"),
            GlobSource("docs/*.pdf"),
            FileSource("README.md"),
        ],
        root,
    )
    assert [
        "no.md: There is no such file.",
        "no/*.md: no: No such file or directory.",
        "docs/*.pdf: It fits no file.",
    ] == problems(listing)
    assert (["README.md"], True) == (list(listing.found), listing.complete)


def test_a_pattern_that_fits_too_many_files_is_refused_and_says_nothing_of_what_is_gone(
    root: Path,
) -> None:
    """Nothing is dropped because of it."""
    listing = listed([GlobSource("**/*.md"), FileSource("docs/b.txt")], root, max_files=3)
    assert ["**/*.md: It fits more than 3 files; use narrower patterns."] == problems(listing)
    assert (["docs/b.txt"], False) == (list(listing.found), listing.complete)


@pytest.mark.slow
def test_a_pattern_that_fits_a_hundred_thousand_files_ends_soon(tmp_path: Path) -> None:
    """With one sentence, at the limit and not at the end."""
    for directory in range(100):
        folder = tmp_path / f"d{directory:03}"
        folder.mkdir()
        for number in range(1_000):
            os.close(os.open(folder / f"{number}.md", os.O_CREAT | os.O_WRONLY))
    listing = listed([GlobSource("**/*.md")], tmp_path)
    assert ["**/*.md: It fits more than 20,000 files; use narrower patterns."] == problems(listing)


def test_a_directory_that_cannot_be_opened_leaves_a_listing_incomplete(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept of the files in it is not dropped."""
    monkeypatch.setattr(sources, "WALK_SECONDS", -1.0)
    listing = listed([GlobSource("docs/**/*.md")], root)
    assert not listing.complete
    assert "Not all files could be listed" in problems(listing)[0]


def test_names_that_are_no_text_are_spelled_out(root: Path) -> None:
    """A name in another encoding can be stored and shown."""
    path = os.fsencode(root) + b"/docs/gr\xf6\xdfe.md"
    with open(path, "w") as file:
        file.write("x")
    assert "docs/gr\\xf6\\xdfe.md" in names(root, GlobSource("docs/*.md"))


def test_a_file_that_vanished_is_gone_and_one_that_is_no_file_is_not_read(root: Path) -> None:
    """A pipe does not keep anybody waiting."""
    with pytest.raises(DocumentUnreadable) as caught:
        read(Place(root=str(root), parts=("docs", "z.md")))
    assert caught.value.gone
    os.mkfifo(root / "docs" / "pipe.md")
    with pytest.raises(DocumentUnreadable, match="not a regular file") as caught:
        read(Place(root=str(root), parts=("docs", "pipe.md")))
    assert not caught.value.gone


def test_a_huge_file_is_refused_without_being_read(root: Path) -> None:
    """One that is sparse takes no space to be refused."""
    with (root / "docs" / "huge.md").open("wb") as file:
        file.truncate(sources.MAX_FILE_BYTES + 1)
    with pytest.raises(DocumentUnreadable, match="larger than 20 MiB"):
        read(Place(root=str(root), parts=("docs", "huge.md")))


def test_a_source_has_one_id_in_every_process() -> None:
    """And none in common with another kind of source of the same name."""
    ids = {source_id(kind("x")) for kind in (FileSource, GlobSource, UrlSource)}
    assert 3 == len(ids)
