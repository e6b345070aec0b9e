"""When a cheaper model's reply is good enough, and when its failure is worth a dearer model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from heartbit.core.messages import Completion, Usage
from heartbit.core.tools import RESPOND
from heartbit.errors import (
    ConfigError,
    ContentRefused,
    ContextTooLong,
    InvalidRequest,
    MalformedReply,
    ProviderError,
)

SHORT_REPLY_CHARACTERS = 400

# What may stand before a refusal, piece by piece. Matched in a loop, each piece without nested
# repetition: the text comes from a model, and no text may keep the expression busy.
_POLITENESS = re.compile(
    r"""
      (?: [^\w"\u201c\u00ab] | _ )+  # not a quotation mark: what is quoted refuses nothing
    | (?: (?: i'm | i\ am | we're | we\ are ) \s )? (?: (?: very | so | really ) \s )? sorry \b
    | (?: i \s apologi[sz]e | (?: my | our ) \s apologies | apologies )
      (?: \s for \s [^.,!?]{1,60}? (?= [.,!?] | \sbut\b ) )? \b
    | (?: i'm | i\ am ) \s afraid \b
    | as \s an? \s [^.,!?]{1,60}? (?= , | \s i \b )
    | (?: unfortunately | regrettably | however | honestly | well | hmm | but ) \b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_REFUSAL = re.compile(
    r"""
    (?: (?: i | we ) \s (?: can't | cannot | can\ not | couldn't | could\ not ) \b
      | (?: i'm | i\ am | we're | we\ are ) \s (?: unable | not\ able ) \s to \b
      | (?: i | we ) \s (?: won't | will\ not ) \s be \s able \s to \b
      | i \s (?: don't | do\ not ) \s know \b
      | (?: i'm | i\ am ) \s not \s sure \b
      | (?: this | that | it ) \b [^.!?]{0,60} \b beyond \s my \s (?: capabilit | abilit )
      | (?: this | that | it ) \b [^.!?]{0,60} (?: not | n't ) \s something \s i \s can \b
    )
    # ... but not what only sounds like one: "I can't stress enough", "I can't wait".
    (?! \s (?: (?: stress | emphasi[sz]e | recommend | praise | thank | say | tell | express ) \b
                [^.!?]* \b enough \b
              | (?: overstate | overemphasi[sz]e | exaggerate | wait | believe | imagine ) \b
              | help \s but \b | agree \s more \b | about \s you \b ) )
    """,
    re.IGNORECASE | re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """Judges the reply of every tier but the last. The first rule that applies decides:

    1. the provider reports a refusal, or that the context is too long: rejected;
    2. the reply was cut at max_tokens: rejected, if `escalate_on_max_tokens`;
    3. it calls tools: accepted, or rejected if not `accept_tool_calls` (a structured answer given
       through the respond tool is no use of a tool, and always accepted here);
    4. its text is shorter than `min_output_tokens`: rejected;
    5. its text is a refusal (`is_refusal`): rejected; else accepted.

    Raises:
        ConfigError: an unknown type or a negative number.
    """

    type: Literal["heuristic"] = "heuristic"
    min_output_tokens: int = 5
    accept_tool_calls: bool = True
    escalate_on_max_tokens: bool = True

    def __post_init__(self) -> None:
        if self.type != "heuristic":
            raise ConfigError(f'cascade.gate.type is "{self.type}"; the one there is: "heuristic".')
        if self.min_output_tokens < 0:
            raise ConfigError(
                f"cascade.gate.min_output_tokens is {self.min_output_tokens}; "
                "it must not be negative."
            )

    def verdict(self, completion: Completion) -> str | None:
        """Why the reply is not good enough; None: it is."""
        if completion.stop_reason in ("refusal", "context_too_long"):
            return f"stop reason {completion.stop_reason}"
        if self.escalate_on_max_tokens and completion.stop_reason == "max_tokens":
            return "cut at max_tokens"
        if names := [call.name for call in completion.message.tool_calls]:
            return self._verdict_on_calls(names)
        return self._verdict_on_text(completion)

    def _verdict_on_calls(self, names: list[str]) -> str | None:
        wanted = [name for name in names if name != RESPOND]
        if wanted and not self.accept_tool_calls:
            return f"wants to use tools: {', '.join(wanted)}"
        return None

    def _verdict_on_text(self, completion: Completion) -> str | None:
        if _text_tokens(completion) < self.min_output_tokens:
            return f"fewer than {self.min_output_tokens} tokens of text"
        return "the text is a refusal" if is_refusal(completion.message.text) else None


def is_refusal(text: str) -> bool:
    """Whether the text says no, or that it does not know, and nothing else.

    That is: it has at most `SHORT_REPLY_CHARACTERS` and *opens* with such a phrase, politeness
    aside. A long reply that starts with a reservation goes on to answer, and a phrase further on,
    or as part of an idiom ("I can't stress enough"), refuses nothing. English only.
    """
    if len(text) > SHORT_REPLY_CHARACTERS:
        return False
    plain = " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
    start = 0
    while polite := _POLITENESS.match(plain, start):
        start = polite.end()
    return _REFUSAL.match(plain, start) is not None


def another_model_may_help(error: ProviderError) -> bool:
    """Whether a tier's failure is a reason to ask the next one.

    It is for passing failures (another model has its own limits and its own load), for a context
    too long for this model, for content it refuses, for a reply nobody can read, and for a model
    that does not exist there (404). It is not for a refused key or an invalid request: the next
    tier would hide a mistake that a person has to correct.
    """
    if isinstance(error, InvalidRequest):
        return error.status == 404
    return error.retryable or isinstance(error, ContextTooLong | ContentRefused | MalformedReply)


def accepted_usage(completion: Completion) -> Usage:
    """What the accepted model alone has used: the whole usage without that of rejected tiers."""
    rejected = sum((tier.usage for tier in completion.rejected), Usage())
    whole = completion.usage
    return Usage(
        input_tokens=whole.input_tokens - rejected.input_tokens,
        output_tokens=whole.output_tokens - rejected.output_tokens,
        cache_read_tokens=whole.cache_read_tokens - rejected.cache_read_tokens,
        cache_write_tokens=whole.cache_write_tokens - rejected.cache_write_tokens,
        reasoning_tokens=whole.reasoning_tokens - rejected.reasoning_tokens,
    )


def _text_tokens(completion: Completion) -> int:
    # Thinking is counted as output but answers nothing; a server that counts nothing gets bytes/4.
    text = completion.message.text
    if not text.strip():
        return 0
    counted = completion.usage.output_tokens - completion.usage.reasoning_tokens
    return counted if counted > 0 else -(-len(text.encode("utf-8", "surrogatepass")) // 4)
