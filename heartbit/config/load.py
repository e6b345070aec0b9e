"""From a file, the environment and flags to one Config.

Flags win over the environment, the environment over the file, the file over the defaults. Apart
from reading the file nothing here touches the world.
"""

from __future__ import annotations

import copy
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from heartbit.config import defaults
from heartbit.config.environment import (
    CONFIG_FILE,
    MCP_SERVERS,
    PROVIDER_KEYS,
    VARIABLES,
    given,
    mcp_servers,
    remarks,
)
from heartbit.config.fields import Verbatim
from heartbit.config.models import Config
from heartbit.config.problems import FLAG, Draft, Invalid, Problem, explain
from heartbit.config.walk import KeyPath
from heartbit.errors import ConfigError

FILE_NAME = "heartbit.toml"
LATER = ("daemon", "telemetry", "heartbeat")
_BOUND_TO_PROVIDER = ("model", "base_url", "api_key", "cascade")
_AT_LINE = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """A valid configuration, what a person should be told about it, and what it was made of."""

    config: Config
    warnings: tuple[str, ...]
    draft: Draft


def find_config(
    flag: str | None, environ: Mapping[str, str], cwd: Path | None = None
) -> Path | None:
    """The file to use: the flag's, else $HEARTBIT_CONFIG's, else heartbit.toml in `cwd`.

    None if there is none; a file that is named but missing is reported by `load`.
    """
    named = flag or given(environ, CONFIG_FILE)
    if named:
        return Path(named)
    here = (cwd or Path()) / FILE_NAME
    return here if os.path.lexists(here) else None


def load(
    path: Path | None,
    environ: Mapping[str, str],
    *,
    overrides: Mapping[str, object] | None = None,
    text: str | None = None,
) -> Loaded:
    """The configuration of the file at `path`, or the defaults when it is None.

    `overrides` are flags: dotted keys with their values, None for a flag that was not given.
    `text` is taken in place of the file's content.

    Raises:
        ConfigError: the first problem by line, and how many more there are.
    """
    try:
        return _load(path, environ, overrides or {}, text)
    except Invalid as invalid:
        problems = invalid.problems
    raise ConfigError(_summary(problems))


def check(
    path: Path | None, environ: Mapping[str, str], *, text: str | None = None
) -> list[Problem]:
    """Every problem that `load` would find, by line."""
    try:
        _load(path, environ, {}, text)
    except Invalid as invalid:
        return invalid.problems
    return []


def _summary(problems: list[Problem]) -> str:
    if len(problems) == 1:
        return str(problems[0])
    return f"{problems[0]} (and {len(problems) - 1} more; see `heartbit config check`)"


def _load(
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, object],
    text: str | None,
) -> Loaded:
    source, text = _source(path, text)
    data = _parse(text, source) if source else {"agents": copy.deepcopy(defaults.AGENTS)}
    layers = _Layers(data, environ, overrides)
    draft = layers.draft(source, text)
    try:
        config = Config.model_validate(draft.data, context=environ)
    except ValidationError as error:
        raise Invalid(*layers.problems, *explain(error, draft)) from None
    if layers.problems:
        raise Invalid(*layers.problems)
    return Loaded(config=config, warnings=tuple(_warnings(config, environ, source)), draft=draft)


def _source(path: Path | None, text: str | None) -> tuple[str | None, str]:
    """What the file is called in messages, None without one, and its text."""
    if text is None:
        return (str(path), _read(path)) if path else (None, "")
    return str(path or FILE_NAME), text.removeprefix("\ufeff")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        message = "there is no such file; give another one with --config"
    except IsADirectoryError:
        message = "this is a directory, not a file"
    except UnicodeDecodeError as error:
        message = f"the file is not UTF-8 (byte {error.start + 1}); save it as UTF-8"
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        message = f"the file can't be read ({reason or 'its name is not valid'})"
    raise Invalid(Problem(message=message, source=str(path)))


def _parse(text: str, source: str | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line = _syntax_error(str(error), text)
    except RecursionError:
        message, line = "nested too deeply", None
    except ValueError:
        message, line = "a number has too many digits", None
    raise Invalid(Problem(message=f"not valid TOML: {message}", source=source, line=line))


def _syntax_error(message: str, text: str) -> tuple[str, int]:
    found = _AT_LINE.search(message)
    line = found["line"] if found else None
    what = _AT_LINE.sub("", message)
    return what[:1].lower() + what[1:], int(line) if line else text.count("\n") + 1


class _Layers:
    """Lays settings over each other, lowest first, and remembers where each came from."""

    def __init__(
        self,
        data: dict[str, Any],
        environ: Mapping[str, str],
        overrides: Mapping[str, object],
    ) -> None:
        self.data = data
        self.environ = environ
        self.overrides = overrides
        self.origins: dict[KeyPath, str] = {}
        self.problems: list[Problem] = []

    def draft(self, source: str | None, text: str) -> Draft:
        self.lay_environment()
        self.lay_flags()
        self.choose_provider()
        self.fill_keys()
        return Draft(data=self.data, origins=self.origins, source=source, text=text)

    def lay_environment(self) -> None:
        for variable in VARIABLES:
            text = given(self.environ, variable.name)
            if text is None:
                continue
            try:
                self.put(variable.path, variable.read(text), f"env {variable.name}")
            except ValueError as error:
                self.problems.append(Problem(message=f"{variable.name} {error}"))
        self.lay_mcp_servers()

    def lay_mcp_servers(self) -> None:
        for index, _ in self.agents() if mcp_servers(self.environ) else ():
            path = ("agents", index, "mcp_servers")
            self.put(path, mcp_servers(self.environ), f"env {MCP_SERVERS}")

    def lay_flags(self) -> None:
        flags = {key: value for key, value in self.overrides.items() if value is not None}
        # The name comes first: it may drop what belonged to another provider.
        for key in sorted(flags, key=lambda key: key != "provider.name"):
            value = flags[key]
            literal = Verbatim(value) if isinstance(value, str) else value
            self.put(tuple(key.split(".")), literal, FLAG)

    def put(self, path: KeyPath, value: object, origin: str) -> None:
        table: Any = self.data
        for step in path[:-1]:
            table = table.setdefault(step, {}) if isinstance(table, dict) else table[step]
            if not isinstance(table, dict | list):
                return  # a wrong type in the file, which validation reports
        if path == ("provider", "name"):
            self.leave_provider(table, value)
        if isinstance(table, dict):
            table[path[-1]] = value
            self.origins[path] = origin

    def leave_provider(self, table: dict[str, Any], name: object) -> None:
        """Another provider than before: that one's model, address and key are not for it.

        What variables say stays, unless they name the provider that is left.
        """
        if table.get("name", name) == name:
            return
        left = set(_BOUND_TO_PROVIDER)
        if ("provider", "name") not in self.origins:
            left -= {key for key in left if ("provider", key) in self.origins}
        for key in left:
            table.pop(key, None)
            self.origins.pop(("provider", key), None)

    def choose_provider(self) -> None:
        table = self.data.setdefault("provider", {})
        if not isinstance(table, dict):
            return
        if "name" not in table:
            name = next((n for n, key in PROVIDER_KEYS.items() if given(self.environ, key)), None)
            origin = f"env {PROVIDER_KEYS[name]}" if name else "default"
            self.put(("provider", "name"), name or defaults.PROVIDER, origin)
        self.choose_model(table)

    def choose_model(self, table: dict[str, Any]) -> None:
        name = table["name"]
        elsewhere = name == "openai" and "base_url" in table
        if "model" in table or elsewhere:  # nobody knows what a server elsewhere serves
            return
        model = defaults.MODELS.get(str(name), "unknown")
        self.put(("provider", "model"), model, "default")

    def fill_keys(self) -> None:
        provider = self.data["provider"]
        if not isinstance(provider, dict):
            return
        self.fill_key(("provider",), provider)
        self.fill_tiers(("provider",), provider)
        for index, agent in self.agents():
            own = agent.get("provider")
            if isinstance(own, dict):
                path = ("agents", index, "provider")
                if own.get("name") != provider.get("name") or "base_url" in own:
                    self.fill_key(path, own)
                self.fill_tiers(path, own)

    def fill_tiers(self, path: KeyPath, provider: dict[str, Any]) -> None:
        cascade = provider.get("cascade")
        tiers = cascade.get("tiers") if isinstance(cascade, dict) else None
        for index, tier in _tables(tiers):
            if tier.get("name", provider.get("name")) != provider.get("name") or "base_url" in tier:
                self.fill_key((*path, "cascade", "tiers", index), tier, provider.get("name"))

    def fill_key(self, path: KeyPath, table: dict[str, Any], name: object = None) -> None:
        variable = PROVIDER_KEYS.get(str(table.get("name", name)))
        key = given(self.environ, variable) if variable else None
        if key is not None and "api_key" not in table:
            table["api_key"] = Verbatim(key)
            self.origins[(*path, "api_key")] = f"env {variable}"

    def agents(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return _tables(self.data.get("agents"))


def _tables(entries: object) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict):
            yield index, entry


def _warnings(config: Config, environ: Mapping[str, str], source: str | None) -> Iterator[str]:
    prefix = f"{source}: " if source else ""
    unused = list(_unused(config))
    if unused:
        yield f"{prefix}{_listed(unused)} {'is' if len(unused) == 1 else 'are'} not used yet"
    if config.restate is not None:
        yield (
            f"{prefix}[restate] is not used: runs are durable through Celery and Postgres; "
            "set broker_url in [celery] and url in [database] instead"
        )
    if config.knowledge is not None and not config.agents:
        yield f"{prefix}[knowledge] is not used: there are no [[agents]] that could search it"
    for name in _caching_in_vain(config):
        yield f"{prefix}prompt_caching {name} is ignored: only anthropic has it"
    yield from remarks(environ)


def _unused(config: Config) -> Iterator[str]:
    for name in LATER:
        table = getattr(config, name)
        if name == "daemon" and config.schedules:
            if table.model_fields_set != {"schedules"}:
                yield "[daemon] (except for its schedules)"
        elif table is not None:
            yield f"[{name}]"


def _caching_in_vain(config: Config) -> Iterator[str]:
    if config.provider.prompt_caching and config.provider.name != "anthropic":
        yield "in [provider]"
    for agent in config.agents:
        if agent.provider and agent.provider.prompt_caching and agent.provider.name != "anthropic":
            yield f"in [agents.provider] of {agent.name!r}"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
