"""How the messages of runs go out: by name, through whatever Celery app is current.

Whatever is sent here may be sent again, and what could not be sent stands in the journal: a broker
that cannot be reached is a line in the log, and the sweep sends it later.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from celery import chord, current_app, group, states
from kombu.exceptions import OperationalError
from kombu.transport.virtual import Channel as VirtualChannel
from kombu.utils import json as kombu_json

from heartbit import runtime as process
from heartbit.apps import QUEUES
from heartbit.core.messages import Json
from heartbit.core.output import truncate
from heartbit.engines.plan import CONTROL_QUEUE
from heartbit.engines.ports import Answer, Dispatch, ExternalCall
from heartbit.tools.function import result_text

RUN_AGENT = "heartbit.run_agent"
LLM_TURN = "heartbit.llm_turn"
TOOL_CALL = "heartbit.tool_call"
CONTINUE_RUN = "heartbit.continue_run"
FINISH_RUN = "heartbit.finish_run"
TOOL_FINISHED = "heartbit.tool_finished"
MODEL_STEPS = frozenset({"model", "summary", "memories"})
# What the message of a task says about its place among others, by the names of its request.
PLACE = ("root_id", "parent_id", "chord", "group_index", "chain", "headers", "reply_to")
NOT_FOUND = 404
REVOKED = "The Celery task was revoked: it was not done."
NOT_JSON = "The Celery task was done, but its result cannot be sent as JSON"
ERROR_BYTES = 4096

_logger = logging.getLogger("heartbit.outbox")


class CeleryOutbox:
    """The `Outbox` of the durable engine."""

    def steps(self, dispatches: Sequence[Dispatch]) -> None:
        """Have these steps worked on."""
        with _sending(f"{len(dispatches)} steps"), current_app.producer_or_acquire() as producer:
            for each in dispatches:
                if each.call is not None:
                    _call(each, each.call, producer)
                    continue
                current_app.send_task(
                    LLM_TURN if each.step.split("/")[1] in MODEL_STEPS else TOOL_CALL,
                    args=[each.run_id, each.step],
                    queue=each.queue,
                    argsrepr=shown(each),
                    root_id=_root_of(each),
                    ignore_result=True,
                    add_to_parent=False,
                    producer=producer,
                )

    def sub_runs(self, parent_run_id: str, run_ids: Sequence[str]) -> None:
        """Have sub-runs started as a chord whose body wakes the parent."""
        header = [_start_of_sub_run(run_id, parent_run_id) for run_id in run_ids]
        with _sending(f"{len(run_ids)} sub-runs"):
            if has_chords():
                chord(header)(_look_at(parent_run_id))
            else:
                group(header).apply_async(add_to_parent=False)

    def finished(self, run_id: str) -> None:
        """Publish the end of a run, under the id of the task that began it."""
        row = process.journal().run(run_id)
        if row.completion is not None and not row.completion_done:
            publish(run_id, row.completion)
        if row.parent_run_id is not None and not has_chords():
            self.wake(row.parent_run_id)

    def wake(self, run_id: str) -> None:
        """Have somebody look after a run."""
        with _sending(f"a look at run {run_id}"):
            _look_at(run_id).apply_async(add_to_parent=False)

    def chore(self, task: str, queue: str) -> None:
        """Have a task done that belongs to no run."""
        with _sending(task):
            current_app.send_task(task, queue=queue, ignore_result=True, add_to_parent=False)

    def reachable(self) -> bool:
        """Whether the broker can be connected to now."""
        try:
            with current_app.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0)
        except Exception as error:  # whatever a broker raises
            _logger.debug("The broker cannot be reached: %s", error)
            return False
        return True

    def empty_queues(self) -> Sequence[str]:
        """Queues that certainly hold no message now."""
        try:
            with current_app.connection_for_read() as connection:
                return [queue for queue, length in _lengths(connection) if length == 0]
        except Exception as error:  # whatever a broker raises: the sweep can wait longer
            _logger.debug("Nobody knows which queues are empty: %s", error)
            return []

    def answer(self, task_id: str) -> Answer:
        """What the app's result backend knows of a task; often there is none, or not its."""
        try:
            meta = current_app.backend.get_task_meta(task_id, cache=False)
        except Exception as error:  # whatever a backend raises: the callback may still come
            _logger.debug("Nobody knows what became of task %s: %s", task_id, error)
            return Answer(state="unknown")
        match meta["status"]:
            case states.SUCCESS:
                return Answer(state="done", content=result_text(meta.get("result")))
            case states.FAILURE:
                return Answer(state="done", content=failure(meta.get("result")), is_error=True)
            case states.REVOKED | states.REJECTED:
                return Answer(state="done", content=REVOKED, is_error=True)
            case states.PENDING:
                return Answer(state="unknown")
            case _:
                return Answer(state="running")

    def revoke(self, task_ids: Sequence[str]) -> None:
        """Have workers discard tasks that they have not begun."""
        if self.reachable():  # else it would be tried for as long as the broker is away
            with _sending(f"the recall of {len(task_ids)} tasks"):
                current_app.control.revoke(list(task_ids))


def _call(dispatch: Dispatch, call: ExternalCall, producer: Any) -> None:
    """Send a task of another code base. Without a queue it goes where the app's routes say.

    Its worker may know nothing of heartbit: what it needs to answer is in the message.
    """
    back = {"run_id": dispatch.run_id, "step": dispatch.step, "attempt": call.attempt}
    current_app.send_task(
        call.task,
        kwargs=call.arguments,
        task_id=call.task_id,
        queue=dispatch.queue or None,
        argsrepr=shown(dispatch),
        root_id=_root_of(dispatch),
        link=_answer(back),
        link_error=_answer(back | {"failed": True}),
        add_to_parent=False,
        producer=producer,
    )


def _answer(kwargs: Json) -> Any:
    """A callback; it is mutable, since Celery puts the result in front of its arguments."""
    shown_as = f"(run={kwargs['run_id']} step={kwargs['step']})"
    return current_app.signature(
        TOOL_FINISHED,
        kwargs=kwargs,
        options={"queue": CONTROL_QUEUE, "serializer": "json", "argsrepr": shown_as},
    )


def send_failure(error: str, **answer: Any) -> None:
    """Tell that a task has failed, and how."""
    _answer(answer | {"error": error}).apply_async(add_to_parent=False)


def _root_of(dispatch: Dispatch) -> str | None:
    """Inside a task Celery knows the root by itself, also that of a caller's canvas."""
    return None if current_app.current_worker_task else dispatch.root_run_id


def failure(error: Any) -> str:
    """What a model is told of an exception in somebody else's task: one line, no traceback."""
    name = type(error).__name__
    if name == "EncodeError":
        return f"{NOT_JSON}: {_line(error)}"
    return f"{name}: {_line(error)}" if str(error) else name


def _line(error: Any) -> str:
    return truncate(" ".join(str(error).split()), ERROR_BYTES)


def _lengths(connection: Any) -> Iterator[tuple[str, int]]:
    """How many messages each queue holds; one that does not exist holds none, and in Redis an empty
    one does not exist.
    """
    channel = connection.channel()
    for queue in QUEUES:
        try:
            yield queue, int(channel.queue_declare(queue=queue, passive=True).message_count)
        except connection.channel_errors as error:
            if int(getattr(error, "reply_code", 0)) != NOT_FOUND:
                raise
            yield queue, 0
            if not isinstance(channel, VirtualChannel):  # AMQP has closed it
                channel = connection.channel()


@contextmanager
def _sending(what: str) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        _logger.warning("The broker cannot be reached, %s will be sent later: %s", what, error)


def shown(dispatch: Dispatch) -> str:
    """A step as people read it in Flower and in logs."""
    turn, kind, *_ = dispatch.step.split("/")
    tool = dispatch.tool or ("" if kind in MODEL_STEPS else dispatch.step)
    words = {"run": dispatch.run_id, "agent": dispatch.agent, "turn": turn, "tool": tool}
    return f"({' '.join(f'{name}={word}' for name, word in words.items() if word)})"


def has_chords() -> bool:
    """Whether the app's result backend counts chords by itself (rpc:// refuses, SQL polls)."""
    backend = current_app.backend
    try:
        backend.ensure_chords_allowed()
    except NotImplementedError:
        return False
    return bool(backend.supports_native_join)


def _start_of_sub_run(run_id: str, parent_run_id: str) -> Any:
    shown_as = f"(run={run_id} parent={parent_run_id})"
    return _message(RUN_AGENT, None, {"sub_run": True}, task_id=run_id, argsrepr=shown_as)


def _look_at(run_id: str) -> Any:
    return _message(CONTINUE_RUN, run_id, {}, argsrepr=f"(run={run_id})", ignore_result=True)


def _message(name: str, argument: str | None, kwargs: Json, **options: Any) -> Any:
    return current_app.signature(
        name,
        args=(argument,),
        kwargs=kwargs,
        options={"queue": CONTROL_QUEUE, **options},
        immutable=True,
    )


def completion_of(request: Any) -> Json:
    """What waits for a task: everything Celery would do at its end, as plain JSON."""
    stamped = list(request.stamped_headers or ())
    waiting = {name: getattr(request, name) for name in PLACE} | {
        "task_id": request.id,
        "group_id": request.group,
        "link": list(request.callbacks or ()),
        "link_error": list(request.errbacks or ()),
        "priority": (request.delivery_info or {}).get("priority"),
        "ignore_result": bool(request.ignore_result),
        "stamped_headers": stamped,
        **{name: value for name, value in (request.stamps or {}).items() if name in stamped},
    }
    # Arguments of what waits may be dates and other things that only kombu's JSON can write.
    plain: Json = json.loads(kombu_json.dumps(waiting))
    return plain


def publish(run_id: str, completion: Json) -> None:
    """Send `finish_run` in place of the task that began the run, with all that waits for it."""
    waiting = kombu_json.loads(json.dumps(completion))
    with _sending(f"the end of run {run_id}"):
        current_app.send_task(
            FINISH_RUN,
            args=[run_id],
            queue=CONTROL_QUEUE,
            argsrepr=f"(run={run_id})",
            add_to_parent=False,
            **waiting,
        )


def cancel_run(run_id: str) -> None:
    """Ask for the end of a run tree, and have its open runs looked after.

    Raises:
        RunNotFound: there is no such run.
        JournalError: it cannot be asked for now.
    """
    outbox = CeleryOutbox()
    for each in process.journal().request_cancel(run_id):
        outbox.wake(each)
