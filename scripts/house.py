"""Sizes of the house, room by room: `make sloc`. Says where to look; never fails.

Only lines with code count: blank lines, comments and docstrings are free.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONG_FUNCTION, LONG_MODULE = 60, 400
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.ENCODING,
}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    """Print the table of rooms, the lengths of functions, and what is longer than it should be."""
    source, tests = modules("heartbit"), modules("tests")
    print(f"{'room':<24}{'files':>7}{'code':>8}")
    for room, paths in sorted(by_room(source).items()):
        print(f"{room:<24}{len(paths):>7}{sum(map(code_lines, paths)):>8}")
    ours, theirs = sum(map(code_lines, source)), sum(map(code_lines, tests))
    print(f"{'heartbit':<24}{len(source):>7}{ours:>8}")
    print(
        f"{'tests':<24}{len(tests):>7}{theirs:>8}   {theirs / max(ours, 1):.2f} per line of source"
    )
    print(function_summary(source))
    for finding in long_ones(source):
        print(f"look at {finding}")


def modules(package: str) -> list[Path]:
    """Every module below a top-level folder."""
    return sorted((ROOT / package).rglob("*.py"))


def by_room(paths: list[Path]) -> dict[str, list[Path]]:
    """Modules grouped by the folder (or top-level module) they belong to."""
    rooms: dict[str, list[Path]] = {}
    for path in paths:
        inner = path.relative_to(ROOT / "heartbit")
        rooms.setdefault(inner.parts[0], []).append(path)
    return rooms


def code_lines(path: Path) -> int:
    """How many lines of a module hold code."""
    text = path.read_text()
    used: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NOT_CODE:
            used.update(range(token.start[0], token.end[0] + 1))
    return len(used - docstring_lines(ast.parse(text)))


def docstring_lines(tree: ast.Module) -> set[int]:
    """The lines taken by strings that stand alone as statements."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def functions(path: Path) -> Iterator[tuple[Function, int]]:
    """Every function of a module with its length in lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node, (node.end_lineno or node.lineno) - node.lineno + 1


def function_summary(paths: list[Path]) -> str:
    """Median, 90th percentile and maximum of the functions' lengths."""
    sizes = sorted(length for path in paths for _, length in functions(path)) or [0]
    middle, late = sizes[len(sizes) // 2], sizes[len(sizes) * 9 // 10]
    return f"functions: {len(sizes)}, median {middle}, p90 {late}, longest {sizes[-1]} lines"


def long_ones(paths: list[Path]) -> Iterator[str]:
    """Functions and modules above the size where they are worth a second look."""
    for path in paths:
        name = path.relative_to(ROOT)
        if (lines := path.read_text().count("\n")) > LONG_MODULE:
            yield f"{name}: {lines} lines"
        for node, length in functions(path):
            if length > LONG_FUNCTION:
                yield f"{name}:{node.lineno}: {node.name} has {length} lines"


if __name__ == "__main__":
    main()
