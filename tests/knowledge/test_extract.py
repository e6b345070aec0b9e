"""The text of documents: encodings, HTML with and without trafilatura, PDF."""

from __future__ import annotations

import io

import pytest

from heartbit.errors import DocumentUnreadable
from heartbit.knowledge import extract
from heartbit.knowledge.extract import html_text, pdf_text, recipe, text_of

PAGE = """<html><head><title>Leases &amp; steps</title></head><body>
<nav><a href="/">Home</a></nav>
<main><h1>Leases</h1><p>A lease is the right to do a step for a limited time; it is renewed.</p>
<h2>Renewal</h2><p>Whoever holds a lease renews it while the step is worked on by a thread.</p>
</main><footer>All rights reserved</footer><script>var x = 1</script></body></html>"""


def only(text: extract.Text) -> str:
    """The text of its only section."""
    [section] = text.sections
    return section.text


@pytest.mark.parametrize(
    ("data", "expected", "damaged"),
    [
        (b"plain", "plain", False),
        (b"\xef\xbb\xbfmark", "mark", False),
        ("größe".encode("utf-16"), "größe", False),
        ("größe".encode("utf-32"), "größe", False),
        (b"gr\xf6\xdfe", "gr\ufffd\ufffde", True),
        (b"", "", False),
        ("a\u0007b \u202e".encode(), "a\u0007b \u202e", False),
    ],
)
def test_bytes_become_text_whatever_their_encoding(
    data: bytes, expected: str, damaged: bool
) -> None:
    """What cannot be read is replaced, and said."""
    got = text_of("a.txt", data)
    assert (expected, damaged) == (only(got), got.damaged)


@pytest.mark.parametrize("data", [b"\x89PNG\0\0", b"\0", bytes(range(32)) * 9])
def test_a_binary_file_is_refused(data: bytes) -> None:
    """By its content: a name says nothing."""
    with pytest.raises(DocumentUnreadable, match="binary") as caught:
        text_of("a.md", data)
    assert caught.value.gone


def test_headings_are_those_of_markdown_and_of_nothing_else() -> None:
    """A `#` in a program or a log is a comment."""
    text = b"# Guide\n\nText."
    assert ["Guide"] == [x.heading for x in text_of("A.MD", text).chunks(size=99, overlap=0)]
    assert [""] == [x.heading for x in text_of("a.py", text).chunks(size=99, overlap=0)]


def test_lines_are_those_of_the_file() -> None:
    """A byte order mark and Windows line ends move none of them."""
    data = b"\xef\xbb\xbf# A\r\n\r\none\r\n\r\n# B\r\n\r\ntwo\r\n"
    got = [(x.first_line, x.last_line) for x in text_of("a.md", data).chunks(size=12, overlap=0)]
    assert [(1, 3), (5, 7)] == got


@pytest.mark.parametrize("installed", [True, False])
def test_of_a_page_the_main_text_is_kept_with_its_headings(
    monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """Lines of what was taken out are not those of the page, so none are cited."""
    monkeypatch.setattr(extract, "has_trafilatura", lambda: installed)
    got = html_text(PAGE)
    assert "Leases & steps" == got.title
    assert "renewed" in only(got)
    assert "Home" not in only(got)
    assert "var x" not in only(got)
    assert installed != ("All rights reserved" in only(got))
    chunks = list(got.chunks(size=150, overlap=0))
    assert "Leases > Renewal" == chunks[-1].heading.removeprefix("Leases & steps > ")
    assert {(0, 0)} == {(x.first_line, x.last_line) for x in chunks}
    assert installed == ("html=trafilatura" in recipe(1000, 200))


def test_a_page_that_breaks_trafilatura_is_read_by_our_own_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No page keeps the others out."""
    import trafilatura

    def broken(*args: object, **options: object) -> str:
        raise RecursionError

    monkeypatch.setattr(trafilatura, "extract", broken)
    assert "A lease is" in only(html_text(PAGE))


def pdf(*pages: str, title: str = "") -> bytes:
    """A PDF with a line of text on each page."""
    import pypdf
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = pypdf.PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(200, 200)
        content = DecodedStreamObject()
        content.set_data(f"BT /F1 12 Tf 10 100 Td ({text}) Tj ET".encode() if text else b"")
        page[NameObject("/Contents")] = writer._add_object(content)
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    if title:
        writer.add_metadata({"/Title": title})
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()


def test_a_pdf_is_cited_by_its_pages() -> None:
    """By its content, whatever its name; a page without text counts."""
    got = text_of("scan.bin", pdf("First page", "", "Third page", title="A title"))
    chunks = list(got.chunks(size=99, overlap=0))
    assert [("First page", "page 1", 0), ("Third page", "page 3", 1)] == [
        (x.text, x.heading, x.index) for x in chunks
    ]
    assert ("A title", {0}) == (got.title, {x.first_line for x in chunks})


def test_a_pdf_without_text_and_a_damaged_one_are_refused() -> None:
    """With what is wrong."""
    with pytest.raises(DocumentUnreadable, match="only images"):
        pdf_text(pdf(""))
    with pytest.raises(DocumentUnreadable, match="cannot be read"):
        pdf_text(b"%PDF-1.7\nnothing")


def test_without_pypdf_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was indexed while it was installed stays."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DocumentUnreadable, match=r"pip install 'heartbit\[pdf\]'") as caught:
        text_of("a.pdf", b"%PDF-1.7")
    assert not caught.value.gone


def test_importing_the_knowledge_base_imports_no_reader() -> None:
    """trafilatura, lxml and pypdf come with the first document that needs them."""
    import subprocess
    import sys

    heavy = ("trafilatura", "lxml", "pypdf", "httpx2", "psycopg", "numpy", "fastembed", "celery")
    code = f"import sys, heartbit.library; print([x for x in {heavy} if x in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()
