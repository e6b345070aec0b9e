"""Chunks: never too large, nothing lost, and each one stands where it says it does."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.chunking import Chunk, chunks

GUIDE = """# Guide

Intro line one.
Intro line two.

## Setup

Install it.

```python
def run():

    return 1
```

## Use

Call it.
"""
LINES = st.sampled_from(
    [
        "",
        "# A",
        "## B",
        "```",
        "~~~",
        "  ```py",
        "word " * 9,
        "é" * 30,
        "日本語" * 20,
        "x" * 90,
        "a\r",
    ]
)
NUMBERED = st.lists(
    st.tuples(st.sampled_from(["", "# ", "## ", "``` ", "- "]), st.integers(0, 30)), max_size=20
)
DOCUMENTS = st.one_of(st.text(), st.lists(LINES, max_size=40).map("\n".join))
WORD = re.compile(r"w\d{3}")
SIZES = st.integers(4, 120)


def texts(found: list[Chunk]) -> list[str]:
    """What the chunks say."""
    return [each.text for each in found]


@pytest.mark.parametrize("text", ["", "  \n\n\t", "\r\n\r\n"])
def test_nothing_gives_no_chunks(text: str) -> None:
    """Blank lines are nothing."""
    assert [] == chunks(text)


def test_a_short_document_is_one_chunk_with_its_lines() -> None:
    """Under the heading it begins with."""
    [chunk] = chunks(GUIDE)
    assert GUIDE.rstrip("\n") == chunk.text
    assert ("Guide", 1, 18) == (chunk.heading, chunk.first_line, chunk.last_line)


def test_a_section_begins_a_chunk_and_a_heading_stays_with_what_it_introduces() -> None:
    """A citation names the section that its words stand in."""
    found = chunks(GUIDE, size=80, overlap=20)
    assert ["Guide", "Guide > Setup", "Guide > Use"] == [each.heading for each in found]
    assert "## Setup\n\nInstall it." == found[1].text[:21]
    assert (6, 14) == (found[1].first_line, found[1].last_line)


def test_a_block_of_code_is_kept_whole_where_it_fits() -> None:
    """With its blank lines, which are no ends of paragraphs there."""
    code = "```\na = 1\n\n# no heading\n\nb = 2\n```"
    found = chunks(f"{'Words and words. ' * 5}\n\n{code}\n\nEnd.", size=90, overlap=0)
    assert any(code in each.text for each in found)
    assert all(each.heading == "" for each in found)


def test_a_block_of_code_that_is_too_large_is_cut_between_lines() -> None:
    """Whole lines can be read."""
    lines = [f"line_{number} = {number}" for number in range(20)]
    found = chunks("\n".join(["```", *lines, "```"]), size=60, overlap=0)
    assert set(lines) <= {line for each in found for line in each.text.splitlines()}


def test_the_end_of_a_chunk_is_repeated_in_the_next_one_from_a_word_on() -> None:
    """At most so many bytes."""
    first, second, *_ = chunks("one two three four five six seven eight", size=20, overlap=9)
    shared = second.text[: second.text.index(" ")]
    assert first.text.endswith(shared)
    assert "four" == shared


def test_a_long_word_is_cut_between_characters() -> None:
    """Never inside of one."""
    assert ["日日日", "日日日", "日"] == texts(chunks("日" * 7, size=10, overlap=0))


def test_plain_text_has_no_headings() -> None:
    """A comment of a shell script is none."""
    assert [""] == [each.heading for each in chunks("# comment\n\nls", markdown=False)]


def test_an_overlap_as_large_as_a_chunk_is_refused() -> None:
    """It would never come to an end."""
    with pytest.raises(ValueError, match="smaller"):
        chunks("x", size=10, overlap=10)


@given(DOCUMENTS, SIZES, st.integers(0, 60), st.booleans())
def test_no_chunk_is_larger_than_its_limit_and_each_stands_in_its_lines(
    text: str, size: int, overlap: int, markdown: bool
) -> None:
    """The size is a maximum, overlap included."""
    data = text.encode("utf-8", "surrogatepass")
    lines = data.splitlines(keepends=True)
    for chunk in chunks(text, size=size, overlap=min(overlap, size - 1), markdown=markdown):
        piece = chunk.text.encode("utf-8", "surrogatepass")
        assert 0 < len(piece) <= size
        assert piece in b"".join(lines[chunk.first_line - 1 : chunk.last_line])


@given(NUMBERED, SIZES, st.integers(0, 60), st.booleans())
def test_every_word_is_in_some_chunk_and_each_chunk_brings_a_new_one(
    lines: list[tuple[str, int]], size: int, overlap: int, markdown: bool
) -> None:
    """Nothing is lost or out of order, and an overlap is never a chunk of its own."""
    words = (f"w{number:03}" for number in itertools.count())
    text = "\n".join(mark + " ".join(itertools.islice(words, n)) for mark, n in lines)
    found = chunks(text, size=size, overlap=min(overlap, size - 1), markdown=markdown)
    seen = [WORD.findall(each.text) for each in found]
    assert WORD.findall(text) == sorted({word for each in seen for word in each})
    last = [each.text.split()[-1] for each in found if WORD.fullmatch(each.text.split()[-1])]
    assert sorted(set(last)) == last
