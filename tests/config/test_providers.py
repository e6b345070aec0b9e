"""An agent's own provider and the tiers of a cascade take from their parent what is safe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from heartbit.config import load
from heartbit.config.provider import ProviderTable
from heartbit.providers.http import Timeouts

FILE = Path("heartbit.toml")
AGENT = '[[agents]]\nname = "a"\ndescription = ""\nsystem_prompt = ""\n'
KEYS = {"ANTHROPIC_API_KEY": "env-a", "OPENAI_API_KEY": "env-o"}
PROVIDER = "[provider]\nname = 'openai'\nmodel = 'big'\nbase_url = 'http://own/v1'\napi_key = 'k'\n"


def secrets(provider: ProviderTable) -> tuple[str | None, str | None]:
    url, key = provider.base_url, provider.api_key
    return url.get_secret_value() if url else None, key.get_secret_value() if key else None


def providers(own: str, parent: str = PROVIDER, environ: Mapping[str, str] = KEYS) -> ProviderTable:
    config = load(FILE, environ, text=parent + AGENT + own).config
    return config.provider_of(config.agents[0])


def test_an_agent_without_a_provider_uses_the_one_of_the_file() -> None:
    assert "big" == providers("").model


def test_the_same_provider_keeps_address_key_retry_and_timeouts() -> None:
    parent = PROVIDER + "retry = {max_retries = 1}\ntimeouts = {call_seconds = 7}\n"
    own = providers("[agents.provider]\nname = 'openai'\nmodel = 'small'", parent)
    assert ("small", "http://own/v1", "k") == (own.model, *secrets(own))
    assert (1, 7) == (own.retry.max_retries, own.timeouts.call_seconds)


def test_a_program_waits_as_long_as_a_file_says() -> None:
    configured = load(FILE, KEYS, text=PROVIDER).config.provider
    assert asdict(Timeouts()) == configured.timeouts.model_dump()


def test_its_own_settings_win() -> None:
    own = providers(
        "[agents.provider]\nname = 'openai'\nmodel = 'small'\napi_key = 'mine'\n"
        "retry = {max_retries = 0}"
    )
    assert ("http://own/v1", "mine") == secrets(own)
    assert 0 == own.retry.max_retries


def test_another_provider_never_gets_the_key_or_the_address_of_the_first() -> None:
    text = "[agents.provider]\nname = 'anthropic'\nmodel = 'm'"
    assert (None, "env-a") == secrets(providers(text))
    assert (None, None) == secrets(providers(text, environ={}))


def test_the_same_provider_at_another_address_never_gets_the_key_of_the_first() -> None:
    text = "[agents.provider]\nname = 'openai'\nmodel = 'm'\nbase_url = 'http://other/v1'"
    assert ("http://other/v1", "env-o") == secrets(providers(text))
    assert ("http://other/v1", None) == secrets(providers(text, environ={}))


def test_without_a_cascade_there_is_one_tier() -> None:
    provider = load(FILE, KEYS, text=PROVIDER).config.provider
    assert (provider,) == provider.tiers()
    off = PROVIDER + "cascade = {enabled = false, tiers = [{model = 'small'}]}"
    assert ["big"] == [tier.model for tier in load(FILE, {}, text=off).config.provider.tiers()]


def test_the_tiers_of_a_cascade_are_cheapest_first_and_of_any_provider() -> None:
    tiers = "tiers = [{model = 'small'}, {model = 'haiku', name = 'anthropic'}]"
    text = PROVIDER + f"cascade = {{enabled = true, {tiers}}}\nretry = {{max_retries = 1}}"
    small, haiku, big = load(FILE, KEYS, text=text).config.provider.tiers()
    assert ("openai", "small", "http://own/v1", "k") == (small.name, small.model, *secrets(small))
    assert ("anthropic", "haiku", None, "env-a") == (haiku.name, haiku.model, *secrets(haiku))
    assert ("openai", "big", "http://own/v1", "k") == (big.name, big.model, *secrets(big))
    assert [1, 1, 1] == [tier.retry.max_retries for tier in (small, haiku, big)]
    assert not any(tier.cascade.enabled for tier in (small, haiku, big))


def test_the_tiers_of_an_agent_have_the_keys_of_their_own_providers() -> None:
    own = providers(
        "[agents.provider]\nname = 'openai'\nmodel = 'm'\n"
        "cascade = {enabled = true, tiers = [{model = 'haiku', name = 'anthropic'}]}"
    )
    assert [(None, "env-a"), ("http://own/v1", "k")] == [secrets(tier) for tier in own.tiers()]


def test_only_a_tier_of_the_same_provider_caches_prompts() -> None:
    text = (
        "[provider]\nname = 'anthropic'\nprompt_caching = true\n"
        "cascade = {enabled = true, tiers = [{model = 's'}, {model = 'o', name = 'openai'}]}"
    )
    caching = [tier.prompt_caching for tier in load(FILE, KEYS, text=text).config.provider.tiers()]
    assert [True, False, True] == caching
