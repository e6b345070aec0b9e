"""`$VAR` is expanded in secrets and addresses only, and no secret is ever shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heartbit.config import Config, check, load, show
from heartbit.config.fields import masked_url
from heartbit.errors import ConfigError

FILE = Path("heartbit.toml")
AGENT = '[[agents]]\nname = "a"\ndescription = ""\nsystem_prompt = ""\n'
SECRET = "hunter2"
EVERYWHERE = f"""
[provider]
name = "openai"
model = "m"
base_url = "https://{SECRET}@host/v1"
api_key = "{SECRET}"
cascade = {{ enabled = true, tiers = [{{ model = "s", api_key = "{SECRET}" }}] }}
{AGENT}
mcp_servers = [
  "https://u:{SECRET}@host/mcp",
  {{ url = "https://host/mcp?key={SECRET}", auth_header = "Bearer {SECRET}" }},
  {{ command = "x", env = {{ KEY = "{SECRET}" }} }},
]
[celery]
broker_url = "redis://:{SECRET}/?#@host/0"
result_backend = "db+postgresql://u:{SECRET}@host/x"
[database]
url = "postgresql://u:{SECRET}@host/x"
[memory]
type = "postgres"
database_url = "postgresql://u:{SECRET}@host/x"
embedding = {{ base_url = "https://{SECRET}@host" }}
[[knowledge.sources]]
type = "url"
url = "https://u:{SECRET}@host"
[daemon]
database_url = "postgresql://u:{SECRET}@host/x"
[daemon.ws]
database_url = "postgresql://u:{SECRET}@host/x"
[daemon.auth]
bearer_tokens = ["{SECRET}"]
jwks_url = "https://host/?{SECRET}"
[daemon.auth.token_exchange]
exchange_url = "https://host/#{SECRET}"
client_id = "c"
client_secret = "{SECRET}"
agent_token = "{SECRET}"
[telemetry]
otlp_endpoint = "https://{SECRET}@host"
[restate]
endpoint = "https://{SECRET}@host"
"""


def api_key(text: str, **environ: str) -> str:
    key = load(FILE, environ, text=f"[provider]\napi_key = '{text}'").config.provider.api_key
    assert key is not None
    return key.get_secret_value()


def test_a_variable_is_put_in_wherever_it_is_named() -> None:
    assert "v" == api_key("$V", V="v")
    assert "v" == api_key("${V}", V="v")
    assert "a-vv2-z" == api_key("a-${V}${V}2-z", V="v")
    assert "$V" == api_key("$$V", V="v")
    assert "$1, $ $" == api_key("$1, $ $", V="v")


def test_what_a_variable_holds_is_not_expanded_again() -> None:
    assert "$W" == api_key("$V", V="$W", W="w")
    environ = {"ANTHROPIC_API_KEY": "$W", "W": "w"}
    key = load(FILE, environ, text="").config.provider.api_key
    assert key is not None
    assert "$W" == key.get_secret_value()


def test_a_dollar_means_itself_in_every_other_text() -> None:
    text = AGENT.replace('system_prompt = ""', 'system_prompt = "costs $V"')
    assert "costs $V" == load(FILE, {"V": "v"}, text=text).config.agents[0].system_prompt


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("$NOPE", "names the environment variable NOPE, which is not set; "),
        ("x${NOPE}", "names the environment variable NOPE, which is not set; "),
        ("pa$sWord", "names an environment variable, which is not set; "),
        ("${}", "has a '${' without a name and a '}'; "),
        ("${A", "has a '${' without a name and a '}'; "),
        ("${A-b}", "has a '${' without a name and a '}'; "),
    ],
)
def test_a_variable_that_is_not_set_is_an_error_with_its_line(value: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        api_key(value, A="a")
    assert caught.value.message.startswith(f"heartbit.toml:2: 'api_key' in [provider] {what}")
    assert caught.value.message.endswith("write $$ for a dollar")


def test_no_secret_is_in_what_is_shown_or_printed() -> None:
    loaded = load(FILE, {}, text=EVERYWHERE)
    shown = json.dumps(show(loaded))
    assert "***" in shown
    for text in (shown, repr(loaded), str(loaded.config), repr(loaded.config)):
        assert SECRET not in text


@settings(deadline=None)
@given(st.sampled_from([n for n, line in enumerate(EVERYWHERE.split("\n")) if SECRET in line]))
def test_no_secret_is_in_a_message_about_the_line_it_stands_on(number: int) -> None:
    lines = EVERYWHERE.split("\n")
    for broken in (
        lines[number].replace('"', "'").replace("https://", "").replace("postgresql://", ""),
        lines[number].replace(SECRET, f"${SECRET}"),
        lines[number].replace(" = ", " = [", 1) + "]",
        lines[number].replace('"', ""),
        lines[number].removesuffix('"'),
    ):
        text = "\n".join([*lines[:number], broken, *lines[number + 1 :]])
        for problem in check(FILE, {}, text=text):
            assert SECRET not in str(problem)


def test_no_secret_is_in_the_text_of_a_validation_error() -> None:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate({"provider": {"name": "openai", "model": "m", "api_key": [SECRET]}})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://localhost:8000/mcp", "http://localhost:8000/mcp"),
        ("postgresql://u:p@h:5432/db", "postgresql://***@h:5432/db"),
        ("https://token@h/x", "https://***@h/x"),
        ("redis://:a/b?c#d@e@h/0", "redis://***@h/0"),
        ("https://h/x?key=k#f", "https://h/x?***"),
        ("https://h/x#f", "https://h/x#***"),
        ("just-a-password", "***"),
    ],
)
def test_an_address_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert shown == masked_url(url)
