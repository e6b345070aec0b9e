"""Settings come from flags, environment, file and defaults, in this order."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from heartbit.config import find_config, load
from heartbit.config.models import Config

FILE = Path("heartbit.toml")
AGENT = '[[agents]]\nname = "a"\ndescription = ""\nsystem_prompt = ""\n'


def config_of(text: str, **environ: str) -> Config:
    return load(FILE, environ, text=text).config


def warnings_of(text: str, **environ: str) -> tuple[str, ...]:
    return load(FILE, environ, text=text).warnings


def test_flags_win_over_the_environment_over_the_file_over_the_defaults() -> None:
    assert 10 == config_of("").orchestrator.max_turns
    text = "[orchestrator]\nmax_turns = 2"
    assert 2 == config_of(text).orchestrator.max_turns
    environ = {"HEARTBIT_MAX_TURNS": "3"}
    assert 3 == load(FILE, environ, text=text).config.orchestrator.max_turns
    flags = {"orchestrator.max_turns": 4, "orchestrator.max_tokens": None}
    assert 4 == load(FILE, environ, text=text, overrides=flags).config.orchestrator.max_turns


@pytest.mark.parametrize(
    ("name", "text", "table", "key", "value"),
    [
        ("PROVIDER", "openai", "provider", "name", "openai"),
        ("MODEL", "m", "provider", "model", "m"),
        ("PROMPT_CACHING", "1", "provider", "prompt_caching", True),
        ("PROMPT_CACHING", "False", "provider", "prompt_caching", False),
        ("MAX_TURNS", "7", "orchestrator", "max_turns", 7),
        ("MAX_TOKENS", "7", "orchestrator", "max_tokens", 7),
        ("SUMMARIZE_THRESHOLD", "7", "orchestrator", "summarize_threshold", 7),
        ("MAX_TOOL_OUTPUT_BYTES", "7", "orchestrator", "max_tool_output_bytes", 7),
        ("TOOL_TIMEOUT", "7.5", "orchestrator", "tool_timeout_seconds", 7.5),
        ("MAX_IDENTICAL_TOOL_CALLS", "7", "orchestrator", "max_identical_tool_calls", 7),
        ("REASONING_EFFORT", "HIGH", "orchestrator", "reasoning_effort", "high"),
        ("TOOL_PROFILE", "Full", "orchestrator", "tool_profile", "full"),
        ("ROUTING", "single_agent", "orchestrator", "routing", "single_agent"),
    ],
)
def test_a_variable_sets_its_key(name: str, text: str, table: str, key: str, value: object) -> None:
    config = load(None, {f"HEARTBIT_{name}": text}).config
    assert value == getattr(getattr(config, table), key)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert 10 == config_of("", HEARTBIT_MAX_TURNS=" ").orchestrator.max_turns
    assert "openai" == config_of("", ANTHROPIC_API_KEY="", OPENAI_API_KEY="k").provider.name


def test_the_base_url_of_the_environment_is_taken_as_it_is() -> None:
    url = config_of("", HEARTBIT_BASE_URL="http://h/$x").provider.base_url
    assert url is not None
    assert "http://h/$x" == url.get_secret_value()


def test_a_flag_is_taken_as_it_is() -> None:
    flags = {"provider.base_url": "http://h/$x"}
    url = load(None, {}, overrides=flags).config.provider.base_url
    assert url is not None
    assert "http://h/$x" == url.get_secret_value()


def test_the_mcp_servers_of_the_environment_replace_those_of_every_agent() -> None:
    text = AGENT + "mcp_servers = ['http://old']\n" + AGENT.replace('"a"', '"b"')
    agents = config_of(text, HEARTBIT_MCP_SERVERS="http://x/$a, http://y,").agents
    for agent in agents:
        urls = [server.url.get_secret_value() for server in agent.mcp_servers]  # type: ignore[union-attr]
        assert ["http://x/$a", "http://y"] == urls
    default = load(None, {"HEARTBIT_MCP_SERVERS": "http://x"}).config.agents
    assert [1, 1, 1] == [len(agent.mcp_servers) for agent in default]
    assert [0, 0, 0] == [len(agent.mcp_servers) for agent in load(None, {}).config.agents]


def test_without_a_file_there_are_the_researcher_the_analyst_and_the_writer() -> None:
    agents = load(None, {}).config.agents
    assert ["researcher", "analyst", "writer"] == [agent.name for agent in agents]
    assert all(agent.description and agent.system_prompt for agent in agents)
    assert all(agent.tools == () for agent in agents)


def test_a_file_without_agents_has_none() -> None:
    assert () == config_of("").agents


@pytest.mark.parametrize(
    ("keys", "name", "model"),
    [
        ([], "anthropic", "claude-sonnet-4-20250514"),
        (["ANTHROPIC"], "anthropic", "claude-sonnet-4-20250514"),
        (["OPENAI"], "openai", "gpt-5.5"),
        (["ANTHROPIC", "OPENAI"], "anthropic", "claude-sonnet-4-20250514"),
        (["ANTHROPIC", "OPENROUTER", "OPENAI"], "openrouter", "anthropic/claude-sonnet-4"),
    ],
)
def test_the_default_provider_is_one_whose_key_is_there(
    keys: list[str], name: str, model: str
) -> None:
    provider = load(None, {f"{key}_API_KEY": key for key in keys}).config.provider
    assert (name, model) == (provider.name, provider.model)
    key = provider.api_key and provider.api_key.get_secret_value()
    assert key == (name.upper() if keys else None)


def test_a_provider_that_is_named_gets_its_own_key_from_the_environment() -> None:
    keys = {"ANTHROPIC_API_KEY": "a", "OPENROUTER_API_KEY": "r$X"}
    provider = config_of("[provider]\nname = 'openrouter'", **keys).provider
    assert provider.api_key is not None
    assert "r$X" == provider.api_key.get_secret_value()
    own = config_of("[provider]\nname = 'openrouter'\napi_key = 'mine'", **keys).provider.api_key
    assert own is not None
    assert "mine" == own.get_secret_value()
    assert config_of("[provider]\nname = 'scripted'", **keys).provider.api_key is None


@pytest.mark.parametrize("by_flag", [True, False])
def test_another_provider_gets_neither_model_nor_address_nor_key_of_the_one_in_the_file(
    by_flag: bool,
) -> None:
    text = (
        "[provider]\nname = 'openai'\nmodel = 'llama'\nbase_url = 'http://here'\napi_key = 'k'\n"
        "cascade = {enabled = true, tiers = [{model = 'small'}]}\nretry = {max_retries = 1}"
    )
    environ = {} if by_flag else {"HEARTBIT_PROVIDER": "anthropic"}
    flags = {"provider.name": "anthropic"} if by_flag else {}
    provider = load(FILE, environ, text=text, overrides=flags).config.provider
    assert ("anthropic", "claude-sonnet-4-20250514") == (provider.name, provider.model)
    assert (None, None) == (provider.base_url, provider.api_key)
    assert not provider.cascade.enabled
    assert 1 == provider.retry.max_retries


def test_what_variables_say_is_for_any_provider_unless_they_name_one() -> None:
    text = "[provider]\nname = 'anthropic'\nmodel = 'old'\nbase_url = 'http://old'"
    environ = {"HEARTBIT_BASE_URL": "http://new", "HEARTBIT_MODEL": "m"}
    flags = {"provider.name": "openai"}
    provider = load(FILE, environ, text=text, overrides=flags).config.provider
    assert provider.base_url is not None
    assert ("m", "http://new") == (provider.model, provider.base_url.get_secret_value())
    environ["HEARTBIT_PROVIDER"] = "openrouter"
    provider = load(FILE, environ, text=text, overrides=flags).config.provider
    assert ("gpt-5.5", None) == (provider.model, provider.base_url)


def test_naming_the_provider_of_the_file_again_keeps_what_the_file_says() -> None:
    text = "[provider]\nname = 'openai'\nmodel = 'llama'\nbase_url = 'http://here'"
    assert "llama" == config_of(text, HEARTBIT_PROVIDER="openai").provider.model


def test_the_model_flag_is_kept_whatever_the_order_of_the_flags() -> None:
    flags = {"provider.model": "m", "provider.name": "openai"}
    provider = load(FILE, {}, text="[provider]\nname='anthropic'", overrides=flags).config.provider
    assert ("openai", "m") == (provider.name, provider.model)


def test_the_config_flag_wins_over_the_variable_over_the_working_directory(tmp_path: Path) -> None:
    environ = {"HEARTBIT_CONFIG": "other.toml"}
    assert find_config(None, {}, tmp_path) is None
    here = tmp_path / "heartbit.toml"
    here.write_text("")
    assert here == find_config(None, {}, tmp_path)
    assert here == find_config(None, {"HEARTBIT_CONFIG": ""}, tmp_path)
    assert Path("other.toml") == find_config(None, environ, tmp_path)
    assert Path("flag.toml") == find_config("flag.toml", environ, tmp_path)


def test_a_file_in_the_working_directory_that_leads_nowhere_is_not_passed_over(
    tmp_path: Path,
) -> None:
    (tmp_path / "heartbit.toml").symlink_to(tmp_path / "gone")
    assert find_config(None, {}, tmp_path) == tmp_path / "heartbit.toml"


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b"\xef\xbb\xbf[orchestrator]\r\nmax_turns = 3\r\n")
    assert 3 == load(file, {}).config.orchestrator.max_turns
    assert 3 == load(FILE, {}, text=file.read_text()).config.orchestrator.max_turns


def test_tables_of_later_parts_are_checked_and_give_one_warning() -> None:
    text = "[memory]\ntype = 'in_memory'\n[daemon]\n[heartbeat]\ngoal = 'g'"
    expected = "heartbit.toml: [daemon] and [heartbeat] are not used yet"
    assert (expected,) == warnings_of(text)


def test_schedules_are_in_use_and_the_rest_of_their_table_is_not() -> None:
    schedule = "[[daemon.schedules]]\nname = 'n'\ncron = '0 9 * * *'\ntask = 't'\nagent = 'a'"
    assert () == warnings_of(f"{AGENT}{schedule}")
    assert ("heartbit.toml: [daemon] (except for its schedules) is not used yet",) == warnings_of(
        f"{AGENT}[daemon]\nbind = '127.0.0.1:1'\n{schedule}"
    )


def test_restate_is_accepted_and_its_warning_says_what_replaces_it() -> None:
    (warning,) = warnings_of("[restate]\nendpoint = 'http://localhost:9070'")
    assert "broker_url in [celery] and url in [database]" in warning


def test_prompt_caching_without_anthropic_is_a_warning() -> None:
    own = "[agents.provider]\nname = 'openai'\nmodel = 'm'\nprompt_caching = true"
    text = f"[provider]\nname = 'openrouter'\nprompt_caching = true\n{AGENT}{own}"
    assert (
        "heartbit.toml: prompt_caching in [provider] is ignored: only anthropic has it",
        "heartbit.toml: prompt_caching in [agents.provider] of 'a' is ignored: "
        "only anthropic has it",
    ) == warnings_of(text)
    assert () == warnings_of("[provider]\nname = 'anthropic'\nprompt_caching = true")


def test_a_variable_that_does_nothing_is_a_warning_with_the_nearest_name() -> None:
    assert (
        "HEARTBIT_MAXTURNS is not a variable of heartbit; did you mean 'HEARTBIT_MAX_TURNS'?",
        "HEARTBIT_MEMORY is not used yet",
    ) == warnings_of("", HEARTBIT_MEMORY="in_memory", HEARTBIT_MAXTURNS="1", HEARTBIT_CONFIG="x")


def test_mcp_servers_may_be_an_address_a_table_or_a_command() -> None:
    servers = (
        "mcp_servers = ['http://a/mcp', {url = 'http://b', auth_header = 'Bearer $T'}, "
        "{command = 'npx', args = ['-y'], env = {K = '${T}', E = ''}}]"
    )
    one, two, three = config_of(AGENT + servers, T="t").agents[0].mcp_servers
    assert "http://a/mcp" == one.url.get_secret_value()  # type: ignore[union-attr]
    assert "Bearer t" == two.auth_header.get_secret_value()  # type: ignore[union-attr]
    assert ("npx", ("-y",)) == (three.command, three.args)  # type: ignore[union-attr]
    env = three.env  # type: ignore[union-attr]
    assert {"K": "t", "E": ""} == {key: value.get_secret_value() for key, value in env.items()}


def test_a_configuration_never_changes() -> None:
    config = config_of("")
    with pytest.raises(ValueError, match="frozen"):
        config.orchestrator.max_turns = 5  # type: ignore[misc]


def test_loading_a_file_without_schemas_imports_no_library_but_pydantic() -> None:
    code = (
        "import sys; from pathlib import Path; from heartbit.config import load;"
        "load(Path('heartbit.toml'), {}, text='[orchestrator]');"
        "print(sorted({'jsonschema', 'difflib', 'httpx2', 'mcp', 'celery'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout
