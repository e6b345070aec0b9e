"""One word per thing: what the glossary rules out names nothing in heartbit/."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.repository import ROOT

GLOSSARY = ROOT / "docs" / "glossary.md"


def forbidden() -> set[str]:
    """The words in code style of the table's last column."""
    rows = [line for line in GLOSSARY.read_text().splitlines() if line.startswith("|")]
    return {word for row in rows for word in re.findall(r"`(\w+)`", row.split("|")[-2])}


def names(tree: ast.AST) -> Iterator[str]:
    """Everything a module gives a name to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def snake(name: str) -> str:
    """`RunStarted` as `run_started`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def uses(word: str, name: str) -> bool:
    """Whether a name contains a word, also in the plural."""
    return re.search(rf"(^|_){word}s?(_|$)", snake(name)) is not None


def test_the_glossary_rules_words_out() -> None:
    """The table is read: an empty set would make the next test say nothing."""
    assert {"iteration", "tokens_used", "finish_reason"} <= forbidden()


def test_no_name_in_heartbit_is_a_word_the_glossary_rules_out() -> None:
    """Classes, functions, parameters and variables use the glossary's words.

    Only the keys of the configuration file are older than it and stay as people know them.
    """
    words = forbidden()
    config = ROOT / "heartbit" / "config"
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "heartbit").rglob("*.py"))
        if not path.is_relative_to(config)
        for name in names(ast.parse(path.read_text()))
        for word in words
        if uses(word, name)
    ]
    assert [] == found


def test_every_event_and_command_of_the_core_is_in_the_architecture() -> None:
    """A new kind of event is explained where people read about events."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    missing = [name for name in (*union("events"), *union("commands")) if f"`{name}`" not in page]
    assert [] == missing


def union(module: str) -> list[str]:
    """The members of the union at the end of a module of the core."""
    tree = ast.parse(Path(ROOT / "heartbit" / "core" / f"{module}.py").read_text())
    value = tree.body[-1].value  # type: ignore[attr-defined]
    return [node.id for node in ast.walk(value) if isinstance(node, ast.Name)]
