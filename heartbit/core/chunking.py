"""Documents cut into pieces that can be found, quoted and cited.

A chunk is a slice of its document, never a rewording, so that whoever reads the lines it names
finds what it says. Pure: the same text gives the same chunks.

Sizes are bytes of UTF-8, and none is ever exceeded, overlap included. A cut is made at the best
place that is left: before a heading, between paragraphs, between lines, between words, between
characters. A fenced block of code is cut only if it is larger than a chunk.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

SMALLEST = 4
"""No limit is smaller: one character takes up to four bytes."""

_HEADING = re.compile(rb" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(rb"[ \t]*(?:(`{3,})([^`]*)|(~{3,})(.*))$")  # at any depth: lists have them too
_Path = tuple[tuple[int, str], ...]
_BLANK = b" \t\r\n\f\v"
_BETWEEN_WORDS = re.compile(rb"[ \t\r\n]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A piece of a document: `index` counts from 0, lines from 1, both ends included.

    `heading` is the path of headings that what is new in it stands under, like `Guide > Setup`.
    """

    index: int
    text: str
    heading: str
    first_line: int
    last_line: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes that stay together if they fit, and where they stand."""

    start: int
    end: int
    heading: tuple[str, ...]
    opens_section: bool = False
    is_heading: bool = False


def chunks(
    text: str, *, size: int = 1000, overlap: int = 200, markdown: bool = True
) -> list[Chunk]:
    """Cut a text into pieces of at most `size` bytes, each beginning as the one before has ended.

    `overlap` is the most bytes that are repeated; none are at a heading. Text that is not
    `markdown` has no headings and no fences.

    Raises:
        ValueError: the overlap is not smaller than the size.
    """
    if overlap >= size:
        raise ValueError("the overlap must be smaller than the size")
    data = text.encode("utf-8", "surrogatepass")
    limit = max(size, SMALLEST)
    ends = list(accumulate(len(line) for line in data.splitlines(keepends=True)))
    pieces = _joined(_fitting(data, _pieces(data, markdown=markdown), limit, overlap), limit)
    return [
        Chunk(
            index=index,
            text=data[piece.start : piece.end].decode("utf-8", "surrogatepass"),
            heading=" > ".join(piece.heading),
            first_line=bisect_right(ends, piece.start) + 1,
            last_line=bisect_right(ends, piece.end - 1) + 1,
        )
        for index, piece in enumerate(_packed(data, pieces, limit, overlap))
    ]


def _pieces(data: bytes, *, markdown: bool) -> Iterator[_Piece]:
    """Paragraphs, headings and fenced blocks, without the blank lines between them."""
    path: _Path = ()
    fence, start, end, position = b"", -1, -1, 0
    for line in data.splitlines(keepends=True):
        body, here = line.rstrip(_BLANK), position
        position += len(line)
        marks = _fence(body) if markdown else b""
        heading = _HEADING.match(body) if markdown and not fence else None
        if start >= 0 and not fence and (not body or heading or marks):
            yield _Piece(start, end, _titles(path))
            start = -1
        if heading:
            path = _below(path, heading)
            yield _Piece(here, here + len(body), _titles(path), opens_section=True, is_heading=True)
        elif body:
            start, end = (here if start < 0 else start), here + len(body)
            if fence and body.strip(_BLANK) == marks and marks.startswith(fence):
                yield _Piece(start, end, _titles(path))
                fence, start = b"", -1
            else:
                fence = fence or marks
    if start >= 0:
        yield _Piece(start, end, _titles(path))


def _fence(body: bytes) -> bytes:
    """The marks that a line begins or ends a block of code with."""
    found = _FENCE.match(body)
    return found[1] or found[3] if found else b""


def _below(path: _Path, heading: re.Match[bytes]) -> _Path:
    level = len(heading[1])
    title = (heading[2] or b"").decode("utf-8", "replace").strip()
    return (*(each for each in path if each[0] < level), (level, title))


def _titles(path: _Path) -> tuple[str, ...]:
    return tuple(title for _, title in path if title)


def _fitting(data: bytes, pieces: Iterator[_Piece], limit: int, overlap: int) -> Iterator[_Piece]:
    """The same, with those that are too large cut up so that an overlap fits in front."""
    for piece in pieces:
        start, room = piece.start, limit
        while piece.end - start > room:
            cut = _cut(data, start, start + room)
            end = start + len(data[start:cut].rstrip(_BLANK))
            if end > start:
                yield replace(piece, start=start, end=end)
            start, room = cut, max(limit - overlap, SMALLEST)
        if data[start : piece.end].strip(_BLANK):
            yield replace(piece, start=start)


def _cut(data: bytes, start: int, end: int) -> int:
    """Where to cut so that at most the bytes up to `end` come before, blanks at the cut aside."""
    for mark in (b"\n", b" "):
        if (found := data.rfind(mark, start, end + 1)) > start:
            return found + 1
    return _character(data, end, -1)


def _character(data: bytes, at: int, step: int) -> int:
    """The nearest place between two characters."""
    while 0 < at < len(data) and data[at] & 0xC0 == 0x80:
        at += step
    return at


def _joined(pieces: Iterator[_Piece], limit: int) -> Iterator[_Piece]:
    """Headings joined to what they introduce, if both fit into one chunk."""
    held: _Piece | None = None
    for piece in pieces:
        if held is not None and held.is_heading and piece.end - held.start <= limit:
            held = replace(piece, start=held.start, opens_section=True)
            continue
        if held is not None:
            yield held
        held = piece
    if held is not None:
        yield held


def _packed(data: bytes, pieces: Iterator[_Piece], limit: int, overlap: int) -> Iterator[_Piece]:
    """As many pieces as fit into each chunk; a section begins a new one if half of it is full."""
    chunk: _Piece | None = None
    for piece in pieces:
        if chunk is None:
            chunk = piece
        elif piece.end - chunk.start <= limit and not (
            piece.opens_section and chunk.end - chunk.start >= limit // 2
        ):
            chunk = replace(chunk, end=piece.end)
        else:
            yield chunk
            chunk = replace(piece, start=_reaching_back(data, chunk.end, piece, limit, overlap))
    if chunk is not None:
        yield chunk


def _reaching_back(data: bytes, before: int, piece: _Piece, limit: int, overlap: int) -> int:
    """Where a chunk begins that repeats the end of the one before, at a word if there is one."""
    start = max(before - overlap, piece.end - limit)
    if piece.opens_section or start >= before:
        return piece.start
    if data[start - 1 : start] not in (b" ", b"\t", b"\n", b"\r"):
        blank = _BETWEEN_WORDS.search(data, start, before)
        start = blank.end() if blank else _character(data, start, 1)
    return start if start < before else piece.start
