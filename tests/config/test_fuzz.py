"""Whatever is in a file, loading it gives a configuration or one clear error."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heartbit.config import load, show
from heartbit.config.models import Config
from heartbit.config.walk import fields_in, item_of, tables_in
from heartbit.errors import ConfigError
from tests.support.toml_text import toml

FILE = Path("heartbit.toml")
SAMPLE = (Path(__file__).parents[2] / "config/heartbit.toml").read_text(encoding="utf-8")
BARE = "\n".join(line.removeprefix("#") for line in SAMPLE.split("\n") if line[:2] != "# ")

texts = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('[]{}=."\n#$'), max_size=20
)
junk = st.recursive(
    st.booleans() | st.integers() | st.floats() | texts | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def error_of(path: Path, text: str | None = None) -> str | None:
    """The error of loading the file; None when it loads and can be shown."""
    try:
        show(load(path, {"V": "v"}, text=text))
    except ConfigError as error:
        return error.message
    return None


def loads_or_says_why(text: str) -> None:
    message = error_of(FILE, text)
    assert message is None or message.startswith("heartbit.toml:")
    assert message is None or "\n" not in message


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_configuration_or_one_error(text: str) -> None:
    loads_or_says_why(text)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(BARE)), st.integers(0, 40), texts)
def test_a_file_with_something_cut_or_put_in_is_a_configuration_or_one_error(
    at: int, cut: int, inserted: str
) -> None:
    loads_or_says_why(BARE[:at] + inserted + BARE[at + cut :])


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_a_configuration_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.toml"
    file.write_bytes(content)
    message = error_of(file)
    assert message is None or message.startswith(str(file))


def some_value(annotation: Any) -> st.SearchStrategy[Any]:
    """Mostly a value of the right shape, now and then anything at all."""
    tables = tables_in(annotation)
    item = item_of(annotation)
    if tables:
        right: st.SearchStrategy[Any] = some_table(tables[0])
    elif item is not None and "dict" in str(annotation):
        right = st.dictionaries(texts, st.deferred(lambda: some_value(item)), max_size=2)
    elif item is not None:
        right = st.lists(st.deferred(lambda: some_value(item)), max_size=2)
    else:
        right = junk
    return st.one_of(right, right, right, junk)


def some_table(table: Any) -> st.SearchStrategy[dict[str, Any]]:
    fields = fields_in(table)
    return st.dictionaries(
        st.sampled_from(sorted(map(str, fields))), st.none(), max_size=4
    ).flatmap(lambda keys: st.fixed_dictionaries({key: some_value(fields[key]) for key in keys}))


@settings(max_examples=60, deadline=None)
@given(some_table(Config))
def test_any_values_at_any_keys_are_a_configuration_or_one_error(data: dict[str, Any]) -> None:
    text = toml(data)
    tomllib.loads(text)
    loads_or_says_why(text)


counts = st.integers(1, 10**9)
names = st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True).filter(lambda n: n != "orchestrator")
limits: dict[str, st.SearchStrategy[Any]] = {
    "max_turns": counts,
    "max_tokens": counts,
    "max_total_tokens": counts,
    "run_timeout_seconds": counts | st.floats(1, 1e6),
    "reasoning_effort": st.sampled_from(["none", "LOW", "Medium", "high"]),
    "context_strategy": st.sampled_from(
        [{"type": "unlimited"}, {"type": "sliding_window", "max_tokens": 9}]
    ),
}
agents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"name": names, "description": texts, "system_prompt": texts},
    optional={
        **limits,
        "tools": st.lists(st.sampled_from(["read", "m:f", "celery:t"])),
        "session_prune": st.just({}),
        "mcp_servers": st.lists(
            st.sampled_from(["http://h", {"command": "x", "env": {"A": "$V"}}])
        ),
        "response_schema": st.just({"type": "object", "properties": {}}),
    },
)
valid: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "provider": st.fixed_dictionaries(
            {"name": st.sampled_from(["anthropic", "openrouter", "openai", "scripted"])},
            optional={"model": names, "prompt_caching": st.booleans()},
        ),
        "orchestrator": st.fixed_dictionaries(
            {}, optional={**limits, "routing": st.sampled_from(["auto", "single_agent"])}
        ),
        "agents": st.lists(agents, max_size=3, unique_by=lambda agent: agent["name"]),
        "permissions": st.lists(
            st.fixed_dictionaries({"tool": names, "action": st.sampled_from(["allow", "ask"])})
        ),
        "pricing": st.dictionaries(
            texts, st.just({"input_per_million": 1, "output_per_million": 2.5}), max_size=2
        ),
    },
)


@settings(max_examples=50, deadline=None)
@given(valid)
def test_any_valid_values_load_and_keep_their_meaning(data: dict[str, Any]) -> None:
    config = load(FILE, {"V": "v"}, text=toml(data)).config
    for key, value in data.get("orchestrator", {}).items():
        if key not in ("context_strategy", "reasoning_effort"):
            assert value == getattr(config.orchestrator, key)
    assert [agent["name"] for agent in data.get("agents", [])] == [a.name for a in config.agents]
    assert [a["system_prompt"] for a in data.get("agents", [])] == [
        agent.system_prompt for agent in config.agents
    ]
    assert sorted(data.get("pricing", {})) == sorted(config.pricing)
