"""HTML as plain text or as simple Markdown. No I/O here.

Pages are hostile input, so every step takes time linear in the page: the tokeniser always consumes
what it has looked at (`html.parser` does not, and needs hours for a megabyte of `<a `).
"""

from __future__ import annotations

import html
import re
from urllib.parse import urljoin

# Scripts and other text that is no markup: it ends at its own closing tag only.
RAW = frozenset({"script", "style", "noscript", "iframe", "textarea", "xmp"})
SKIPPED = frozenset(
    {"script", "style", "noscript", "iframe", "template", "svg", "nav", "canvas", "object"}
)
BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl"}
    | {"dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5"}
    | {"h6", "header", "hr", "html", "li", "main", "ol", "p", "pre", "section", "summary", "table"}
    | {"tbody", "tfoot", "thead", "title", "tr", "ul"}
)
CLOSE_BLOCKS = frozenset({"li", "tr", "dt", "dd"})
HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)} | {"title": "#"}
MARKS = {"b": "**", "strong": "**", "i": "*", "em": "*", "code": "`"}
MAX_INDENT = 8

_TOKEN = re.compile(
    r"""<!--.*?(?:--!?>|\Z)
      | <(?P<end>/?)(?P<name>[a-zA-Z][^\s/>]*+)
        (?P<attributes>(?:[^>=]++|=\s*+"[^"]*+"|=\s*+'[^']*+'|=)*+)>?
      | <[!?/][^>]*+>?
      | (?P<text>[^<]++|<)""",
    re.VERBOSE | re.DOTALL,
)
# The look-behind keeps a long name without a value from being tried at each of its characters.
_ATTRIBUTE = re.compile(
    r"""(?<![^\s"'/])([^\s"'>/=]++)\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>"']++))"""
)
_BLANKS = re.compile(r"[ \t\n\r\f]+")
_BLANK_LINES = re.compile(r"\n{3,}")


def html_to_text(page: str, *, markdown: bool, url: str = "") -> str:
    """The readable text of `page`; with `markdown` also its headings, links and emphasis.

    References are taken as relative to `url`.
    """
    writer = _Writer(markdown=markdown, url=url)
    position = 0
    while token := _TOKEN.match(page, position):
        position = token.end()
        if token["text"]:
            writer.text(token["text"])
        elif token["name"]:
            position = _tag(writer, token, page)
    return writer.result()


def _tag(writer: _Writer, token: re.Match[str], page: str) -> int:
    """Hand a tag to the writer; where to go on reading."""
    name = token["name"].lower()
    if token["end"]:
        writer.close(name)
        return token.end()
    writer.open(name, token["attributes"])
    if name not in RAW:
        return token.end()
    closing = re.compile(rf"</{name}(?![^\s/>])", re.IGNORECASE).search(page, token.end())
    end = closing.start() if closing else len(page)
    if name not in SKIPPED:
        writer.text(page[token.end() : end])
    return end


class _Writer:
    """Collects the text. At most one link is open at a time, as in HTML."""

    def __init__(self, *, markdown: bool, url: str) -> None:
        self._markdown = markdown
        self._url = url
        self._out: list[str] = []
        self._last = "\n"
        self._line_breaks = 2
        self._leading = False
        self._skipping: str | None = None
        self._skipped_depth = 0
        self._pre = 0
        self._lists: list[int | None] = []
        self._cells = 0
        self._link: tuple[str, int] | None = None

    def text(self, raw: str) -> None:
        """Character data, with its character references."""
        if self._skipping:
            return
        text = _unescaped(raw)
        if not self._pre:
            text = _BLANKS.sub(" ", text)
            text = text.lstrip(" ") if self._last.isspace() else text
        self._put(text)

    def open(self, name: str, attributes: str) -> None:
        """An opening tag."""
        if self._skipping or name in SKIPPED:
            self._skip(name)
            return
        # What opens right behind a bullet or a heading's mark stays on its line.
        if name in BLOCKS and (name in CLOSE_BLOCKS or not self._leading):
            self._break(self._gap(name))
        self._open_special(name, attributes)

    def _open_special(self, name: str, attributes: str) -> None:
        if name in ("ul", "ol"):
            self._lists.append(0 if name == "ol" else None)
        elif name == "li":
            self._lead(self._bullet())
        elif name == "tr":
            self._cells = 0
        elif name in ("td", "th"):
            self._put(" | " if self._cells else "")
            self._cells += 1
        elif name == "br":
            self._put("\n")
        elif name == "pre":
            self._pre += 1
            self._mark("```\n")
        elif name in ("a", "img", "hr", "blockquote") or name in HEADINGS or name in MARKS:
            self._open_marked(name, attributes)

    def _open_marked(self, name: str, attributes: str) -> None:
        if name == "a":
            self._end_link()
            self._link = (attributes, len(self._out))
        elif name == "img":
            self._image(attributes)
        elif name == "hr":
            self._mark("---\n\n")
        elif name == "blockquote":
            self._lead("> ", in_markdown=True)
        elif name in HEADINGS:
            self._lead(f"{HEADINGS[name]} ", in_markdown=True)
        elif not self._pre:
            self._mark(MARKS[name])

    def close(self, name: str) -> None:
        """A closing tag; one that closes nothing is harmless."""
        if self._skipping:
            self._unskip(name)
        elif name == "a":
            self._end_link()
        elif name in ("ul", "ol") and self._lists:
            self._lists.pop()
            self._break(self._gap(name))
        elif name == "pre" and self._pre:
            self._pre -= 1
            self._break(1)
            self._mark("```")
            self._break(2)
        elif name in MARKS and not self._pre:
            self._mark(MARKS[name])
        elif name in BLOCKS:
            self._break(self._gap(name))

    def result(self) -> str:
        """All text, without blanks at line ends and with at most one empty line in a row."""
        lines = (line.rstrip() for line in "".join(self._out).split("\n"))
        return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()

    def _put(self, text: str) -> None:
        if text:
            breaks = len(text) - len(text.rstrip("\n"))
            self._line_breaks = breaks + (self._line_breaks if breaks == len(text) else 0)
            self._out.append(text)
            self._last = text[-1]
            self._leading = False

    def _mark(self, mark: str) -> None:
        """Write what only Markdown shows; blanks before it count as blanks after it."""
        if self._markdown:
            last = self._last
            self._put(mark)
            self._last = last if mark.strip() == mark and last.isspace() else self._last

    def _lead(self, mark: str, *, in_markdown: bool = False) -> None:
        if self._markdown or not in_markdown:
            self._put(mark)
            self._leading = True

    def _gap(self, name: str) -> int:
        """How many line breaks stand around the block `name`."""
        nested = name in ("ul", "ol") and self._lists
        return 1 if nested or name in CLOSE_BLOCKS else 2

    def _break(self, lines: int) -> None:
        """Make sure that at least so many line breaks are behind us."""
        self._put("\n" * (lines - self._line_breaks))

    def _skip(self, name: str) -> None:
        if not self._skipping:
            self._skipping = name
        if name == self._skipping:
            self._skipped_depth += 1

    def _unskip(self, name: str) -> None:
        if name == self._skipping:
            self._skipped_depth -= 1
            if not self._skipped_depth:
                self._skipping = None

    def _bullet(self) -> str:
        indent = "  " * min(max(len(self._lists) - 1, 0), MAX_INDENT)
        number = self._lists[-1] if self._lists else None
        if number is None:
            return f"{indent}- "
        self._lists[-1] = number + 1
        return f"{indent}{number + 1}. "

    def _end_link(self) -> None:
        if self._link is None:
            return
        attributes, start = self._link
        self._link = None
        label = _BLANKS.sub(" ", "".join(self._out[start:])).strip()
        target = self._absolute(_attribute(attributes, "href")) if self._markdown and label else ""
        if target:
            del self._out[start:]
            self._put(f"[{label}]({target})")

    def _image(self, attributes: str) -> None:
        alt = _BLANKS.sub(" ", _attribute(attributes, "alt")).strip()
        source = self._absolute(_attribute(attributes, "src"))
        if alt:
            self._put(f"![{alt}]({source})" if self._markdown and source else alt)

    def _absolute(self, reference: str) -> str:
        try:
            target = urljoin(self._url, reference.strip())
        except ValueError:
            return ""
        shown = target.startswith(("http://", "https://", "mailto:"))
        return _BLANKS.sub("%20", target) if reference and shown else ""


def _attribute(attributes: str, name: str) -> str:
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            return _unescaped(found[2] or found[3] or found[4] or "")
    return ""


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:  # a numeric reference of thousands of digits
        return text
