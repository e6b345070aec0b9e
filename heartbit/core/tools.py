"""What a tool is to the rules: a name, a schema, and what to do when its outcome is in doubt."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import partial
from typing import Literal

from heartbit.core.messages import Json

Effect = Literal["pure", "idempotent", "transactional", "at_most_once"]
OnDoubt = Literal["tell_model", "ask_human"]

DELEGATE = "delegate_task"
SQUAD = "form_squad"
RESPOND = "__respond__"
RESERVED = frozenset({DELEGATE, SQUAD, RESPOND})
MEMORY_REFS = "memory:"
"""How the `ref` of the tools begins that look into an agent's memories."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolSpec:
    """The description of a tool, as the model sees it and as the engines must treat it.

    `ref` says where the executable is found: `builtin:read`, `python:package.module:attribute`,
    `mcp:<server>#<tool>`, `celery:task.name`, `core:delegate_task`.
    `effect` decides what happens to a call whose worker died in it (docs/architecture.md, Effects);
    a tool with a `probe` is asked first whether such a call has happened. The calls of an `inline`
    one touch nothing but heartbit's own stores: whoever has the reply that asks for them does them.
    """

    name: str
    description: str
    input_schema: Json
    ref: str
    effect: Effect = "at_most_once"
    on_doubt: OnDoubt = "tell_model"
    timeout_seconds: float | None = None
    queue: str | None = None
    probe: bool = False
    inline: bool = False
    memo: dict[str, object] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __reduce__(self) -> tuple[object, ...]:
        # What was worked out from the spec may be a function, which cannot be pickled.
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
        return partial(ToolSpec, **values), ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolOutput:
    """What a tool gives back to the model."""

    content: str
    is_error: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolChoice:
    """How free the model is to call tools: `any` forces some call, `tool` forces `name`."""

    type: Literal["auto", "any", "tool"]
    name: str | None = None
