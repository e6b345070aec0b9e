"""Whatever is wrong with a configuration is said in one sentence, with the line and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from heartbit.config import check, load
from heartbit.errors import ConfigError

FILE = Path("heartbit.toml")
AGENT = '[[agents]]\nname = "a"\ndescription = ""\nsystem_prompt = ""\n'

MISTAKES = [
    (
        AGENT + "max_turn = 5",
        "heartbit.toml:5: unknown key 'max_turn' in [[agents]] 'a'; did you mean 'max_turns'?",
    ),
    (
        "[orchestrator]\n\nmax_trns = 1",
        "heartbit.toml:3: unknown key 'max_trns' in [orchestrator]; did you mean 'max_turns'?",
    ),
    ("[agent]", "heartbit.toml:1: unknown key 'agent' at the top level; did you mean 'agents'?"),
    ("zzz = 1", "heartbit.toml:1: unknown key 'zzz' at the top level"),
    (
        '[pricing."a b"]\ninput = 1\ninput_per_million=1\noutput_per_million=1',
        "heartbit.toml:2: unknown key 'input' in [pricing.\"a b\"]; "
        "did you mean 'input_per_million'?",
    ),
    (
        '[[agents]]\nname = "a"\ndescription = ""',
        "heartbit.toml:1: missing key 'system_prompt' in [[agents]] 'a'",
    ),
    (
        "[orchestrator]\nmax_turns = '10'",
        "heartbit.toml:2: 'max_turns' in [orchestrator] must be a whole number, not a string",
    ),
    (
        "[orchestrator]\nmax_turns = true",
        "heartbit.toml:2: 'max_turns' in [orchestrator] must be a whole number, not a boolean",
    ),
    (
        "[orchestrator]\nmax_turns = 1.0",
        "heartbit.toml:2: 'max_turns' in [orchestrator] must be a whole number, not a number",
    ),
    (
        "[orchestrator]\nmax_turns = 2024-01-01",
        "heartbit.toml:2: 'max_turns' in [orchestrator] must be a whole number, not a date or time",
    ),
    (
        "[orchestrator]\nmax_turns = 0",
        "heartbit.toml:2: 'max_turns' in [orchestrator] must be at least 1, not 0",
    ),
    (
        "[orchestrator]\nmax_turns = 0x10000000000000000",
        "heartbit.toml:2: 'max_turns' in [orchestrator] must be at most 9223372036854775807",
    ),
    (
        "[orchestrator]\nrun_timeout_seconds = inf",
        "heartbit.toml:2: 'run_timeout_seconds' in [orchestrator] must be a finite number",
    ),
    (
        "[orchestrator]\nrun_timeout_seconds = 0.5",
        "heartbit.toml:2: 'run_timeout_seconds' in [orchestrator] must be at least 1, not 0.5",
    ),
    (
        "[provider.timeouts]\nconnect_seconds = 0",
        "heartbit.toml:2: 'connect_seconds' in [provider.timeouts] must be above 0, not 0",
    ),
    (
        "[orchestrator]\nenable_squads = 1",
        "heartbit.toml:2: 'enable_squads' in [orchestrator] must be true or false, "
        "not a whole number",
    ),
    (
        "[orchestrator]\nrouting = 'single-agent'",
        "heartbit.toml:2: 'routing' in [orchestrator] must be 'auto', 'always_orchestrate' or "
        "'single_agent', not 'single-agent'; did you mean 'single_agent'?",
    ),
    (
        "[orchestrator]\nreasoning_effort = 'extreme'",
        "heartbit.toml:2: 'reasoning_effort' in [orchestrator] must be 'none', 'low', 'medium' "
        "or 'high', not 'extreme'",
    ),
    (
        "[provider]\nname = 'anthropc'",
        "heartbit.toml:2: 'name' in [provider] must be 'anthropic', 'openrouter', 'openai' or "
        "'scripted', not 'anthropc'; did you mean 'anthropic'?",
    ),
    (
        "[provider]\nname = 'openai'\nbase_url = 'http://localhost:11434/v1'",
        "heartbit.toml:1: missing key 'model' in [provider]; name it there, in HEARTBIT_MODEL "
        "or with --model",
    ),
    (  # one mistake, not also a key that is missing
        "[provider]\nname = 'openai'\nmodle = 'm'\nbase_url = 'http://localhost:11434/v1'",
        "heartbit.toml:3: unknown key 'modle' in [provider]; did you mean 'model'?",
    ),
    ("provider = 1", "heartbit.toml:1: [provider] must be a table, not a whole number"),
    ("[[provider]]", "heartbit.toml:1: [provider] must be a table, not a list"),
    (
        "[agents]",
        "heartbit.toml:1: 'agents' at the top level must be a list, not a table; write [[agents]]",
    ),
    ("agents = [\n1]", "heartbit.toml:2: [[agents]] number 1 must be a table, not a whole number"),
    (
        AGENT + "tools = ['read',\n 7]",
        "heartbit.toml:6: entry 2 of 'tools' in [[agents]] 'a' must be a string, "
        "not a whole number",
    ),
    (
        AGENT + "tools = ['delegate_task']",
        "heartbit.toml:5: entry 1 of 'tools' in [[agents]] 'a' must not be 'delegate_task', "
        "which heartbit itself uses",
    ),
    (
        AGENT + "tools = ['read', 'gerp']",
        "heartbit.toml:5: entry 2 of 'tools' in [[agents]] 'a' is no built-in tool: 'gerp'; "
        "did you mean 'grep'?",
    ),
    (
        AGENT + "tools = ['book_room']",
        "heartbit.toml:5: entry 1 of 'tools' in [[agents]] 'a' is no built-in tool: 'book_room'; "
        "a Python function is written package.module:function",
    ),
    (
        AGENT + "mcp_servers = ['localhost:8000']",
        "heartbit.toml:5: 'url' in [[agents.mcp_servers]] number 1 of 'a' must be an address "
        "that starts with http:// or https://",
    ),
    (
        AGENT + "mcp_servers = [7]",
        "heartbit.toml:5: [[agents.mcp_servers]] number 1 of 'a' must be a table, "
        "not a whole number",
    ),
    (
        AGENT + "mcp_servers = [{command = 'x', url = 'http://x'}]",
        "heartbit.toml:5: [[agents.mcp_servers]] number 1 of 'a' has both a url and a command; "
        "keep one of them",
    ),
    (
        AGENT + AGENT,
        "heartbit.toml:6: 'name' in [[agents]] 'a' is the name of another agent too",
    ),
    (
        AGENT.replace('"a"', '"a b"'),
        "heartbit.toml:2: 'name' in [[agents]] 'a b' must be 1 to 64 letters, digits, '_', '-' "
        "or '.'",
    ),
    (
        AGENT.replace('"a"', '""'),
        "heartbit.toml:2: 'name' in [[agents]] '' must be 1 to 64 letters, digits, '_', '-' or '.'",
    ),
    (
        AGENT.replace('"a"', '"orchestrator"'),
        "heartbit.toml:2: 'name' in [[agents]] 'orchestrator' must not be 'orchestrator', "
        "which is the orchestrator's own name",
    ),
    (
        "[provider.cascade]\nenabled = true",
        "heartbit.toml:2: 'enabled' in [provider.cascade] is true, but there are no tiers to "
        "try first",
    ),
    (
        AGENT + "[agents.provider]\nname='openai'\nmodel='m'\ncascade = {enabled = true}",
        "heartbit.toml:8: 'enabled' in [agents.provider.cascade] of 'a' is true, but there are "
        "no tiers to try first",
    ),
    (
        "[[provider.cascade.tiers]]\nmodel = ''",
        "heartbit.toml:2: 'model' in [[provider.cascade.tiers]] number 1 must not be empty",
    ),
    (
        "[provider.retry]\nbase_delay_ms = 2\nmax_delay_ms = 1",
        "heartbit.toml:2: 'base_delay_ms' in [provider.retry] must not be above max_delay_ms "
        "(1), but is 2",
    ),
    (
        "[orchestrator]\nsummarize_threshold = 1\ncontext_strategy = {type = 'summarize', "
        "threshold = 1}",
        "heartbit.toml:2: 'summarize_threshold' in [orchestrator] and context_strategy "
        "'summarize' exclude each other; keep one of them",
    ),
    (
        "[orchestrator.context_strategy]\ntype = 'sliding_window'",
        "heartbit.toml:1: [orchestrator.context_strategy] needs 'max_tokens' for type "
        "'sliding_window'",
    ),
    (
        "[orchestrator.context_strategy]\ntype = 'summarize'\nthreshold = 1\nmax_tokens = 1",
        "heartbit.toml:4: 'max_tokens' in [orchestrator.context_strategy] has no meaning for "
        "type 'summarize'",
    ),
    (
        AGENT + "[agents.response_schema]\ntype = 'objekt'",
        "heartbit.toml:5: 'response_schema' in [[agents]] 'a' is not a valid JSON schema: "
        "look at 'type'",
    ),
    (
        AGENT + "[agents.response_schema]\ndefault = 2024-01-01",
        "heartbit.toml:5: 'response_schema' in [[agents]] 'a' has a value that JSON can't hold "
        "(a date, a time, inf or nan)",
    ),
    (
        AGENT + "response_schema." + ".".join(["not"] * 2000) + " = {}",
        "heartbit.toml:5: 'response_schema' in [[agents]] 'a' is nested too deeply",
    ),
    (
        "[[tools]]\nname = 'x'\n[[tools]]\nname = 'x'",
        "heartbit.toml:4: 'name' in [[tools]] 'x' is the name of another [[tools]] entry too",
    ),
    (
        "[database]\nurl = 'mysql://x'",
        "heartbit.toml:2: 'url' in [database] must be an address that starts with postgresql://",
    ),
    (
        "[knowledge]\nchunk_size = 100",
        "heartbit.toml:1: 'chunk_overlap' in [knowledge] must be less than chunk_size (100), "
        "not 200",
    ),
    (
        "[[knowledge.sources]]\ntype = 'glob'\npath = 'x'",
        "heartbit.toml:1: [[knowledge.sources]] number 1 needs 'pattern' for type 'glob'",
    ),
    (
        "[daemon.auth]",
        "heartbit.toml:1: [daemon.auth] lets nobody in; give it bearer_tokens or a jwks_url",
    ),
    (
        "[daemon.auth]\nbearer_tokens = ['x', ' ']",
        "heartbit.toml:2: entry 2 of 'bearer_tokens' in [daemon.auth] is empty",
    ),
    (
        "[[daemon.schedules]]\nname = 'n'\ncron = ''\ntask = 't'",
        "heartbit.toml:3: 'cron' in [[daemon.schedules]] 'n' must not be empty",
    ),
    (
        "[[daemon.schedules]]\nname = 'n'\ncron = '* * * * *'\ntask = 't'\n" * 2,
        "heartbit.toml:6: 'name' in [[daemon.schedules]] 'n' is the name of another schedule too",
    ),
    (
        "[[daemon.schedules]]\nname = 'n'\ncron = '61 * * * *'\ntask = 't'",
        "heartbit.toml:3: 'cron' in [[daemon.schedules]] 'n' is no cron expression: [61 * * * *] "
        "is not acceptable, out of range",
    ),
    (
        "[[daemon.schedules]]\nname = 'n'\ncron = '0 0 30 2 *'\ntask = 't'",
        "heartbit.toml:3: 'cron' in [[daemon.schedules]] 'n' names a time that never comes: "
        "'0 0 30 2 *'",
    ),
    (
        "[[daemon.schedules]]\nname = 'n'\ncron = '@daily'\ntask = 't'\ntimezone = 'Mars/North'",
        "heartbit.toml:5: 'timezone' in [[daemon.schedules]] 'n' must be a time zone like "
        "Europe/Berlin that this machine knows",
    ),
    (
        "[[daemon.schedules]]\nname = 'n'\ncron = '@daily'\ntask = 't'\ntimezone = 'Europe'",
        "heartbit.toml:5: 'timezone' in [[daemon.schedules]] 'n' must be a time zone like "
        "Europe/Berlin that this machine knows",
    ),
    (
        "[[agents]]\nname = 'a'\ndescription = 'd'\nsystem_prompt = 's'\n"
        "[[daemon.schedules]]\nname = 'n'\ncron = '@daily'\ntask = 't'\nagent = 'b'",
        "heartbit.toml:9: 'agent' in [[daemon.schedules]] 'n' names 'b', but there are only a, "
        "orchestrator",
    ),
    (
        '[[daemon.schedules]]\nname = "a\\u0000"\ncron = "@daily"\ntask = "t"',
        "heartbit.toml:2: 'name' in [[daemon.schedules]] 'a\\x00' must be text that can be printed",
    ),
    (
        "[daemon.heartbit_pulse]\nactive_hours = {start = '8:00', end = '18:00'}",
        "heartbit.toml:2: 'start' in [daemon.heartbit_pulse.active_hours] must be a time of "
        "day like 08:30",
    ),
    (
        "a = 1\nb = \nc = 3",
        "heartbit.toml:2: not valid TOML: invalid value",
    ),
    ("[a]\n[a]", "heartbit.toml:2: not valid TOML: cannot declare ('a',) twice"),
    ("a = 1\na = 2", "heartbit.toml:2: not valid TOML: cannot overwrite a value"),
    ("\na = [1,", "heartbit.toml:2: not valid TOML: invalid value"),
    ("a = " + "[" * 3000, "heartbit.toml: not valid TOML: nested too deeply"),
    ("a = " + "1" * 5000, "heartbit.toml: not valid TOML: a number has too many digits"),
]


def the_error(text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(FILE, environ, text=text)
    return caught.value.message


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_is_one_sentence_with_its_line(text: str, message: str) -> None:
    assert message == the_error(text)


def test_the_first_mistake_by_line_is_told_and_the_others_are_counted() -> None:
    text = "[orchestrator]\nmax_turns = 0\nmax_tokns = 1\n[provider]\nname = 'x'"
    assert the_error(text).startswith("heartbit.toml:2: 'max_turns'")
    assert the_error(text).endswith("not 0 (and 2 more; see `heartbit config check`)")


def test_check_lists_every_mistake_by_line_and_load_agrees_that_there_is_none() -> None:
    text = "[orchestrator]\nmax_turns = 0\nmax_tokns = 1\n[provider]\nname = 'x'"
    problems = check(FILE, {"HEARTBIT_MAX_TOKENS": "many"}, text=text)
    assert [None, 2, 3, 5] == [problem.line for problem in problems]
    assert [] == check(FILE, {}, text=AGENT)


def test_a_wrong_variable_is_named() -> None:
    assert "HEARTBIT_MAX_TURNS must be a whole number, not 'ten'" == the_error(
        "", HEARTBIT_MAX_TURNS="ten"
    )
    assert "HEARTBIT_MAX_TURNS must be at least 1, not 0" == the_error("", HEARTBIT_MAX_TURNS="0")
    assert "HEARTBIT_PROMPT_CACHING must be true or false, not 'maybe'" == the_error(
        "", HEARTBIT_PROMPT_CACHING="maybe"
    )
    assert "HEARTBIT_TOOL_TIMEOUT must be a number, not '2m'" == the_error(
        "", HEARTBIT_TOOL_TIMEOUT="2m"
    )
    assert "HEARTBIT_TOOL_TIMEOUT must be a finite number" == the_error(
        "", HEARTBIT_TOOL_TIMEOUT="nan"
    )
    assert the_error("", HEARTBIT_ROUTING="atuo").startswith("HEARTBIT_ROUTING must be 'auto'")
    assert the_error("", HEARTBIT_ROUTING="atuo").endswith("did you mean 'auto'?")
    assert "HEARTBIT_MCP_SERVERS must be an address that starts with http:// or https://" == (
        the_error(AGENT, HEARTBIT_MCP_SERVERS="http://a, b")
    )


@pytest.mark.parametrize("url", ["http://", "http:///x", "ftp://h", "http://h:99999", "http://[h"])
def test_an_address_that_leads_nowhere_is_an_error(url: str) -> None:
    assert the_error(f"[provider]\nbase_url = '{url}'\nmodel = 'm'") == (
        "heartbit.toml:2: 'base_url' in [provider] must be an address that starts with http:// or "
        "https://"
    )


def test_a_wrong_flag_is_told_from_the_same_key_in_the_file() -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {}, overrides={"provider.name": "antropic"})
    assert caught.value.message.startswith("'name' in [provider] (given on the command line) must")
    assert caught.value.message.endswith("did you mean 'anthropic'?")


def test_a_file_that_is_missing_unreadable_or_no_text_is_an_error(tmp_path: Path) -> None:
    binary = tmp_path / "b.toml"
    binary.write_bytes(b'a = "\xff"')
    for path, message in [
        (tmp_path / "no.toml", "there is no such file; give another one with --config"),
        (tmp_path, "this is a directory, not a file"),
        (binary / "x", "the file can't be read (Not a directory)"),
        (binary, "the file is not UTF-8 (byte 6); save it as UTF-8"),
        (Path("a\0b"), "the file can't be read (its name is not valid)"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert f"{path}: {message}" == caught.value.message


def test_the_error_carries_no_other_exception_that_could_show_values() -> None:
    with pytest.raises(ConfigError) as caught:
        load(FILE, {}, text="[orchestrator]\nmax_turns = 0")
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
