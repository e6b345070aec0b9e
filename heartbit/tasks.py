"""The Celery tasks: thin, idempotent, and shared, so that they live in any app of the process.

`run_agent` is for everybody: it can be sent with `.delay()` and stands in any canvas. The others
take ids only and are heartbit's own. What waits for a run (a chain, a chord, a callback) is put
down when `run_agent` arrives, and taken up by `finish_run` under the same task id at its end.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from typing import Any

from celery import Task, chord, current_app, group, shared_task
from celery.canvas import Signature
from celery.exceptions import Ignore

from heartbit.core.events import RunStarted
from heartbit.core.messages import Json
from heartbit.engines.durable import Dispatch
from heartbit.engines.ids import run_id_of_task
from heartbit.engines.plan import CONTROL_QUEUE, RunPlace
from heartbit.errors import HeartbitError, RunError, run_error
from heartbit.runtime import Runtime, configured, load_config
from heartbit.stores.journal import RunRow

RELIABLE: dict[str, Any] = {
    "acks_late": True,
    "reject_on_worker_lost": True,
    "track_started": False,
    "ignore_result": True,
}
LLM_TURN = "heartbit.llm_turn"
TOOL_CALL = "heartbit.tool_call"
LINKS = ("link", "link_error")
MODEL_STEPS = frozenset({"model", "summary"})


class CeleryOutbox:
    """Sends through whatever Celery app is current."""

    def steps(self, dispatches: Sequence[Dispatch]) -> None:
        """Have these steps worked on."""
        for each in dispatches:
            name = LLM_TURN if each.step.split("/")[1] in MODEL_STEPS else TOOL_CALL
            current_app.send_task(
                name,
                args=[each.run_id, each.step],
                queue=each.queue,
                argsrepr=f"(run={each.run_id} step={each.step})",
            )

    def sub_runs(self, parent_run_id: str, run_ids: Sequence[str]) -> None:
        """Have sub-runs started as a chord whose body wakes the parent."""
        header = [run_agent.si(None, sub_run=True).set(task_id=run_id) for run_id in run_ids]
        body = continue_run.si(parent_run_id)
        if current_app.backend.supports_native_join:
            chord(header)(body)
        else:
            group(header).apply_async()

    def finished(self, run_id: str) -> None:
        """Publish the end of a run, under the id of the task that began it."""
        publish(runtime().journal.run(run_id))

    def wake(self, run_id: str) -> None:
        """Have somebody look after a run."""
        continue_run.delay(run_id)


_runtimes: dict[int, Runtime] = {}
_making = threading.Lock()


def runtime() -> Runtime:
    """The runtime of this process, made from its configuration at the first call."""
    pid = os.getpid()
    with _making:
        if pid not in _runtimes:
            _runtimes.clear()  # what a fork has copied belongs to the parent
            _runtimes[pid] = configured(load_config(), CeleryOutbox())
        return _runtimes[pid]


def use(made: Runtime) -> None:
    """Use this runtime in this process, in place of the configured one."""
    with _making:
        _runtimes[os.getpid()] = made


@shared_task(
    name="heartbit.run_agent",
    bind=True,
    throws=(HeartbitError,),
    **RELIABLE | {"ignore_result": False},
)
def run_agent(
    self: Task[Any, Any], prompt: Any, *, agent: str | None = None, sub_run: bool = False
) -> Json:
    """Run an agent on a prompt; the result is that of the run, whenever it ends.

    Args:
        prompt: what to do; anything but text is given to the agent as JSON.
        agent: the agent's name; by default whom the routing chooses.
        sub_run: the run was opened by its parent already (heartbit's own).
    """
    here = runtime()
    task_id = str(self.request.id)
    run_id = run_id_of_task(task_id)
    if not sub_run:
        resolved = here.resolve(agent)
        start = RunStarted(
            prompt=prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False),
            definition=resolved.definition,
            blackboard=run_id,
        )
        here.engine.open(RunPlace(run_id=run_id, root_run_id=run_id), start, task_id=task_id)
    here.journal.set_completion(run_id, completion_of(self.request))
    row = here.journal.run(run_id)
    if row.output is not None:
        publish(row)
    else:
        here.engine.resume(run_id)
    raise Ignore


@shared_task(name=LLM_TURN, **RELIABLE)
def llm_turn(run_id: str, step: str) -> None:
    """Do one model turn of a run."""
    runtime().engine.step(run_id, step)


@shared_task(name=TOOL_CALL, **RELIABLE)
def tool_call(run_id: str, step: str) -> None:
    """Do one tool call of a run."""
    runtime().engine.step(run_id, step)


@shared_task(name="heartbit.continue_run", **RELIABLE)
def continue_run(run_id: str) -> None:
    """Send what a run still waits for."""
    runtime().engine.resume(run_id)


class FinishTask(Task[Any, Any]):
    """Notes that the end of a run is published, once its result is stored and its canvas sent."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """The result is out."""
        runtime().journal.complete(args[0])

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """The error is out, which is just as well."""
        runtime().journal.complete(args[0])


@shared_task(
    name="heartbit.finish_run",
    base=FinishTask,
    throws=(RunError,),
    **RELIABLE | {"ignore_result": False},
)
def finish_run(run_id: str) -> Json:
    """Give the result of an ended run as that of the task that began it."""
    row = runtime().journal.run(run_id)
    output = row.output or {}
    if row.parent_run_id is not None:
        return {"run_id": run_id, "status": row.status}
    if row.status != "succeeded":
        raise run_error(output.get("error_code") or "", output.get("error") or row.status)
    return output


def completion_of(request: Any) -> Json:
    """What waits for a task: everything Celery would do at its end."""
    return {
        "task_id": request.id,
        "root_id": request.root_id,
        "parent_id": request.parent_id,
        "chord": request.chord,
        "group_id": request.group,
        "group_index": request.group_index,
        "link": list(request.callbacks or ()),
        "link_error": list(request.errbacks or ()),
        "chain": list(request.chain or ()),
    }


def publish(row: RunRow) -> None:
    """Send `finish_run` in place of the task that began the run, with all that waits for it."""
    if row.completion is None:
        return
    waiting = dict(row.completion)
    signatures = {key: [Signature.from_dict(each) for each in waiting.pop(key)] for key in LINKS}
    finish_run.si(row.run_id).apply_async(
        queue=CONTROL_QUEUE, **waiting, **{k: v or None for k, v in signatures.items()}
    )
