"""The SQL of the PostgreSQL stores: schema.sql, the numbered migrations, and named queries.

A block of one of the files of queries begins with `-- name --` and one line that says what it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

FILES = ("queries.sql", "memories.sql", "knowledge.sql")
_BLOCK = re.compile(r"^-- (\w+) --$\n((?:(?!^-- \w+ --$).*\n?)*)", re.MULTILINE)


@cache
def queries() -> Mapping[str, str]:
    """Every named query."""
    here = files(__name__)
    text = "\n".join(here.joinpath(name).read_text(encoding="utf-8") for name in FILES)
    return {name: body.strip() for name, body in _BLOCK.findall(text)}


def schema() -> str:
    """The whole schema, as a new database gets it."""
    return files(__name__).joinpath("schema.sql").read_text(encoding="utf-8")


def migrations() -> tuple[tuple[int, str, str], ...]:
    """(version, name, SQL) of every migration, oldest first."""
    found = []
    for entry in files(__name__).joinpath("migrations").iterdir():
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name):
            found.append((int(match[1]), match[2], entry.read_text(encoding="utf-8")))
    return tuple(sorted(found))
