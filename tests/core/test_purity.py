"""The rules of a run could run on paper: nothing in core asks the world for anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).resolve().parents[2] / "heartbit" / "core"
WORLD = {
    *("now", "utcnow", "today", "time", "monotonic", "perf_counter", "sleep"),
    *("uuid1", "uuid4", "uuid7", "urandom", "getrandbits", "token_hex"),
    *("open", "print", "input", "exec", "eval", "__import__"),
}


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The last name of everything a module calls, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                yield node.func.attr, node.lineno
            elif isinstance(node.func, ast.Name):
                yield node.func.id, node.lineno


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.name)
def test_core_asks_no_clock_no_chance_and_no_file(path: Path) -> None:
    """What a module calls is nowhere in the list of things that touch the world."""
    found = [
        f"{path.name}:{line}: {name}"
        for name, line in calls(ast.parse(path.read_text()))
        if name in WORLD
    ]
    assert [] == found


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: path.name)
def test_core_has_no_coroutine(path: Path) -> None:
    """Waiting is an engine's business."""
    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, waits)]
    assert [] == found
