"""The rules of a run, one event at a time: what follows what, and what is never done."""

from __future__ import annotations

from dataclasses import replace

import pytest

from heartbit.core.commands import CallModel, CallTool, Finish, RefuseCall, StartSubRun, Summarise
from heartbit.core.events import (
    ContextSummarised,
    DeadlinePassed,
    Event,
    LateResult,
    ModelFailed,
    RunCancelled,
    RunFailed,
    RunFinished,
    RunRouted,
)
from heartbit.core.messages import StopReason, Usage
from heartbit.core.run import advance, model_request, replay
from heartbit.core.state import RunState
from heartbit.core.tools import RESPOND, ToolChoice
from heartbit.errors import RunStateError
from tests.support.journals import (
    CHIEF,
    SOLO,
    TENTH,
    call,
    delegating,
    follow,
    replied,
    results,
    returned,
    started,
    sub_finished,
)

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
STRUCTURED = replace(SOLO, response_schema=SCHEMA)
CANCELLED = RunCancelled(reason="enough")


def finish(*events: Event) -> Finish:
    """The Finish that `events` lead to, as their only command."""
    _, [command] = follow(events)
    assert isinstance(command, Finish)
    return command


def test_a_run_begins_with_a_model_call() -> None:
    """The first step is the first turn."""
    assert (CallModel(step="1/model", turn=1),) == follow([started()])[1]


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        ("end_turn", None),
        ("stop_sequence", None),
        ("tool_use", None),
        ("max_tokens", "reply_truncated"),
        ("refusal", "model_refused"),
        ("context_too_long", "model_call_failed"),
    ],
)
def test_a_text_ends_the_run_by_its_stop_reason(stop: StopReason, code: str | None) -> None:
    """Only a reply that is whole and willing is a result."""
    end = finish(started(), replied(1, "Hi.", stop=stop))
    assert (code, "" if code else "Hi.") == (end.code, end.result)


def test_a_paused_turn_is_taken_up_by_another_model_call() -> None:
    """The provider asked to be called again with what it said."""
    state, commands = follow([started(), replied(1, "Wait.", stop="pause_turn")])
    assert (CallModel(step="2/model", turn=2),) == commands
    assert "Wait." == model_request(state).messages[-1].text


def test_the_calls_of_a_refused_reply_are_never_executed() -> None:
    """A refusal may come in the middle of a call, whose arguments are not to be trusted then."""
    end = finish(started(), replied(1, call("look"), stop="refusal"))
    assert "model_refused" == end.code


def test_the_calls_of_a_reply_cut_at_max_tokens_are_all_refused() -> None:
    """The last call may be cut, and the others may have been meant together with it."""
    _, commands = follow([started(), replied(1, call("look"), call("move"), stop="max_tokens")])
    assert [RefuseCall, RefuseCall] == [type(command) for command in commands]


def test_an_empty_reply_ends_the_run_with_an_empty_result() -> None:
    """Nothing said is nothing added to the conversation."""
    state, [end] = follow([started(), replied(1)])
    assert Finish(result="") == end
    assert 1 == len(state.messages)


def test_results_come_in_the_order_of_the_calls() -> None:
    """Whoever answers first, the model reads the first call's result first."""
    calls = [call("look", "a"), call("move", "b"), call("look", "c")]
    events: list[Event] = [started(), replied(1, *calls)]
    late = [returned("1/tool/2", "C"), returned("1/tool/0", "A"), returned("1/tool/1", "B")]
    state, commands = follow([*events, *late])
    assert ["A", "B", "C"] == results(state)
    assert (CallModel(step="2/model", turn=2),) == commands
    assert () == follow([*events, *late[:2]])[1]


def test_the_last_turns_tools_run_before_the_run_is_out_of_turns() -> None:
    """max_turns counts model calls; what the last one asked for is still done."""
    one = replace(SOLO, max_turns=1)
    _, commands = follow([started(one), replied(1, call("look"))])
    assert [CallTool] == [type(command) for command in commands]
    end = finish(started(one), replied(1, call("look")), returned("1/tool/0"))
    told = "Max turns (1) exceeded; raise max_turns or give it less to do."
    assert ("max_turns_exceeded", told) == (end.code, end.message)


def test_the_budget_may_be_used_up_but_not_passed() -> None:
    """A reply that uses exactly the last token is still worth having."""
    at = replace(SOLO, max_total_tokens=TENTH.total_tokens)
    below = replace(SOLO, max_total_tokens=TENTH.total_tokens - 1)
    assert finish(started(at), replied(1, "Hi.")).code is None
    assert "budget_exceeded" == finish(started(below), replied(1, "Hi.")).code


def test_the_usage_of_sub_runs_counts_towards_the_budget() -> None:
    """Handing work on does not make it free."""
    chief = replace(CHIEF, max_total_tokens=500)
    spent = sub_finished("1/sub/0", usage=Usage(input_tokens=490))
    end = finish(
        started(chief), replied(1, delegating(("ada", "x"))), spent, replied(2, "All done.")
    )
    assert "budget_exceeded" == end.code


def test_a_structured_answer_in_a_cut_reply_is_refused_like_any_call() -> None:
    """Valid or not: what was cut is not the model's answer."""
    _, [command] = follow([started(STRUCTURED), replied(1, call(RESPOND, n=1), stop="max_tokens")])
    assert isinstance(command, RefuseCall)
    assert "max_tokens" in command.reason


def test_the_first_of_several_structured_answers_counts() -> None:
    """One answer is wanted; the first is taken."""
    end = finish(started(STRUCTURED), replied(1, call(RESPOND, n=1), call(RESPOND, n=2)))
    assert {"n": 1} == end.structured


def test_text_in_place_of_a_structured_answer_fails_in_the_last_turn() -> None:
    """With no turn left there is nobody to ask again."""
    end = finish(started(replace(STRUCTURED, max_turns=1)), replied(1, "It is 1."))
    assert "no_structured_result" == end.code


def forced(*events: Event) -> ToolChoice | None:
    """The tool choice of the next request."""
    return model_request(follow(events)[0]).tool_choice


def test_the_structured_answer_is_forced_only_when_it_is_due() -> None:
    """A model with other tools uses them first; without, in its last turn or after a nudge not."""
    respond = ToolChoice(type="tool", name=RESPOND)
    assert forced(started(SOLO)) is None
    assert forced(started(STRUCTURED)) is None
    assert respond == forced(started(replace(STRUCTURED, tools=())))
    assert respond == forced(started(replace(STRUCTURED, max_turns=1)))
    assert respond == forced(started(STRUCTURED), replied(1, "It is 1."))
    assert respond == forced(
        started(STRUCTURED), replied(1, call(RESPOND, n="x")), returned("1/tool/0")
    )


def test_the_same_calls_are_stopped_and_other_calls_start_the_count_anew() -> None:
    """Repetition is counted over turns in a row, whatever the order of the calls."""
    limited = replace(SOLO, max_identical_tool_calls=2, max_turns=9)
    pair, other = [call("look", x=1), call("move", y=2)], [call("look", x=2)]
    events: list[Event] = [started(limited)]
    kinds = []
    for turn, calls in enumerate([pair, pair[::-1], other, pair, pair], 1):
        _, commands = follow([*events, replied(turn, *calls)])
        kinds.append({type(command) for command in commands})
        events += [replied(turn, *calls), *(returned(command.step) for command in commands)]
    assert [{CallTool}, {RefuseCall}, {CallTool}, {CallTool}, {RefuseCall}] == kinds


def long_conversation() -> list[Event]:
    """Three turns of tools: enough messages for a summary, with the fourth turn due."""
    events: list[Event] = [started()]
    for turn in (1, 2, 3):
        events += [replied(turn, call("look", x=turn)), returned(f"{turn}/tool/0")]
    return events


TOO_LONG = ModelFailed(step="4/model", error="ContextTooLong", message="Too long.")
SHORTENED = ContextSummarised(step="4/summary", summary="So far.", upto=3, cost_usd=0.0)


def test_a_context_that_is_too_long_is_shortened_and_sent_again() -> None:
    """The provider knows better than the estimate."""
    events = [*long_conversation(), TOO_LONG]
    assert (Summarise(step="4/summary", upto=3),) == follow(events)[1]
    state, commands = follow([*events, SHORTENED])
    assert (CallModel(step="5/model", turn=5),) == commands
    assert "So far." in model_request(state).messages[0].text


def test_a_context_that_is_too_long_again_fails_with_the_providers_words() -> None:
    """Shortening did not help, so a second time would not either."""
    again = replace(TOO_LONG, step="5/model")
    end = finish(*long_conversation(), TOO_LONG, SHORTENED, again)
    assert ("model_call_failed", "Too long.") == (end.code, end.message)


def test_a_context_that_cannot_be_shortened_fails_at_once() -> None:
    """Of a single message nothing can be left out."""
    end = finish(started(), replace(TOO_LONG, step="1/model"))
    assert ("model_call_failed", "Too long.") == (end.code, end.message)


def test_a_full_context_window_is_the_same_as_a_context_too_long() -> None:
    """One provider says it with an error, the other with a stop reason."""
    full = replied(4, "half a", stop="context_too_long")
    state, commands = follow([*long_conversation(), full])
    assert (Summarise(step="4/summary", upto=3),) == commands
    assert "half a" not in [message.text for message in state.messages]


def test_a_shortening_that_fails_ends_the_run_with_the_first_complaint() -> None:
    """The person learns what was wrong, not that its cure failed."""
    failed = ContextSummarised(step="4/summary", summary=None, upto=3, reason="no model")
    assert "Too long." == finish(*long_conversation(), TOO_LONG, failed).message


def cancelled_chief(*arriving: Event) -> RunState:
    """A chief with two sub-runs under way, ended while `arriving` come in."""
    both = replied(1, delegating(("ada", "x"), ("bob", "y")))
    return follow([started(CHIEF), both, DeadlinePassed(), *arriving])[0]


def test_what_arrives_after_the_end_was_decided_counts_its_usage_and_its_calls() -> None:
    """Nothing that was used is lost because it was told late."""
    late = sub_finished(
        "1/sub/0", status="cancelled", usage=Usage(input_tokens=7), tool_calls_made=3
    )
    state = cancelled_chief(late)
    assert (17, 1 + 3) == (state.usage.input_tokens, state.tool_calls_made)
    assert 0.5 + 0.25 == state.cost_usd
    broken = ModelFailed(
        step="1/model", error="TruncatedStream", message="Cut.", usage=Usage(input_tokens=5)
    )
    assert 5 == follow([started(), DeadlinePassed(), broken])[0].usage.input_tokens


def test_a_deadline_ends_the_run_and_nothing_new_is_started() -> None:
    """Only the end itself is still to be done."""
    chief = replace(CHIEF, run_timeout_seconds=1.5)
    asked = replied(1, delegating(("ada", "x")))
    events: list[Event] = [started(chief), asked, DeadlinePassed()]
    end = finish(*events)
    told = "The run took longer than 1.5 seconds; give it less to do or more time."
    assert ("run_timed_out", told) == (end.code, end.message)
    state, commands = follow([*events, sub_finished("1/sub/0")])
    assert () == commands
    assert (end,) == replay([*events, sub_finished("1/sub/0")])[1]
    assert not state.ended


ENDS: list[Event] = [
    RunFinished(result="Done.", structured={"n": 1}),
    RunFailed(code="budget_exceeded", message="Too much."),
    CANCELLED,
]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.type)
def test_events_after_the_end_change_nothing(end: Event) -> None:
    """The journal is complete; what comes later is kept, and no more."""
    ended, _ = follow([started(CHIEF), replied(1, delegating(("ada", "x"))), end])
    assert ended.ended
    for late in [sub_finished("1/sub/0"), DeadlinePassed(), replied(2, "Hi."), *ENDS]:
        assert (ended, ()) == advance(ended, late)


def test_each_end_leaves_its_words_in_the_state() -> None:
    """Whoever reads the state knows how the run ended and why."""
    states = [follow([started(), end])[0] for end in ENDS]
    seen = [(s.status, s.result, s.structured, s.error_code, s.error) for s in states]
    assert [
        ("succeeded", "Done.", {"n": 1}, None, None),
        ("failed", None, None, "budget_exceeded", "Too much."),
        ("cancelled", None, None, "run_cancelled", "enough"),
    ] == seen


def test_facts_about_the_run_ask_for_nothing() -> None:
    """Routing and late results are for the record."""
    state, _ = follow([started()])
    routed = RunRouted(decision="single_agent", selected_agent="solo", reason="only one")
    for fact in (routed, LateResult(late_step="1/model", outcome={})):
        assert (state, ()) == advance(state, fact)


def test_a_journal_out_of_order_is_an_error() -> None:
    """A run does not go wrong silently."""
    with pytest.raises(RunStateError, match="does not begin with its start"):
        advance(None, replied(1, "Hi."))
    with pytest.raises(RunStateError, match="second start"):
        replay([started(), started()])
    with pytest.raises(RunStateError, match="empty"):
        replay([])


def test_an_unknown_cost_stays_unknown() -> None:
    """A sum with a part that nobody knows is not known either."""
    known, _ = follow([started(), replied(1, call("look")), returned("1/tool/0")])
    assert 0.5 == known.cost_usd
    priceless = replied(2, "Hi.")
    priceless = replace(priceless, completion=replace(priceless.completion, cost_usd=None))
    assert advance(known, priceless)[0].cost_usd is None


def test_sequential_tasks_start_one_after_the_other_over_all_calls() -> None:
    """The engine, not the prompt, keeps the order."""
    chief = replace(CHIEF, dispatch_mode="sequential")
    both = replied(1, delegating(("ada", "x")), delegating(("bob", "y")))
    _, [first] = follow([started(chief), both])
    _, [second] = follow([started(chief), both, sub_finished("1/sub/0")])
    assert isinstance(first, StartSubRun)
    assert isinstance(second, StartSubRun)
    assert [("1/sub/0", "x"), ("1/sub/1", "y")] == [(c.step, c.prompt) for c in (first, second)]
