"""Documents that agents can search: the table [knowledge] and its sources."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from heartbit.config.fields import Amount, Count, Many, Table, Text, WebUrl, broken_rule


class SourceTable(Table):
    """One place that documents are read from."""

    type: Literal["file", "glob", "url"]
    """What kind of place it is."""
    path: Text | None = None
    """The file, for type `file`; a relative path is seen from the workspace."""
    pattern: Text | None = None
    """The pattern of paths, for type `glob`: `docs/**/*.md`. It fits no links or hidden files."""
    url: WebUrl | None = None
    """The page, for type `url`, at a public address; whoever cites it shows the address."""

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        key = {"file": "path", "glob": "pattern", "url": "url"}[self.type]
        if getattr(self, key) is None:
            raise ValueError(f"needs {key!r} for type {self.type!r}")
        return self


class KnowledgeTable(Table):
    """Documents that agents can search. With it every agent has the tool `knowledge_search`."""

    chunk_size: Count = 1000
    """The most bytes in one piece of a document, which is what a search finds."""
    chunk_overlap: Amount = 200
    """Bytes that a piece shares with the one before; less than `chunk_size`."""
    collection: Text = "default"
    """Projects with one database keep their documents apart by this name."""
    sources: Many[SourceTable] = ()
    """Where the documents are."""

    @model_validator(mode="after")
    def _moves_on(self) -> Self:
        if self.chunk_overlap >= self.chunk_size:
            raise broken_rule(
                f"must be less than chunk_size ({self.chunk_size}), not {self.chunk_overlap}",
                "chunk_overlap",
            )
        return self
