"""The locator knows on which line each key of a TOML text stands."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartbit.config.locate import line_of, locate
from tests.support.toml_text import Writer

keys = st.text(min_size=1, max_size=6) | st.sampled_from(["a", "b-c", "d_e", "1", "a.b", '"', "#"])
keys = keys.filter(lambda key: not any("\ud800" <= char <= "\udfff" for char in key))
strings = st.text(max_size=12) | st.sampled_from(
    ["a\nb\n", "# no", "[x]", "a = 1\nb = 2", "{", ","]
)
scalars = st.booleans() | st.integers(-9, 9) | strings
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)
documents = st.dictionaries(keys, values, max_size=5)


@settings(max_examples=50, deadline=None)
@given(documents, st.data())
def test_every_key_of_any_document_is_found_on_its_line(
    document: dict[str, Any], data: st.DataObject
) -> None:
    writer = Writer(lambda options: data.draw(st.sampled_from(options)))
    text = writer.document(document)
    assert document == tomllib.loads(text)
    assert writer.lines == locate(text)
    assert writer.lines == locate(text.replace("\n", "\r\n"))


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("\n\na = 1", ("a",), 3),
        ("[x.y]\n\n[x.y.z]\nk = 1", ("x", "y", "z", "k"), 4),
        ("[x.y]\nk = 1", ("x",), 1),
        ("a.b.c = 1\na.b.d = 2", ("a", "b", "d"), 2),
        ("a.b.c = 1\na.b.d = 2", ("a", "b"), 1),
        ('"a.b" = 1\n\'c"d\' = 2', ('c"d',), 2),
        ('"\\u0061" = 1', ("a",), 1),
        ("[[a]]\n[[a]]\n[a.b]\nc = 1", ("a", 1, "b", "c"), 4),
        ("[[a]]\n[[a.b]]\n[[a]]\n[[a.b]]\nc=1\n[[a.b]]", ("a", 1, "b", 1), 6),
        ('a = """\n[b]\nc = 1\n"""\nd = 1', ("d",), 5),
        ('a = """\n\\""" b = 1\n"""""\nd = 1', ("d",), 4),
        ("a = '''\n'' # '''''\nd = 1", ("d",), 3),
        ('a = ["""x""""",\n1]', ("a", 1), 2),
        ("a = ['''x''''',\n1]", ("a", 1), 2),
        ("a = [ # ]\n 1, # ,\n [2,\n 3]]\nb = 1", ("a", 1, 1), 4),
        ("a = 1979-05-27 07:32:00\nb = 1 # c", ("b",), 2),
        ("[ a . 'b' ]\n\tc = {d = {e = [\n1]}}", ("a", "b", "c", "d", "e", 0), 3),
    ],
)
def test_the_line_of_a_key_is_known(text: str, path: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(text)
    assert line == locate(text)[path]


def test_a_key_that_is_missing_is_looked_for_where_its_table_is() -> None:
    assert 2 == line_of(locate("\n[a.b]\nc = 1"), ("a", "b", "d"))
    assert line_of({}, ("a",)) is None


def test_a_value_that_is_nested_too_deeply_hides_no_line_before_it() -> None:
    text = "a = 1\nb = " + "[" * 5000 + "]" * 5000
    assert 1 == locate(text)[("a",)]
