"""Cut text that is too long, at a character boundary, and say exactly how much is missing.

Sizes are bytes of UTF-8. A lone surrogate (models and tools do produce them) counts as the three
bytes it would take.
"""

from __future__ import annotations


def byte_length(text: str) -> int:
    """How many bytes `text` takes in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def split_at(text: str, max_bytes: int) -> tuple[str, int]:
    """The longest head of `text` within `max_bytes`, and the number of bytes left out."""
    raw = text.encode("utf-8", "surrogatepass")
    end = max(max_bytes, 0)
    if len(raw) <= end:
        return text, 0
    while end and raw[end] & 0xC0 == 0x80:
        end -= 1
    return raw[:end].decode("utf-8", "surrogatepass"), len(raw) - end


def truncate(text: str, max_bytes: int | None) -> str:
    """`text` cut to `max_bytes`, followed by a note of what was omitted; the note is not counted.

    None and 0 mean no limit.
    """
    if not max_bytes:
        return text
    head, omitted = split_at(text, max_bytes)
    return f"{head}\n\n[truncated: {omitted} bytes omitted]" if omitted else text
