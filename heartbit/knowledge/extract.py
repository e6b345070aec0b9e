"""The text of a document, whatever it is written in. No I/O here, and no network.

HTML is reduced to its main text by trafilatura where that is installed, else by our own reader; PDF
needs pypdf. Both are imported by the first document that needs them.
"""

from __future__ import annotations

import codecs
import hashlib
import importlib.util
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import unescape

from heartbit.core.chunking import Chunk, chunks
from heartbit.errors import DocumentUnreadable
from heartbit.tools.builtin.text import looks_binary

VERSION = 1
"""Of how text is taken out and cut; another one has every document indexed again."""
MARKDOWN = (".md", ".markdown", ".mdown", ".mkd", ".mdx")
HTML = (".html", ".htm", ".xhtml")
NEEDS_PYPDF = "PDF needs pypdf: pip install 'heartbit[pdf]'."

_PDF = b"%PDF-"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_TITLE = re.compile(r"<title[^>]{0,200}>([^<]{0,2000})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a text that is cut by itself, and where it stands."""

    text: str
    heading: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """What a document says.

    `has_lines`: its lines are those of the file, so that they can be cited. `damaged`: some bytes
    were no text and have been replaced.
    """

    sections: tuple[Section, ...]
    title: str = ""
    markdown: bool = False
    has_lines: bool = True
    damaged: bool = False

    @property
    def digest(self) -> str:
        """The same for the same text."""
        made = hashlib.sha256()
        for each in self.sections:
            made.update(f"{each.heading}\0{each.text}\0".encode("utf-8", "surrogatepass"))
        return made.hexdigest()

    def chunks(self, *, size: int, overlap: int) -> Iterator[Chunk]:
        """The text in pieces, numbered through."""
        number = 0
        for section in self.sections:
            cut = chunks(section.text, size=size, overlap=overlap, markdown=self.markdown)
            for each in cut:
                yield self._placed(each, number, section)
                number += 1

    def _placed(self, chunk: Chunk, number: int, section: Section) -> Chunk:
        placed = replace(chunk, index=number, heading=chunk.heading or section.heading)
        return placed if self.has_lines else replace(placed, first_line=0, last_line=0)


def text_of(name: str, data: bytes) -> Text:
    """The text of a file.

    Raises:
        DocumentUnreadable: it has none.
    """
    if data.startswith(_PDF):
        return pdf_text(data)
    text, damaged = decoded(data)
    ending = name.lower()
    if ending.endswith(HTML):
        return replace(html_text(text), damaged=damaged)
    return Text(sections=(Section(text),), markdown=ending.endswith(MARKDOWN), damaged=damaged)


def decoded(data: bytes) -> tuple[str, bool]:
    """The text of some bytes, and whether any of them had to be replaced.

    Raises:
        DocumentUnreadable: they are no text.
    """
    mark, encoding = next((each for each in _BOMS if data.startswith(each[0])), (b"", "utf-8"))
    if not mark and looks_binary(data):
        raise DocumentUnreadable("It is a binary file.", gone=True)
    body = data[len(mark) :]
    try:
        return body.decode(encoding), False
    except UnicodeDecodeError:
        return body.decode(encoding, "replace"), True


def html_text(page: str, url: str = "") -> Text:
    """The main text of a page, as Markdown."""
    from heartbit.tools.builtin.html_text import html_to_text

    main = _main_text(page, url) if has_trafilatura() else None
    title = _TITLE.search(page)
    return Text(
        sections=(Section(main or html_to_text(page, markdown=True, url=url)),),
        title=" ".join(unescape(title[1]).split()) if title else "",
        markdown=True,
        has_lines=False,
    )


def has_trafilatura() -> bool:
    """Whether the extra `knowledge` is installed."""
    return importlib.util.find_spec("trafilatura") is not None


def _main_text(page: str, url: str) -> str | None:
    import trafilatura

    try:
        found = trafilatura.extract(
            page,
            url=url or None,
            output_format="markdown",
            include_comments=False,
            favor_recall=True,
        )
    except Exception:  # a page may break any parser; ours takes everything
        return None
    return str(found) if found else None


def pdf_text(data: bytes) -> Text:
    """The text of a PDF, page by page.

    Raises:
        DocumentUnreadable: pypdf is not installed, or finds no text.
    """
    if importlib.util.find_spec("pypdf") is None:
        raise DocumentUnreadable(NEEDS_PYPDF)
    import pypdf

    try:
        reader = pypdf.PdfReader(io.BytesIO(data))
        pages = [page.extract_text() for page in reader.pages]
        title = reader.metadata.title if reader.metadata else None
    except Exception as error:  # damaged and encrypted files fail in many ways
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DocumentUnreadable(f"The PDF cannot be read ({reason}).", gone=True) from None
    sections = [Section(text, f"page {at}") for at, text in enumerate(pages, 1) if text.strip()]
    if not sections:
        raise DocumentUnreadable("The PDF has no text, only images.", gone=True)
    return Text(sections=tuple(sections), title=str(title or ""), has_lines=False)


def recipe(size: int, overlap: int) -> str:
    """How text is taken out and cut: by another recipe the same document has other chunks."""
    html = "trafilatura" if has_trafilatura() else "own"
    return f"{VERSION} size={size} overlap={overlap} html={html}"
