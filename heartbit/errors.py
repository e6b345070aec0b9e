"""Every error heartbit raises; the docstring of a class is its default message.

HeartbitError
+-- ConfigError                 the person's file, flag or environment
+-- ToolError                   goes to the model as an error result, never ends a run
|   +-- PageUnavailable             a web page that cannot be had (attribute `status`)
|   +-- ToolTimedOut                was given up, and may still be at it
+-- ProviderError               a model call that failed (attribute `retryable`)
|   +-- RateLimited  Overloaded  ServerFailure  NetworkFailure  CallTimedOut  TruncatedStream
|   +-- AuthenticationFailed  ContextTooLong  InvalidRequest  MalformedReply  ContentRefused
+-- CallPutOff                  a model call that goes on later; never seen outside an engine
+-- RunError                    why a run ended without a result (attribute `code`)
|   +-- MaxTurnsExceeded  RunTimedOut  BudgetExceeded  ReplyTruncated  ModelRefused
|   +-- ModelCallFailed  NoStructuredResult  WorkersLost  RunCancelled
+-- MemoryStoreError            memories or documents that cannot be kept or found
+-- DocumentUnreadable          a document that cannot be indexed (attribute `gone`)
+-- JournalError
    +-- JournalUnavailable          for now; what was to be done may be tried again
    +-- RunNotFound  RunStateError  InvalidDecision  LeaseLost  BoardConflict
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from heartbit.core.messages import RejectedTier, Usage
    from heartbit.core.retry import Tried


class HeartbitError(Exception):
    """Something in heartbit failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or type(self).__name__)

    @property
    def message(self) -> str:
        """The one sentence a person reads."""
        return str(self.args[0])


class ConfigError(HeartbitError):
    """The configuration is not valid."""


class ToolError(HeartbitError):
    """The tool could not do its work."""


class ToolTimedOut(ToolError):
    """The tool did not end in time."""


class PageUnavailable(ToolError):
    """The page could not be fetched."""

    # `status` is the server's, if it answered.
    def __init__(self, message: str | None = None, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class ProviderError(HeartbitError):
    """The model call failed."""

    # A class docstring is a default message, so the contract of the attributes stands here:
    # `retry_after` is what the provider asked for, in seconds; `usage` is what the failed call is
    # known to have used, earlier attempts and tiers included, and None where nobody can tell. A
    # cascade says which `model` failed last and which tiers it had `rejected` before; `cost_usd` is
    # set where prices are known.
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.usage = usage
        self.model: str | None = None
        self.rejected: tuple[RejectedTier, ...] = ()
        self.cost_usd: float | None = None


class RateLimited(ProviderError):
    """The provider limits the rate of requests; try again later."""

    retryable = True


class Overloaded(ProviderError):
    """The provider is overloaded; try again later."""

    retryable = True


class ServerFailure(ProviderError):
    """The provider failed on its side; try again later."""

    retryable = True


class NetworkFailure(ProviderError):
    """The provider could not be reached."""

    retryable = True


class CallTimedOut(ProviderError):
    """The provider did not answer in time."""

    retryable = True


class TruncatedStream(ProviderError):
    """The provider's stream ended before its final event."""

    retryable = True


class CallPutOff(HeartbitError):
    """The model call goes on later, after a wait that is too long for a worker."""

    # `seconds` is that wait; `tried` is what the call has come to, for the request that goes on.
    def __init__(self, seconds: float, tried: Tried) -> None:
        super().__init__()
        self.seconds = seconds
        self.tried = tried


class AuthenticationFailed(ProviderError):
    """The provider refused the API key; check the key and its permissions."""


class ContextTooLong(ProviderError):
    """The conversation is longer than the model's context window; set a context_strategy."""


class InvalidRequest(ProviderError):
    """The provider refused the request."""


class MalformedReply(ProviderError):
    """The provider's reply could not be understood."""


class ContentRefused(ProviderError):
    """The provider refused the content of the conversation."""


class RunError(HeartbitError):
    """The run ended without a result."""

    code: ClassVar[str] = "run_error"

    def __init__(self, message: str | None = None, *, output: Any = None) -> None:
        super().__init__(message)
        self.output = output


class MaxTurnsExceeded(RunError):
    """The run used all its turns; raise max_turns or give it less to do."""

    code = "max_turns_exceeded"


class RunTimedOut(RunError):
    """The run took longer than run_timeout_seconds; give it less to do or more time."""

    code = "run_timed_out"


class BudgetExceeded(RunError):
    """The run used more tokens than max_total_tokens; raise it or give the run less to do."""

    code = "budget_exceeded"


class ReplyTruncated(RunError):
    """The model's answer was cut at max_tokens; raise max_tokens."""

    code = "reply_truncated"


class ModelRefused(RunError):
    """The model refused to answer; word the prompt differently or ask another model."""

    code = "model_refused"


class ModelCallFailed(RunError):
    """A model call failed and was not worth repeating."""

    code = "model_call_failed"


class NoStructuredResult(RunError):
    """The model never gave the result its response_schema asks for; look at the schema."""

    code = "no_structured_result"


class WorkersLost(RunError):
    """The run was ended because the workers of one of its steps were lost again and again."""

    code = "workers_lost"


class RunCancelled(RunError):
    """The run was cancelled."""

    code = "run_cancelled"


class MemoryStoreError(HeartbitError):
    """The memory store cannot do this."""


class DocumentUnreadable(HeartbitError):
    """The document cannot be read."""

    # `gone`: what it said before is not there any more, so what was kept of it is to be dropped.
    def __init__(self, message: str | None = None, *, gone: bool = False) -> None:
        super().__init__(message)
        self.gone = gone


class JournalError(HeartbitError):
    """The journal could not be read or written."""


class JournalUnavailable(JournalError):
    """The journal's database cannot be used now; try again later."""


class RunNotFound(JournalError):
    """There is no such run."""


class RunStateError(JournalError):
    """The run is not in a state that allows this."""


class InvalidDecision(JournalError):
    """The decision does not fit the calls it is about."""


class LeaseLost(JournalError):
    """Another worker has taken over this step."""


class RunStopped(LeaseLost):
    """Nobody wants this step any more: its run has ended, or is to end."""


class StepHandedBack(LeaseLost):
    """This worker does not do the step after all; another one will."""


class BoardConflict(JournalError):
    """Somebody else has written this blackboard key in between; read it again."""


def run_error(code: str, message: str) -> RunError:
    """The error that a stored `code` stands for, with its stored message."""
    for kind in RunError.__subclasses__():
        if kind.code == code:
            return kind(message)
    return RunError(message)
