"""What an indexing did, in numbers and in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

from heartbit.knowledge.sources import Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Documents by what became of them, chunks that were written, vectors that were computed.

    `failed` counts parts of sources of which nothing is known, because their worker failed.
    """

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    chunks: int = 0
    embedded: int = 0
    failed: int = 0
    problems: tuple[Problem, ...] = ()

    def __add__(self, other: Report) -> Report:
        names = [each.name for each in fields(self)]
        return Report(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def documents(self) -> int:
        """How many documents are in the index, of those that were looked at."""
        return self.added + self.changed + self.unchanged

    def as_json(self) -> dict[str, Any]:
        """For other processes and for programs."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        problems = [{"source": x.name, "message": x.message} for x in self.problems]
        return values | {"problems": problems}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """What `as_json` gave."""
        problems = tuple(
            Problem(name=each["source"], message=each["message"]) for each in value["problems"]
        )
        return cls(**value | {"problems": problems})

    def summary(self) -> str:
        """All numbers on one line."""
        parts = [f"{self.documents:,} documents"]
        for name in ("added", "changed", "removed"):
            if count := getattr(self, name):
                parts.append(f"{count:,} {name}")
        if self.chunks:
            parts.append(f"{self.chunks:,} chunks written")
        if self.embedded:
            parts.append(f"{self.embedded:,} vectors computed")
        return ", ".join(parts)

    def warnings(self) -> Iterator[str]:
        """One sentence for each kind of problem, however many documents have it."""
        names: dict[str, list[str]] = {}
        for each in self.problems:
            names.setdefault(each.message, []).append(each.name)
        for message, having in names.items():
            more = f" and {len(having) - 1:,} more" if len(having) > 1 else ""
            yield f"{having[0]}{more}: {message}"
