"""Documents indexed by the workers of a fleet: a message names a source and a part of it.

Which documents those are, each worker finds out for itself: it has the configuration, and the
files. A part that is done twice is unchanged the second time.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celery import current_app, shared_task
from celery.result import AsyncResult

from heartbit.apps import ensure_app, warn_of_unread
from heartbit.core.messages import Json
from heartbit.engines.plan import TOOL_QUEUE
from heartbit.errors import ConfigError, HeartbitError
from heartbit.knowledge.report import Report
from heartbit.knowledge.sources import Problem
from heartbit.library import Library
from heartbit.loop import background_loop
from heartbit.outbox import CeleryOutbox
from heartbit.providers.http import HttpClient
from heartbit.runtime import load_config
from heartbit.wiring import build_library

INDEX_SOURCE = "heartbit.index_source"
PART_DOCUMENTS = 200
POLL_SECONDS = 0.2
PATIENT_POLLS = 25
"""Nothing after so many: does anybody read the queue?"""

_libraries: dict[int, Library] = {}
_making = threading.Lock()


# Not reject_on_worker_lost: a document that ends its worker would end the next one, too.
@shared_task(
    name=INDEX_SOURCE,
    acks_late=True,
    reject_on_worker_lost=False,
    track_started=False,
    ignore_result=False,
    serializer="json",
    throws=(HeartbitError,),
)
def index_source(source: str | None = None, part: int = 0, parts: int = 1) -> Json:
    """Bring one part of a source up to date, and say what was done.

    Without a source: drop what no source names any more.

    Raises:
        HeartbitError: this worker has no such source, or cannot reach the database.
    """
    index = _library().index
    if source is None:
        return Report(removed=index.remove_gone()).as_json()
    return background_loop().run(index.refresh_part(source, part, max(parts, 1))).as_json()


def _library() -> Library:
    """The library of this process, made at its first use."""
    with _making:
        pid = os.getpid()
        if pid not in _libraries:
            config = load_config()
            if config.knowledge is None:
                raise ConfigError("The configuration of this worker has no [knowledge].")
            _libraries.clear()  # what a fork has copied belongs to the parent
            _libraries[pid] = build_library(config, HttpClient())
        return _libraries[pid]


def index_by_workers(
    counts: Mapping[str, int],
    on_progress: Callable[[int, int], None],
    *,
    sleep: Callable[[float], object] = time.sleep,
) -> Report:
    """Have workers index sources, given with how many documents each has, and wait for them.

    Without a result backend nobody can be waited for: the parts are sent, and the report says that.

    Raises:
        HeartbitError: the broker cannot be reached.
    """
    ensure_app()
    if not CeleryOutbox().reachable():
        raise HeartbitError("The broker cannot be reached, so no worker was asked to index.")
    sent = [
        _send(source, part, parts)
        for source, count in counts.items()
        for parts in [max(math.ceil(count / PART_DOCUMENTS), 1)]
        for part in range(parts)
    ]
    reports = _collected(sent, on_progress, sleep)
    # Last, so that what was new to one worker is not yet missing to another.
    reports += _collected([_send(None)], lambda done, total: None, sleep)
    return sum(reports, _unheard(len(sent)) if _is_deaf() else Report())


def _send(*args: Any) -> AsyncResult[Any]:
    return current_app.send_task(INDEX_SOURCE, args=args, queue=TOOL_QUEUE)


def _collected(
    sent: Sequence[AsyncResult[Any]],
    on_progress: Callable[[int, int], None],
    sleep: Callable[[float], object],
) -> list[Report]:
    if _is_deaf():
        return []
    waiting = list(sent)
    reports: list[Report] = []
    for poll in itertools.count(1):
        if not waiting:
            break
        on_progress(len(sent) - len(waiting), len(sent))
        ready = [each for each in waiting if each.ready()]
        if poll == PATIENT_POLLS and not reports and not ready:
            warn_of_unread(current_app, [TOOL_QUEUE])
        reports += [_report(each) for each in ready]
        waiting = [each for each in waiting if each not in ready]
        if waiting:
            sleep(POLL_SECONDS)
    on_progress(len(sent), len(sent))
    return reports


def _is_deaf() -> bool:
    """Whether no result of a task comes back to this process."""
    return type(current_app.backend).__name__ == "DisabledBackend"


def _unheard(parts: int) -> Report:
    problem = Problem(
        name="the workers",
        message=f"{parts} parts were sent to them; without a result backend nobody hears what "
        "became of them.",
    )
    return Report(problems=(problem,))


def _report(result: AsyncResult[Any]) -> Report:
    answer: Any = result.result
    if result.successful():
        return Report.from_json(answer)
    said = getattr(answer, "message", None) or str(answer)
    problem = Problem(name="a worker", message=f"A part was not indexed: {said}")
    return Report(problems=(problem,), failed=1)
