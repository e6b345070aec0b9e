"""A line per entry, for a stderr that is no terminal: `[researcher] turn 2: search(...)`. Pure."""

from __future__ import annotations

from heartbit.cli.tally import AgentTally, calls_of, turn_of
from heartbit.cli.words import call_text, count, money, one_line, tokens
from heartbit.core.messages import Json
from heartbit.core.tools import DELEGATE, SQUAD

DELEGATING = (DELEGATE, SQUAD)


def progress_line(entry: Json, run: AgentTally) -> str | None:
    """What `entry` says about `run`, which has taken it in; None: nothing worth a line."""
    said = _said(entry, run)
    return f"[{one_line(run.agent, 64)}] {said}" if said else None


def _said(entry: Json, run: AgentTally) -> str | None:  # noqa: C901 - one table of entries
    match entry["type"]:
        case "run_started" if entry["parent_run_id"]:
            return f"started: {one_line(entry['prompt'], 80)}"
        case "run_routed":
            return f"routed to {entry['selected_agent']}: {one_line(entry['reason'])}"
        case "model_replied":
            return _turn(entry)
        case "turn_restarted":
            return f"turn {turn_of(entry)}: its text starts again ({one_line(entry['reason'])})"
        case "context_summarised":
            return "context summarised" if entry["summary"] else _failed_summary(entry)
        case "memories_consolidated":
            return _consolidated(entry)
        case "approval_requested":
            return f"asks for approval: {', '.join(call['name'] for call in entry['calls'])}"
        case "approval_resolved":
            return f"was answered: {', '.join(_verdict(each) for each in entry['decisions'])}"
        case "tool_returned" if entry["is_error"]:
            name = run.calls.get(entry["step"], {}).get("name", "a tool")
            return f"{one_line(name, 64)} failed: {one_line(entry['content'], 120)}"
        case "run_finished" | "run_failed" | "run_cancelled" if entry["parent_run_id"]:
            return _ending(entry, run)
    return None


def _turn(entry: Json) -> str:
    completion = entry["completion"]
    calls = [call_text(call["name"], call["arguments"]) for call in calls_of(completion)]
    return f"turn {turn_of(entry)}: {', '.join(calls) or 'answered'}"


def _failed_summary(entry: Json) -> str:
    return f"context could not be summarised: {one_line(entry['reason'] or 'no reason given')}"


def _consolidated(entry: Json) -> str | None:
    replaced, made = entry["replaced"], len(entry["ids"])
    done = f"{replaced} memories became {made}" if made else ""
    left = f"memories could not be consolidated: {one_line(entry['reason'] or '')}"
    return "; ".join(each for each in (done, left if entry["reason"] else "") if each) or None


def _verdict(decision: Json) -> str:
    always = " always" if decision["always"] else ""
    return f"{decision['verdict']}{always}"


def _ending(entry: Json, run: AgentTally) -> str:
    if entry["type"] == "run_failed":
        return f"failed: {one_line(entry['message'])}"
    return f"{run.status}: {summary(run)}"


def summary(run: AgentTally) -> str:
    """What a run and those below it used: `2 turns, 1,204 tokens in, 88 out, $0.0123`."""
    usage = run.total_usage
    cost = run.total_cost
    parts = [count(run.turn, "turn"), tokens(usage)]
    if cost:
        parts.append(money(cost))
    return ", ".join(parts)
