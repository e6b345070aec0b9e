"""The tables that say who serves the model: provider, retry, timeouts, cascade.

The text below a field is its entry in the reference.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from heartbit.config.fields import (
    Amount,
    Duration,
    Many,
    Secret,
    Table,
    Text,
    WebUrl,
    broken_rule,
)

ProviderName = Literal["anthropic", "openrouter", "openai", "scripted"]


class RetryTable(Table):
    """When a failed model call is tried again."""

    max_retries: Amount = 3
    """Tries after the first one; 0 is none."""
    base_delay_ms: Amount = 500
    """Milliseconds before the first retry, at most; doubled for each further one."""
    max_delay_ms: Amount = 30_000
    """The most milliseconds between two tries."""

    @model_validator(mode="after")
    def _base_is_not_above_max(self) -> Self:
        if self.base_delay_ms > self.max_delay_ms:
            raise broken_rule(
                f"must not be above max_delay_ms ({self.max_delay_ms}), "
                f"but is {self.base_delay_ms}",
                "base_delay_ms",
            )
        return self


class TimeoutsTable(Table):
    """How long a model call may take."""

    connect_seconds: Duration = 10
    """Until the connection stands."""
    between_bytes_seconds: Duration = 300
    """Silence between two pieces of a reply."""
    call_seconds: Duration = 600
    """The whole call."""


class TierTable(Table):
    """A cheaper model that is asked before the provider's own model."""

    model: Text
    """The cheaper model."""
    name: ProviderName | None = None
    """Who serves it; the provider of the table it stands in when not given."""
    base_url: WebUrl | None = None
    """As in `[provider]`."""
    api_key: Secret | None = None
    """As in `[provider]`."""


class GateTable(Table):
    """When a cheaper model's reply is good enough."""

    type: Literal["heuristic"] = "heuristic"
    """How a reply is judged."""
    min_output_tokens: Amount = 5
    """Shorter replies go to the next tier."""
    accept_tool_calls: bool = True
    """Whether a cheaper model may call tools; if not, such a reply goes to the next tier."""
    escalate_on_max_tokens: bool = True
    """Whether a reply cut at max_tokens goes to the next tier."""


class CascadeTable(Table):
    """Cheaper models first; the provider's own model is the last tier."""

    enabled: bool = False
    """Whether cheaper models are asked first."""
    tiers: Many[TierTable] = ()
    """The cheaper models, cheapest first."""
    gate: GateTable = GateTable.model_construct()
    """When a reply is good enough."""

    @model_validator(mode="after")
    def _has_tiers(self) -> Self:
        if self.enabled and not self.tiers:
            raise broken_rule("is true, but there are no tiers to try first", "enabled")
        return self


class ProviderTable(Table):
    """Who serves the model."""

    name: ProviderName
    """Which interface is spoken; `openai` is any compatible server. Default: `openrouter`,
    `anthropic` or `openai`, the first whose key is in the environment."""
    model: Text
    """The model's name. Each provider has a default, but `openai` with a `base_url` has none."""
    base_url: WebUrl | None = None
    """What precedes `/v1/messages` (anthropic) or `/chat/completions` (the others)."""
    api_key: Secret | None = None
    """The key, best as `"$VAR"`. Default: `ANTHROPIC_API_KEY`, `OPENROUTER_API_KEY` or
    `OPENAI_API_KEY`."""
    prompt_caching: bool = False
    """Whether the provider is told what to cache (anthropic only)."""
    retry: RetryTable = RetryTable.model_construct()
    """When a failed call is tried again."""
    cascade: CascadeTable = CascadeTable.model_construct()
    """Cheaper models first."""
    timeouts: TimeoutsTable = TimeoutsTable.model_construct()
    """How long a call may take."""

    def tiers(self) -> tuple[ProviderTable, ...]:
        """The providers to ask, cheapest first, this one last; just this one without a cascade."""
        cheaper = self.cascade.tiers if self.cascade.enabled else ()
        last = self.model_copy(update={"cascade": CascadeTable.model_construct()})
        return (*(_tier_provider(tier, last) for tier in cheaper), last)


def _tier_provider(tier: TierTable, last: ProviderTable) -> ProviderTable:
    given = {key: getattr(tier, key) for key in tier.model_fields_set}
    table = ProviderTable.model_construct(**{"name": last.name, **given})
    caching = last.prompt_caching and table.name == last.name
    return inherited(table.model_copy(update={"prompt_caching": caching}), last)


def inherited(table: ProviderTable, parent: ProviderTable) -> ProviderTable:
    """`table` with its parent's retry and timeouts where it has none of its own.

    Address and key go together: they are the parent's only for the same provider at the same
    address, so that no key is sent to a server it was not given for.
    """
    keys = {"retry", "timeouts"}
    if table.name == parent.name and table.base_url is None:
        keys |= {"base_url", "api_key"}
    missing = keys - table.model_fields_set
    return table.model_copy(update={key: getattr(parent, key) for key in missing})
