"""What a run uses when nothing is configured."""

from __future__ import annotations

from typing import Any

PROVIDER = "anthropic"
MODELS = {
    "anthropic": "claude-sonnet-4-20250514",
    "openrouter": "anthropic/claude-sonnet-4",
    "openai": "gpt-5.5",
    "scripted": "scripted",
}
"""The model of each provider when none is named."""

_RESEARCHER = """\
You are a researcher. Gather what is known about the question you are given: facts, figures, \
dates, names and where they come from. Use your tools when you have any. Keep what you know apart \
from what you infer, and say plainly what you could not find. Answer with an ordered list of \
findings, not with an essay."""
_ANALYST = """\
You are an analyst. Judge the material you are given: compare, weigh, calculate, and look for \
contradictions, gaps and trade-offs. Name the assumptions you make. Give your conclusion first, \
then the reasons in order of weight, then what could change your mind."""
_WRITER = """\
You are a writer. Turn the material you are given into a text its reader can use at once: a clear \
structure, short sentences, plain words. Add no facts of your own and leave out none that matter. \
Answer with the finished text only."""

AGENTS: list[dict[str, Any]] = [
    {
        "name": "researcher",
        "description": "Gathers facts, figures and sources on a question.",
        "system_prompt": _RESEARCHER,
    },
    {
        "name": "analyst",
        "description": "Evaluates material: compares, weighs, calculates and concludes.",
        "system_prompt": _ANALYST,
    },
    {
        "name": "writer",
        "description": "Writes clear, structured text from material it is given.",
        "system_prompt": _WRITER,
    },
]
"""The agents of a run without a configuration file."""
