"""The Celery tasks: thin, idempotent, and shared, so that they live in any app of the process.

`run_agent` is for everybody: it can be sent with `.delay()` and stands in any canvas. The others
take ids only and are heartbit's own. What waits for a run (a chain, a chord, a callback) is put
down when `run_agent` arrives, and taken up by `finish_run` under the same task id at its end.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from celery import Task, current_task, shared_task
from celery.exceptions import Ignore, Reject
from celery.local import Proxy

from heartbit import runtime as process
from heartbit import worker
from heartbit.apps import SUSPECT_QUEUE, ensure_app, install
from heartbit.core.events import RunStarted
from heartbit.core.messages import Json
from heartbit.core.owner import Owner
from heartbit.engines.ids import run_id_of_task
from heartbit.engines.plan import RunPlace
from heartbit.engines.ports import Answer
from heartbit.errors import HeartbitError, JournalUnavailable, RunNotFound, run_error
from heartbit.indexing import index_source
from heartbit.outbox import (
    CONTINUE_RUN,
    FINISH_RUN,
    LLM_TURN,
    RUN_AGENT,
    TOOL_CALL,
    TOOL_FINISHED,
    CeleryOutbox,
    cancel_run,
    completion_of,
    failure,
    publish,
    send_failure,
)
from heartbit.runtime import Runtime, use
from heartbit.tools.function import result_text
from heartbit.upkeep import embed_memories, prune_memories
from heartbit.visibility import visibility

__all__ = [
    "CeleryOutbox",
    "cancel_run",
    "continue_run",
    "embed_memories",
    "finish_run",
    "index_source",
    "install",
    "llm_turn",
    "prune_memories",
    "run_agent",
    "runtime",
    "tool_call",
    "tool_finished",
    "use",
    "worker",
]

FAILED = (
    "The Celery task failed. Nobody was told why, because no result of it is kept: the log of its "
    "worker knows."
)
# After how long a message is tried again for which there was no journal.
PAUSE_SECONDS = 1.0

_logger = logging.getLogger("heartbit.tasks")


def runtime() -> Runtime:
    """The runtime of this process, made from its configuration at the first call."""
    return process.runtime(CeleryOutbox())


class HeartbitTask(Task[Any, Any]):
    """A task that refuses what is no message of ours, with one line in the log."""

    abstract = True
    __header__: Callable[..., None]

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Look at the arguments.

        Raises:
            Ignore: heartbit has not sent this; the message is dropped.
        """
        try:
            self.__header__(*args, **kwargs)
            uuid.UUID(_run_id(args, kwargs))
        except (TypeError, ValueError, AttributeError) as error:
            _logger.error("%s[%s] is no message of heartbit's: %s", self.name, task_id, error)
            raise Ignore from None


class PublicTask(HeartbitTask):
    """A task that everybody may send: who did is told what is wrong with it."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Look at the arguments.

        Raises:
            HeartbitError: they are not those of this task.
        """
        try:
            self.__header__(*args, **kwargs)
        except TypeError as error:
            raise HeartbitError(f"{self.name} cannot be called like this: {error}.") from None
        if not str(task_id).isprintable():
            raise HeartbitError("A task id must be printable text; choose another.")


class FinishTask(HeartbitTask):
    """Notes that the end of a run is published, once its result is stored and its canvas sent."""

    abstract = True

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """The result is out."""
        _note_completed(_run_id(args, kwargs))

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """The error is out, which is just as well."""
        _note_completed(_run_id(args, kwargs))


def _run_id(args: Any, kwargs: Any) -> str:
    return str(kwargs["run_id"] if "run_id" in kwargs else args[0])


def _note_completed(run_id: str) -> None:
    try:
        process.journal().complete(run_id)
    except HeartbitError as error:
        _logger.error("The end of run %s will be published again: %s", run_id, error.message)


@contextmanager
def _dropping(what: str) -> Iterator[None]:
    """Give a message up that cannot be worked on; the sweep sends what the journal still needs.

    Raises:
        Ignore: the block failed.
    """
    try:
        yield
    except HeartbitError as error:
        _logger.error("%s was dropped: %s", what, error.message)
        raise Ignore from None


@contextmanager
def _keeping(task: Task[Any, Any], what: str) -> Iterator[None]:
    """Hand a message back while the journal cannot be used: nothing else may know of the run.

    Raises:
        Retry: the block failed for now, and the message is in its queue again.
        Reject: the same, but the broker has to put it there.
    """
    try:
        yield
    except JournalUnavailable as error:
        _logger.warning("%s waits in its queue: %s", what, error.message)
        try:
            task.retry(exc=error, countdown=PAUSE_SECONDS)
        except Reject:
            raise Reject(error, requeue=True) from None


def _task(name: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A shared task with what makes it reliable, whatever the app's own settings say."""
    reliable: dict[str, Any] = {
        "base": HeartbitTask,
        "acks_late": True,
        "reject_on_worker_lost": True,
        "track_started": False,
        "ignore_result": True,
        "serializer": "json",
        "throws": (HeartbitError,),
    }

    def decorate(function: Callable[..., Any]) -> Any:
        make: Any = shared_task(name=name, **reliable | options)
        shared: Any = make(function)

        def bound() -> Any:
            ensure_app()
            return shared._get_current_object()

        return Proxy(bound)

    return decorate


@_task(RUN_AGENT, base=PublicTask, bind=True, ignore_result=False, max_retries=None)
def run_agent(
    self: Task[Any, Any],
    prompt: Any,
    *,
    agent: str | None = None,
    tenant_id: str | None = None,
    user_id: str | None = None,
    priority: int = 0,
    sub_run: bool = False,
) -> Json:
    """Run an agent on a prompt; the result is that of the run, whenever it ends.

    Called directly, with `apply()` or under task_always_eager, it runs in this process, without
    broker and journal.

    Args:
        prompt: what to do; anything but text is given to the agent as JSON.
        agent: the agent's name; by default whom the routing chooses.
        tenant_id: whose run it is; tools are told, and callers of other tenants do not see it.
        user_id: for which of the tenant's users; tools are told.
        priority: of the run, not of the message: the highest comes first where runs wait for their
            admission.
        sub_run: the run was opened by its parent already (heartbit's own).
    """
    request = self.request
    owner = Owner(tenant_id=tenant_id, user_id=user_id, priority=priority)
    task_id = str(request.id or uuid.uuid4())
    run_id = run_id_of_task(task_id)
    if request.called_directly or request.is_eager:
        output = process.run_here(as_text(prompt), agent, run_id, owner)
        return given_or_raised(output.status, output.as_json())
    what = f"The start of run {run_id}"
    with _dropping(what) if sub_run else nullcontext(), _keeping(self, what):
        if not sub_run:
            _open(run_id, task_id, as_text(prompt), agent, owner)
        _go_on(run_id, request)
    raise Ignore


def as_text(prompt: Any) -> str:
    """What an agent is told: text as it is, anything else as JSON."""
    if isinstance(prompt, str):
        return prompt
    return json.dumps(prompt, ensure_ascii=False, default=str)


def _open(run_id: str, task_id: str, prompt: str, agent: str | None, owner: Owner) -> None:
    here = runtime()
    definition = here.resolve(agent).definition
    start = RunStarted(prompt=prompt, definition=definition, blackboard=run_id)
    place = RunPlace(
        run_id=run_id, root_run_id=run_id, tenant_id=owner.tenant_id, user_id=owner.user_id
    )
    here.engine.open(place, start, task_id=task_id, priority=owner.priority)


def _go_on(run_id: str, request: Any) -> None:
    """Put down what waits for the run, and only then let it go on: it cannot end before.

    A run that has ended answers whoever asks again.
    """
    here = runtime()
    waiting = completion_of(request)
    here.journal.set_completion(run_id, waiting)
    if here.journal.run(run_id).output is None:
        here.engine.resume(run_id)
    else:
        publish(run_id, waiting)


@_task(LLM_TURN, bind=True)
def llm_turn(self: Task[Any, Any], run_id: str, step: str) -> None:
    """Do one model turn of a run."""
    _do(self, run_id, str(step))


@_task(TOOL_CALL, bind=True)
def tool_call(self: Task[Any, Any], run_id: str, step: str) -> None:
    """Do one tool call of a run."""
    _do(self, run_id, str(step))


def _do(task: Task[Any, Any], run_id: str, step: str) -> None:
    if process.departure.begun:  # Celery may fetch one more message after it was told to stop
        raise Reject("This worker is to end.", requeue=True)
    request: Any = task.request
    queue = (request.delivery_info or {}).get("routing_key")
    tag = (request.properties or {}).get("delivery_tag")
    with (
        _dropping(f"The step {step} of run {run_id}"),
        _alone_if(queue == SUSPECT_QUEUE) as free,
        visibility(task.app).keep(tag),
    ):
        if free:
            runtime().engine.step(run_id, step)


_one_suspect = threading.Lock()


@contextmanager
def _alone_if(suspect: bool) -> Iterator[bool]:
    """A process does one suspect at a time, so that the one that kills it takes no other with it.

    The sweep sends again what was not free to be done.
    """
    if not suspect:
        yield True
        return
    free = _one_suspect.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            _one_suspect.release()


@_task(CONTINUE_RUN)
def continue_run(run_id: str) -> None:
    """Send what a run still waits for."""
    with _dropping(f"A look at run {run_id}"):
        runtime().engine.resume(run_id)


@_task(TOOL_FINISHED, max_retries=None)
def tool_finished(
    *told: Any,
    run_id: str,
    step: str,
    attempt: int = 0,
    failed: bool = False,
    error: str | None = None,
) -> None:
    """Take in what a Celery task answers that an agent has called as a tool.

    It is the task's `link` and `link_error`. A worker that knows heartbit calls it at the end of a
    failed task, with (request, exception, traceback), and it sends the error on. Any other worker
    sends the failed task's id only, and what became of that stands in the result backend, if
    anywhere.
    """
    answer = {"run_id": run_id, "step": str(step), "attempt": attempt}
    if failed and len(told) > 1:
        send_failure(failure(told[1]), **answer)
        return
    what = f"The answer to step {step} of run {run_id}"
    with _dropping(what), _keeping(current_task, what):
        _take_in(answer, _told(told, failed, error))


def _told(told: tuple[Any, ...], failed: bool, error: str | None) -> Answer:
    if error is not None:
        return Answer(state="done", content=str(error), is_error=True)
    if len(told) != 1:
        raise HeartbitError(f"It has {len(told)} results, and should have one.")
    if not failed:
        return Answer(state="done", content=result_text(told[0]))
    found = CeleryOutbox().answer(str(told[0]))
    return found if found.is_error else Answer(state="done", content=FAILED, is_error=True)


def _take_in(answer: Json, told: Answer) -> None:
    runtime().engine.external.finished(**answer, content=told.content, is_error=told.is_error)


# What a model said does not belong in the log of a worker, which may not even be able to write it.
@_task(FINISH_RUN, base=FinishTask, ignore_result=False, resultrepr_maxsize=0)
def finish_run(run_id: str) -> Json:
    """Give the result of an ended run as that of the task that began it.

    For a sub-run it never raises: one that failed has told its parent so already.
    """
    with _dropping(f"The end of run {run_id}"):
        row = process.journal().run(run_id)
        if row.output is None:
            raise RunNotFound(f"The run has not ended, it is {row.status}.")
    if row.parent_run_id is not None:
        return {"run_id": run_id, "status": row.status}
    return given_or_raised(row.status, row.output)


def given_or_raised(status: str, output: Json) -> Json:
    """What the caller of a run gets.

    Raises:
        RunError: the run failed or was cancelled.
    """
    if status in ("failed", "cancelled"):
        raise run_error(output.get("error_code") or "", output.get("error") or status)
    return output
