"""A journal told turn by turn, for `heartbit replay`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from heartbit.cli.tally import calls_of, turn_of
from heartbit.cli.words import call_text, one_line, tokens
from heartbit.core.messages import Json, Usage

WIDTH = 160


def turn_lines(entries: Iterable[Json]) -> Iterator[str]:
    """The lines of each run under a heading of its own."""
    run_id = ""
    for entry in entries:
        if entry["run_id"] != run_id:
            run_id = entry["run_id"]
            yield f"{one_line(entry['agent'], 64)}  {run_id}"
        for line in _lines(entry):
            yield f"  {line}"


def _lines(entry: Json) -> list[str]:
    match entry["type"]:
        case "run_started":
            return _start(entry)
        case "model_replied":
            return _turn(entry)
        case "model_failed":
            return [f"turn {turn_of(entry)}: the model call failed: {_short(entry['message'])}"]
        case "tool_returned":
            how = "failed" if entry["is_error"] else "gave"
            return [f"  {entry['step']} {how}: {_short(entry['content'])}"]
        case "sub_run_finished":
            said = entry["error"] or entry["result"] or ""
            how = f"{entry['sub_agent']} {entry['status']}"
            return [f"  {entry['step']} {how}: {_short(said)} ({entry['sub_run_id']})"]
        case "approval_requested":
            return [f"  asked about {', '.join(call['name'] for call in entry['calls'])}"]
        case "approval_resolved":
            who = f" by {entry['decided_by']}" if entry["decided_by"] else ""
            verdicts = ", ".join(each["verdict"] for each in entry["decisions"])
            return [f"  decided{who}: {verdicts}"]
        case "run_finished":
            return [f"succeeded: {_short(entry['result'])}"]
        case "run_failed":
            return [f"failed ({entry['code']}): {_short(entry['message'])}"]
        case kind:
            return [kind.replace("_", " ")]


def _start(entry: Json) -> list[str]:
    prompt = [f"prompt: {one_line(entry['prompt'], WIDTH)}"]
    if (origin := entry.get("forked_from")) is None:
        return prompt
    return [f"forked from {origin['run_id']} at turn {origin['turn']}", *prompt]


def _turn(entry: Json) -> list[str]:
    completion = entry["completion"]
    texts = [part["text"] for part in completion["parts"] if part["type"] == "text"]
    head = f"turn {turn_of(entry)}: {tokens(Usage(**completion['usage']))}"
    calls = [f"  calls {call_text(c['name'], c['arguments'])}" for c in calls_of(completion)]
    return [head, *(f"  says: {_short(text)}" for text in texts if text), *calls]


def _short(text: str) -> str:
    return one_line(text, WIDTH)
