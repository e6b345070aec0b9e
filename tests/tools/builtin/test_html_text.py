"""HTML becomes readable text or Markdown, in linear time whatever the page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.tools.builtin.html_text import html_to_text

PAGE = """<!DOCTYPE html><html><head><title>A &amp; B</title><style>p { color: red }</style>
<script>if (a < b) { document.write("<p>no</p>"); }</script></head>
<body><nav><ul><li><a href="/">Home</a></li></ul></nav><!-- <p>hidden</p> -->
<h2>Some   <em>big</em>
news</h2>
<p>See <a href="/docs?a=1&amp;b=2">the <b>docs</b></a>, or<br>call.</p>
<ul><li>one<ol><li>first</li><li>second</li></ol></li><li>two</li></ul>
<pre>  keep
    this</pre>
<table><tr><th>k</th><th>v</th></tr><tr><td>a</td><td>1</td></tr></table>
<img src="x.png" alt="a chart"><a href="javascript:alert(1)">press</a>
</body></html>"""

MARKDOWN = """# A & B

## Some *big* news

See [the **docs**](https://example.org/docs?a=1&b=2), or
call.

- one
  1. first
  2. second
- two

```
  keep
    this
```

k | v
a | 1

![a chart](https://example.org/x.png)press"""


def markdown(page: str) -> str:
    return html_to_text(page, markdown=True, url="https://example.org/page")


def text(page: str) -> str:
    return html_to_text(page, markdown=False)


def test_a_page_as_markdown() -> None:
    assert MARKDOWN.split("\n") == markdown(PAGE).split("\n")


def test_a_page_as_text_has_its_words_and_no_marks() -> None:
    shown = text(PAGE)
    assert "See the docs, or\ncall." in shown
    assert "A & B" in shown
    for unwanted in ("*", "#", "](", "Home", "color", "write", "hidden", "```"):
        assert unwanted not in shown


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("plain", "plain"),
        ("a &lt; b &#38; c &unknown; &", "a < b & c &unknown; &"),
        ("&#" + "9" * 5000 + ";", "&#" + "9" * 5000 + ";"),
        ("1 < 2 and 3 <4", "1 < 2 and 3 <4"),
        ('<a title="a > b" href=x>t</a>', "t"),
        ("<p>one<p>two", "one\n\ntwo"),
        ("a</p></div></nav></ul></a>b", "a\n\nb"),
        ("<script>never closed <p>x", ""),
        ("x<!-- never closed <p>y", "x"),
        ("x<p class='", "x"),
        ("<svg><svg></svg>in</svg>out", "out"),
        ("<SCRIPT>a</sCript >b", "b"),
        ("<textarea><b>raw</b></textarea>", "<b>raw</b>"),
        ("a<![CDATA[b]]>c", "ac"),
        ("", ""),
    ],
)
def test_odd_pages_keep_their_words(page: str, expected: str) -> None:
    assert expected == text(page)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<a href='//other/x'>t</a>", "[t](https://other/x)"),
        ("<a href='a b'>t</a>", "[t](https://example.org/a%20b)"),
        ("<a href=mailto:me@x.org>t</a>", "[t](mailto:me@x.org)"),
        ("<a href='http://[bad'>t</a>", "t"),
        ("<a href='data:text/html,x'>t</a>", "t"),
        ("<a>t</a>", "t"),
        ("<a href=x></a>", ""),
        ("<a href=x>1<a href=y>2</a>", "[1](https://example.org/x)[2](https://example.org/y)"),
        ("<a data-href=no href=x>t</a>", "[t](https://example.org/x)"),
        ("<a href=x><p>t</p></a>", "[t](https://example.org/x)"),
        ("<pre><code>x  y</code></pre>", "```\nx  y\n```"),
        ("a <code>b</code>", "a `b`"),
        ("<blockquote>q</blockquote>", "> q"),
        ("a<hr>b", "a\n\n---\n\nb"),
        ("<ul><li><p>one</p></li><li></li><li>two</li></ul>", "- one\n\n-\n- two"),
        ("<h2><div>big</div></h2>small", "## big\n\nsmall"),
    ],
)
def test_markdown_of_single_elements(page: str, expected: str) -> None:
    assert expected == markdown(page)


@given(
    st.lists(st.sampled_from(["<", ">", "/", "a", "script", "=", '"', "'", "!--", "&", ";", " "]))
)
def test_no_page_makes_it_fail(pieces: list[str]) -> None:
    page = "".join(pieces)
    assert isinstance(markdown(page), str)
    assert isinstance(text(page), str)


HOSTILE = [
    "<a ", '<a "', "<a b=", '<a b="', "<!--", "<![CDATA[", "</", "<!", "&#", "<script>", "<ul><li>",
    "<a>", "<a href=x>", " ", "=", "<a href" + "=" * 9, "<pre> ", "<svg>", "<b>", "&lt", '="',
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_pages_are_converted_in_linear_time(piece: str) -> None:
    """Anything quadratic needs hours for these and hits the time limit of the test."""
    assert isinstance(markdown(piece * (200_000 // len(piece))), str)
    assert isinstance(markdown("<a " + piece * (200_000 // len(piece)) + ">x"), str)
