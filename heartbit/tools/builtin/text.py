"""Small rules about bytes and text that every tool's output follows."""

from __future__ import annotations

from heartbit.errors import ToolError

PROBE_BYTES = 4096
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\b\x1b")
_CONTROL_SHARE = 0.3


def encodable(text: str) -> str:
    """`text` with lone surrogates replaced, so that it can be sent and stored as UTF-8."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def printable(name: str) -> str:
    """A file's name on one line: control characters and undecodable bytes become `?`."""
    return "".join(char if char.isprintable() else "?" for char in name)


def utf8(text: str, what: str) -> bytes:
    """`text` in UTF-8; raises ToolError naming `what` when it holds lone surrogates."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ToolError(f"{what} holds a lone surrogate, which no UTF-8 file can hold.") from None


def head(data: bytes, limit: int) -> bytes:
    """At most the first `limit` bytes, without a cut UTF-8 character at the end."""
    if len(data) <= limit:
        return data
    end = limit
    while end > 0 and limit - end < 4 and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[:end]


def tail(data: bytes, limit: int) -> bytes:
    """At most the last `limit` bytes, without a cut UTF-8 character at the start."""
    if len(data) <= limit:
        return data
    start = len(data) - limit
    while start < len(data) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]


def cut(text: str, limit: int) -> str:
    """`text` up to `limit` bytes of UTF-8, with a note of what is missing."""
    data = text.encode("utf-8", "replace")
    kept = head(data, limit)
    if len(kept) == len(data):
        return text
    return f"{kept.decode('utf-8')}\n\n[cut: {len(data) - len(kept)} bytes omitted]"


def looks_binary(start: bytes) -> bool:
    """Whether a file that begins with `start` is no text: a NUL, or too many control bytes."""
    probe = start[:PROBE_BYTES]
    controls = sum(1 for byte in probe if byte < 32 and byte not in _TEXT_CONTROLS)
    return b"\0" in probe or controls > len(probe) * _CONTROL_SHARE
