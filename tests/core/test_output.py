"""Text that is too long is cut at a character boundary, and the exact loss is stated."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.output import byte_length, split_at, truncate
from tests.support.conversations import any_text


def raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def test_output_over_the_limit_is_cut_and_says_how_much_is_missing() -> None:
    assert truncate("abcdefgh", 5) == "abcde\n\n[truncated: 3 bytes omitted]"


@pytest.mark.parametrize("limit", [None, 0, 8, 9])
def test_output_within_the_limit_is_untouched(limit: int | None) -> None:
    assert truncate("abcdefgh", limit) == "abcdefgh"


@pytest.mark.parametrize(("limit", "kept"), [(1, ""), (3, ""), (4, "😀"), (6, "😀é"), (7, "😀é")])
def test_a_character_is_never_cut_in_two(limit: int, kept: str) -> None:
    omitted = len("😀é😀".encode()) - len(kept.encode())
    assert truncate("😀é😀", limit) == f"{kept}\n\n[truncated: {omitted} bytes omitted]"


def test_a_lone_surrogate_counts_three_bytes_and_is_kept_or_cut_whole() -> None:
    assert byte_length("a\ud800") == 4
    assert truncate("\ud800\udfff", 5) == "\ud800\n\n[truncated: 3 bytes omitted]"


@given(any_text, st.integers(1, 200))
def test_what_is_kept_is_the_longest_head_within_the_limit(text: str, limit: int) -> None:
    head, omitted = split_at(text, limit)
    assert text.startswith(head)
    assert byte_length(head) + omitted == byte_length(text) == len(raw(text))
    assert byte_length(head) <= limit
    if omitted:
        assert byte_length(text[: len(head) + 1]) > limit


@given(any_text, st.integers(1, 200))
def test_the_stated_loss_is_exact(text: str, limit: int) -> None:
    cut = truncate(text, limit)
    if len(raw(text)) <= limit:
        assert cut == text
        return
    note = re.search(r"\n\n\[truncated: (\d+) bytes omitted\]\Z", cut)
    assert note is not None
    assert text.startswith(cut[: note.start()])
    assert int(note[1]) == len(raw(text)) - len(raw(cut[: note.start()]))
