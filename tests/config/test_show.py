"""`show` tells every effective setting and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from heartbit.config import Setting, load, show

FILE = Path("heartbit.toml")
TEXT = """\
[provider]
api_key = "$KEY"

[[agents]]
name = "a"
description = ""
system_prompt = ""
tools = ["read"]
mcp_servers = [
  "http://h/mcp",
  { url = "http://u:p@h/mcp", auth_header = "$KEY" },
]
session_prune = {}

[pricing."m.1"]
input_per_million = 1.5
output_per_million = 2
"""


def settings(text: str = TEXT, **environ: str) -> dict[str, tuple[Any, str]]:
    loaded = load(FILE, {"KEY": "k", **environ}, text=text, overrides={"orchestrator.max_turns": 3})
    return {key: (value, origin) for key, value, origin in show(loaded)}


def test_every_setting_is_shown_with_its_origin() -> None:
    shown = settings(HEARTBIT_MODEL="m", OPENAI_API_KEY="x")
    assert ("openai", "env OPENAI_API_KEY") == shown["provider.name"]
    assert ("m", "env HEARTBIT_MODEL") == shown["provider.model"]
    assert ("***", "heartbit.toml:2") == shown["provider.api_key"]
    assert (3, "default") == shown["provider.retry.max_retries"]
    assert (3, "flag") == shown["orchestrator.max_turns"]
    assert (4096, "default") == shown["orchestrator.max_tokens"]
    assert ("a", "heartbit.toml:5") == shown["agents[0].name"]
    assert (["read"], "heartbit.toml:8") == shown["agents[0].tools"]
    assert ("http://h/mcp", "heartbit.toml:10") == shown["agents[0].mcp_servers[0].url"]
    assert ("auto", "default") == shown["agents[0].mcp_servers[0].mode"]
    assert ("http://***@h/mcp", "heartbit.toml:11") == shown["agents[0].mcp_servers[1].url"]
    assert ("***", "heartbit.toml:11") == shown["agents[0].mcp_servers[1].auth_header"]
    assert (2, "default") == shown["agents[0].session_prune.keep_recent_n"]
    assert (1.5, "heartbit.toml:16") == shown['pricing."m.1".input_per_million']
    assert (None, "default") == shown["memory"]


def test_a_key_of_the_environment_is_masked_and_its_variable_named() -> None:
    shown = settings("", ANTHROPIC_API_KEY="secret")
    assert ("***", "env ANTHROPIC_API_KEY") == shown["provider.api_key"]


def test_what_another_provider_left_behind_has_the_origin_of_its_default() -> None:
    environ = {"HEARTBIT_PROVIDER": "openai", "HEARTBIT_BASE_URL": "http://h"}
    loaded = load(FILE, environ, text="", overrides={"provider.name": "anthropic"})
    assert Setting("provider.base_url", None, "default") in show(loaded)


def test_the_defaults_are_called_so() -> None:
    origins = {setting.origin for setting in show(load(None, {}))}
    assert {"default"} == origins


def test_what_is_shown_is_json() -> None:
    shown = show(load(FILE, {"KEY": "k"}, text=TEXT))
    assert [list(setting) for setting in shown] == json.loads(json.dumps(shown))
    assert isinstance(shown[0], Setting)
