"""What a model is told of the tools with which agents remember."""

from __future__ import annotations

from collections.abc import Mapping

from heartbit.core.memory import CONFIDENTIALITY
from heartbit.core.messages import Json
from heartbit.core.tools import MEMORY_REFS, ToolSpec

MOST_RECALLED = 50


def _text(description: str) -> Json:
    return {"type": "string", "description": description}


def _texts(description: str) -> Json:
    return {"type": "array", "items": {"type": "string"}, "description": description}


_WHAT: Json = {
    "content": _text("What to remember, in full sentences that make sense by themselves."),
    "category": {
        "type": "string",
        "enum": ["fact", "observation", "preference", "procedure"],
        "description": "What kind of memory it is; fact by default.",
    },
    "tags": _texts("Labels to filter by."),
    "importance": {
        "type": "integer",
        "minimum": 1,
        "maximum": 10,
        "description": "10 must never be forgotten; 5 by default.",
    },
}
_DETAILS: Json = {
    "keywords": _texts("Words it should be found by and linked to others by."),
    "summary": _text("One sentence, if the content is long."),
    "confidentiality": {
        "type": "string",
        "enum": list(CONFIDENTIALITY),
        "description": "Who may see it; public by default.",
    },
}
_QUERY: Json = {
    "query": _text("What it is about, in words or as a question; empty for the best of all."),
    "category": {
        "type": "string",
        "enum": ["fact", "observation", "preference", "procedure"],
        "description": "Only this kind.",
    },
    "tags": _texts("Only memories with one of these."),
    "limit": {
        "type": "integer",
        "minimum": 1,
        "maximum": MOST_RECALLED,
        "description": "At most so many; 10 by default.",
    },
}


def _spec(name: str, description: str, properties: Json, *required: str) -> ToolSpec:
    return ToolSpec(
        name=name,
        description=description,
        input_schema={
            "type": "object",
            "properties": properties,
            "required": list(required),
            "additionalProperties": False,
        },
        ref=f"{MEMORY_REFS}{name}",
        effect="transactional",
        inline=True,
    )


MEMORY_SPECS: Mapping[str, ToolSpec] = {
    spec.name: spec
    for spec in (
        _spec(
            "memory_store",
            "Remember something beyond this conversation. The same content twice is one memory.",
            _WHAT | _DETAILS,
            "content",
        ),
        _spec(
            "memory_recall",
            "Find what you have remembered, the most useful first.",
            _QUERY,
            "query",
        ),
        _spec(
            "memory_update",
            "Change what one of your memories says. Its old keywords and summary are dropped.",
            {"id": _text("The memory's id."), "content": _text("What it says from now on.")}
            | {name: _DETAILS[name] for name in ("keywords", "summary")},
            "id",
            "content",
        ),
        _spec(
            "memory_forget",
            "Delete one of your memories for good.",
            {"id": _text("The memory's id.")},
            "id",
        ),
        _spec(
            "memory_consolidate",
            "Put one memory in the place of several of yours that belong together.",
            {"source_ids": _texts("The ids of two or more memories.") | {"minItems": 2}} | _WHAT,
            "source_ids",
            "content",
        ),
        _spec(
            "shared_memory_read",
            "Find what any of the agents has remembered, unless it is confidential.",
            _QUERY | {"agent": _text("Only the memories of this agent.")},
            "query",
        ),
        _spec(
            "shared_memory_write",
            "Remember something for all agents beyond this conversation.",
            _WHAT | {name: _DETAILS[name] for name in ("keywords", "summary")},
            "content",
        ),
    )
}
