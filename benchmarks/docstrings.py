"""A collection to search in, made of what the standard library says about itself.

The first paragraph of a docstring is a question: people wrote it to say in other words what the
rest says at length. The document that answers it is that rest, under the name it belongs to.

Sources are read and never imported, so that nothing depends on what runs or is installed here.
What there is depends on the release of Python all the same: `fingerprint` tells.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heartbit.core.terms import terms

LIBRARY = Path(sysconfig.get_path("stdlib"))
LEFT_OUT = {"distutils", "ensurepip", "idlelib", "lib2to3", "turtledemo"}
"""Programs, and what some distributions of Python leave out too."""
TESTS = {"test", "tests"}
QUESTION_TERMS = range(4, 31)
DOCUMENT_TERMS = 10
"""A shorter rest answers nothing."""
ASKED = 2
"""One question in so many is asked: more would take minutes and tell little more."""

_Named = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Question:
    """A text, and the names of the documents that answer it; mostly one."""

    text: str
    answers: frozenset[str]

    @property
    def half(self) -> int:
        """0 or 1: which half of the questions it belongs to, by its text alone."""
        return self._hash[0] % 2

    @property
    def is_asked(self) -> bool:
        """Whether it is one of those that are asked, again by its text alone."""
        return self._hash[1] % ASKED == 0

    @property
    def _hash(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents by their names, and questions."""

    documents: dict[str, str]
    questions: tuple[Question, ...]

    @property
    def fingerprint(self) -> str:
        """The same for the same collection."""
        parts = [*map("\n".join, self.documents.items()), *(each.text for each in self.questions)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def collection(package: str = "") -> Collection:
    """All public docstrings of the library with more than one paragraph, or those of a package."""
    documents: dict[str, str] = {}
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for name, path in _modules():
        if name.startswith(package):
            for owner, docstring in _docstrings(name, ast.parse(path.read_bytes())):
                summary, _, rest = docstring.partition("\n\n")
                question = " ".join(summary.split())
                if len(terms(question)) in QUESTION_TERMS and len(terms(rest)) >= DOCUMENT_TERMS:
                    documents[owner] = rest.strip()
                    answers[question].add(owner)
    questions = (Question(text, frozenset(names)) for text, names in answers.items())
    return Collection(documents, tuple(each for each in questions if each.is_asked))


def _modules() -> Iterator[tuple[str, Path]]:
    """The public modules, by name."""
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY).with_suffix("").parts
        names = parts[:-1] if parts[-1] == "__init__" else parts
        if (
            names
            and names[0] in sys.stdlib_module_names - LEFT_OUT
            and TESTS.isdisjoint(names)
            and all(_is_public(name) for name in names)
        ):
            yield ".".join(names), path


def _docstrings(name: str, node: ast.Module | _Named) -> Iterator[tuple[str, str]]:
    """What a module says of itself and of its public classes, methods and functions."""
    if docstring := ast.get_docstring(node):
        yield name, docstring
    if isinstance(node, ast.Module | ast.ClassDef):
        for each in node.body:
            if isinstance(each, _Named) and _is_public(each.name):
                yield from _docstrings(f"{name}.{each.name}", each)


def _is_public(name: str) -> bool:
    return not name.startswith("_")
