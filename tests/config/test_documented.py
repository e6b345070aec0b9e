"""The reference and the sample file name every key, with the defaults the tables have."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from heartbit.config import load
from heartbit.config.environment import VARIABLES
from heartbit.config.fields import Table
from heartbit.config.locate import locate
from heartbit.config.models import Config
from heartbit.config.reference import documentation, reference
from heartbit.config.walk import KeyPath, annotation_at, dotted, item_of, leaves, tables_in

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
SAMPLE = (ROOT / "config/heartbit.toml").read_text(encoding="utf-8")
ENVIRON = dict.fromkeys(
    ["ANTHROPIC_API_KEY", "MCP_TOKEN", "HEARTBIT_API_KEY", "CLIENT_SECRET", "AGENT_TOKEN"], "x"
) | {"DATABASE_URL": "postgresql://h/d"}


def is_setting(line: str) -> bool:
    """A setting is commented with `#` and no blank, prose with `#` and a blank."""
    return line.startswith("#") and line[1:2] not in (" ", "")


BARE = "\n".join(
    line.removeprefix("#") if is_setting(line) else line for line in SAMPLE.split("\n")
)


def all_fields(table: type[Table], path: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of every table: the table, its path, the key, the field."""
    for key, field in table.model_fields.items():
        yield table, path, key, field
        inner = tables_in(field.annotation) or tables_in(item_of(field.annotation))
        for part in inner if key != "provider" or not path else ():
            yield from all_fields(part, (*path, key))


LINES = locate(BARE)
FIELDS = list(all_fields(Config))


def test_the_reference_is_what_the_tables_say() -> None:
    assert reference() == REFERENCE, "run `python -m heartbit.config.reference` to write it again"


@pytest.mark.parametrize("variable", [variable.name for variable in VARIABLES])
def test_every_variable_is_in_the_reference(variable: str) -> None:
    assert f"| `{variable}` |" in REFERENCE


def test_every_key_has_a_text_and_is_in_the_reference() -> None:
    for table, path, key, _ in FIELDS:
        meaning = documentation(table)[key].strip()
        assert meaning.endswith("."), (table, key)
        if path:
            assert f"| `{key}` |" in REFERENCE, dotted((*path, key))
            assert " ".join(meaning.split()) in REFERENCE


def test_every_key_is_in_the_sample_file() -> None:
    written = {key_name(path) for path in LINES}
    shared = "orchestrator.context_strategy."  # shown once, with the agents
    missing = {key_name((*path, key)) for _, path, key, _ in FIELDS} - written
    assert set() == {name for name in missing if not name.startswith(shared)}


def test_the_sample_file_loads_as_it_is_and_has_no_setting_but_its_agents() -> None:
    config = load(Path("heartbit.toml"), {}, text=SAMPLE).config
    assert ["researcher", "analyst", "writer"] == [agent.name for agent in config.agents]
    assert {"agents"} == set(tomllib.loads(SAMPLE))


def test_the_sample_file_loads_without_its_comments() -> None:
    load(Path("heartbit.toml"), ENVIRON, text=BARE)


def test_every_default_in_the_sample_file_is_the_real_one() -> None:
    wrong = []
    for path, line in LINES.items():
        field, value = field_at(path), value_at(path)
        if field is None or isinstance(value, dict | list) or not shows_default(path):
            continue
        if field.is_required() or value != field.default:
            wrong.append((dotted(path), line, value))
    assert [] == wrong


def test_the_sample_file_shows_every_default_that_is_not_in_an_example() -> None:
    shown = {key_name(path) for path in LINES if shows_default(path)}
    examples = {key_name(path) for path in LINES if not shows_default(path)}
    for _, path, key, field in FIELDS:
        name = key_name((*path, key))
        in_example = name.rpartition(".")[0] in examples or "context_strategy" in path
        if isinstance(field.default, bool | int | float | str) and not in_example:
            assert name in shown


def key_name(path: KeyPath) -> str:
    """The dotted key without positions and names of models."""
    return dotted(tuple(s for s in path if isinstance(s, str) and not s.startswith("claude")))


def field_at(path: KeyPath) -> FieldInfo | None:
    tables = tables_in(annotation_at(path[:-1])) if path else []
    found = [table.model_fields.get(str(path[-1])) for table in tables]
    return next(filter(None, found), None)


def value_at(path: KeyPath) -> Any:
    value: Any = tomllib.loads(BARE)
    for step in path:
        value = value[step]
    return value


def shows_default(path: KeyPath) -> bool:
    """Commented out, and neither it nor a table around it is called an example."""
    commented = is_setting(SAMPLE.split("\n")[LINES[path] - 1])
    around = [BARE.split("\n")[LINES[path[:n]] - 1] for n in range(1, len(path) + 1)]
    return commented and not any("# example" in line for line in around)


def test_leaves_reach_every_setting_of_the_sample_file() -> None:
    config = load(Path("heartbit.toml"), ENVIRON, text=BARE).config
    assert len(list(leaves(config))) > 150
