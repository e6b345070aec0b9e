"""Which replies of a cheaper model are good enough, and which failures are worth a dearer one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.cascade import (
    SHORT_REPLY_CHARACTERS,
    Gate,
    accepted_usage,
    another_model_may_help,
    is_refusal,
)
from heartbit.core.messages import (
    Completion,
    Part,
    RejectedTier,
    StopReason,
    TextPart,
    ThinkingPart,
    ToolCall,
    Usage,
)
from heartbit.core.tools import RESPOND
from heartbit.errors import (
    AuthenticationFailed,
    CallTimedOut,
    ConfigError,
    ContentRefused,
    ContextTooLong,
    InvalidRequest,
    MalformedReply,
    NetworkFailure,
    Overloaded,
    ProviderError,
    RateLimited,
    ServerFailure,
    TruncatedStream,
)

ANSWER = "Paris is the capital of France."


def said(
    text: str,
    *calls: str,
    stop_reason: StopReason = "end_turn",
    output_tokens: int = 20,
    reasoning_tokens: int = 0,
) -> Completion:
    """A reply of a text and calls of the named tools."""
    parts: list[Part] = [TextPart(text=text)] if text else []
    parts += [ToolCall(id="", name=name, arguments={}) for name in calls]
    usage = Usage(output_tokens=output_tokens, reasoning_tokens=reasoning_tokens)
    return Completion(parts=tuple(parts), stop_reason=stop_reason, usage=usage)


def test_a_plain_answer_is_accepted() -> None:
    """Nothing speaks against it."""
    assert None is Gate().verdict(said(ANSWER))


@pytest.mark.parametrize("stop_reason", ["refusal", "context_too_long"])
def test_a_refusal_reported_by_the_provider_escalates(stop_reason: StopReason) -> None:
    """Whatever the text says, and with every setting at its most generous."""
    gate = Gate(min_output_tokens=0, escalate_on_max_tokens=False)
    reply = said(ANSWER, "search", stop_reason=stop_reason)
    assert f"stop reason {stop_reason}" == gate.verdict(reply)


@pytest.mark.parametrize("calls", [(), ("search",)])
def test_a_reply_cut_at_max_tokens_escalates(calls: tuple[str, ...]) -> None:
    """Also with tool calls in it: a call that was cut is never executed."""
    assert "cut at max_tokens" == Gate().verdict(said(ANSWER, *calls, stop_reason="max_tokens"))


def test_escalate_on_max_tokens_can_be_switched_off() -> None:
    """Then a cut reply is judged like any other."""
    gate = Gate(escalate_on_max_tokens=False)
    assert None is gate.verdict(said(ANSWER, stop_reason="max_tokens"))


def test_a_tool_call_is_accepted_by_default() -> None:
    """However short the text beside it, and whatever it says."""
    reply = said("I can't say yet.", "search", stop_reason="tool_use", output_tokens=1)
    assert None is Gate().verdict(reply)


def test_accept_tool_calls_false_escalates_a_tool_call() -> None:
    """The documented meaning: the cheap model may talk, but not act."""
    reply = said(ANSWER, "search", "read", stop_reason="tool_use")
    assert "wants to use tools: search, read" == Gate(accept_tool_calls=False).verdict(reply)


def test_accept_tool_calls_false_leaves_text_alone() -> None:
    """It is about calls only."""
    assert None is Gate(accept_tool_calls=False).verdict(said(ANSWER))


def test_a_structured_answer_is_no_use_of_a_tool() -> None:
    """The respond tool carries the answer itself; beside another call it changes nothing."""
    gate = Gate(accept_tool_calls=False)
    assert None is gate.verdict(said("", RESPOND, stop_reason="tool_use", output_tokens=1))
    assert "wants to use tools: search" == gate.verdict(said("", RESPOND, "search"))


def test_a_very_short_reply_escalates() -> None:
    """Below min_output_tokens; exactly as many are enough."""
    assert "fewer than 5 tokens of text" == Gate().verdict(said("Paris.", output_tokens=4))
    assert None is Gate().verdict(said("Paris.", output_tokens=5))


def test_min_output_tokens_zero_switches_the_length_off() -> None:
    """Even an empty reply passes then."""
    assert None is Gate(min_output_tokens=0).verdict(said("", output_tokens=0))


def test_thinking_does_not_make_a_reply_long() -> None:
    """Reasoning tokens are output, but they answer nothing."""
    reply = said("Paris.", output_tokens=502, reasoning_tokens=500)
    assert "fewer than 5 tokens of text" == Gate().verdict(reply)


def test_thinking_without_a_text_is_an_empty_reply() -> None:
    """Also where the provider does not tell thinking from text in its figures."""
    parts = (ThinkingPart(provider="anthropic", data={"thinking": "Hm"}), TextPart(text=" \n"))
    reply = Completion(parts=parts, stop_reason="end_turn", usage=Usage(output_tokens=500))
    assert "fewer than 5 tokens of text" == Gate().verdict(reply)


def test_a_server_that_counts_no_tokens_is_judged_by_the_text() -> None:
    """Many compatible servers report no usage; that is no reason to escalate every reply."""
    assert None is Gate().verdict(said(ANSWER, output_tokens=0))
    assert "fewer than 5 tokens of text" == Gate().verdict(said("Paris.", output_tokens=0))


def test_a_text_that_is_a_refusal_escalates() -> None:
    """The gate uses `is_refusal`."""
    assert "the text is a refusal" == Gate().verdict(said("I'm sorry, I can't help with that."))


@pytest.mark.parametrize(
    "text",
    [
        "I don't know.",
        "I do not know the answer to this question.",
        "I'm not sure.",
        "I cannot do this.",
        "I can't help with that. Is there anything else?",
        "I\u2019m sorry, but I can\u2019t assist with that request.",
        "I'm unable to access the internet.",
        "I am not able to comply.",
        "I won't be able to do that.",
        "That is beyond my capabilities.",
        "This question is well beyond my abilities.",
        "I apologize, but I can't answer.",
        "I apologize for the confusion, but I cannot open files.",
        "I apologize, but that isn't something I can help with.",
        "My apologies, I can't.",
        "Unfortunately, I don't know.",
        "I'm afraid I can't do that, Dave.",
        "I am very sorry. I cannot do this.",
        "We are sorry, but we cannot share this.",
        "As an AI language model, I cannot browse.",
        "Sorry, but as a language model I can't see images.",
        "  **I cannot** help\nwith this.",
        "I CANNOT DO THAT",
    ],
)
def test_a_short_reply_that_opens_with_a_refusal_is_one(text: str) -> None:
    """Politeness, markup, capitals and typographic apostrophes don't hide it."""
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "I can't stress enough how useful tests are.",
        "I cannot emphasise this point enough: back up first.",
        "I can't recommend axum highly enough.",
        "I cannot overstate the importance of sleep.",
        "I can't wait to see it! Start it with uvicorn.",
        "I can't help but notice the bug in line 3.",
        "I couldn't agree more.",
        "I don't know about you, but I would pick axum.",
    ],
)
def test_an_idiom_that_only_sounds_like_a_refusal_is_none(text: str) -> None:
    """Needless escalation costs money."""
    assert not is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "The capital is Paris. I can't say more about its weather.",
        "Write: I cannot attend the meeting on Monday.",
        '"I cannot attend the meeting on Monday."',
        "“I don't know” is an honest answer.",
        "I apologize, but the earlier number was wrong: it is 42.",
        "I can help with that.",
        "I canned the peaches.",
        "Well, the answer is 4.",
        "Sorry for the wait: it is done.",
        "",
    ],
)
def test_a_refusal_further_on_or_quoted_refuses_nothing(text: str) -> None:
    """Only how the reply itself opens counts."""
    assert not is_refusal(text)


def test_a_long_reply_that_opens_with_a_reservation_is_an_answer() -> None:
    """The limit is stated and exact."""
    opening = "I cannot see your database, but from the schema: "
    fits = opening.ljust(SHORT_REPLY_CHARACTERS, "x")
    assert is_refusal(fits)
    assert not is_refusal(fits + "x")


@given(
    st.lists(
        st.sampled_from(
            ["i'm ", "so ", "sorry", "i apologize", " for ", "as a ", "this ", "not ", "well", ","]
        ),
        max_size=120,
    ).map("".join)
    | st.text()
)
def test_no_text_keeps_the_gate_busy_or_breaks_it(text: str) -> None:
    """The text comes from a model: hypothesis' deadline fails this if matching ever explodes."""
    assert is_refusal(text) in (True, False)


HELPS = [
    RateLimited(),
    Overloaded(),
    ServerFailure(),
    NetworkFailure(),
    CallTimedOut(),
    TruncatedStream(),
    ContextTooLong(),
    ContentRefused(),
    MalformedReply(),
    InvalidRequest(status=404),
]


@pytest.mark.parametrize("error", HELPS, ids=lambda error: type(error).__name__)
def test_a_failure_that_another_model_may_not_have_escalates(error: ProviderError) -> None:
    """Limits, load, window, taste, garbled replies, and a model that isn't there."""
    assert another_model_may_help(error)


@pytest.mark.parametrize(
    "error",
    [AuthenticationFailed(status=401), InvalidRequest(status=400), InvalidRequest()],
    ids=["401", "400", "no status"],
)
def test_a_failure_that_a_person_has_to_correct_does_not_escalate(error: ProviderError) -> None:
    """A wrong key must not quietly turn every call into one of the dearest model."""
    assert not another_model_may_help(error)


def test_the_accepted_usage_is_the_whole_without_the_rejected() -> None:
    """In every kind of token."""
    one = Usage(
        input_tokens=1,
        output_tokens=2,
        cache_read_tokens=3,
        cache_write_tokens=4,
        reasoning_tokens=1,
    )
    own = Usage(input_tokens=100, output_tokens=50, cache_read_tokens=7, reasoning_tokens=9)
    tier = RejectedTier(model="cheap", reason="short", usage=one)
    reply = Completion(
        parts=(), stop_reason="end_turn", usage=own + one + one, rejected=(tier, tier)
    )
    assert own == accepted_usage(reply)


def test_the_gate_refuses_settings_it_does_not_have() -> None:
    """One sentence that names the setting."""
    with pytest.raises(ConfigError, match=r'gate\.type is "judge".*"heuristic"'):
        Gate(type="judge")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="min_output_tokens is -1"):
        Gate(min_output_tokens=-1)
