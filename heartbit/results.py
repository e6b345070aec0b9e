"""The result backend: Celery's Redis backend, and behind it the journal, which forgets no run.

Counters of chords and the results of all other tasks are in Redis as ever. The result of a run is
there as long as Redis keeps it; after that, or after Redis was emptied, it is read from the journal
by whoever asks. A result above MAX_REDIS_BYTES is never there: Redis holds a note in its place.

An app chooses it by its address, `heartbit.results:RunBackend+redis://host/0`; in heartbit's own
app, `redis://host/0` is enough. Who reads the result of a run needs the database, too.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import states
from celery.backends.redis import (  # type: ignore[attr-defined]
    RedisBackend,
    ResultConsumer,
)

from heartbit import runtime as process
from heartbit.core.messages import Json
from heartbit.engines.ids import run_id_of_task
from heartbit.errors import ConfigError, HeartbitError, RunNotFound, run_error
from heartbit.outbox import FINISH_RUN
from heartbit.stores.journal import RunRow

MAX_REDIS_BYTES = 64 * 1024
NOTE = "heartbit_result_of"

_logger = logging.getLogger("heartbit.results")


class RunResultConsumer(ResultConsumer):  # type: ignore[misc]
    """Hears of results; what was published while the connection was lost is looked up."""

    def _reconnect_pubsub(self) -> None:
        super()._reconnect_pubsub()
        for key in tuple(self.subscribed_to):
            meta = self.backend.meta_of_run(self.backend.task_of(key))
            if meta is not None:
                self.on_state_change(meta, None)


class RunBackend(RedisBackend):
    """Results in Redis, results of runs in the journal when Redis does not have them."""

    ResultConsumer = RunResultConsumer

    def get_task_meta(self, task_id: str, cache: bool = True) -> Json:
        """What is known of a task: from Redis, else from the journal."""
        meta: Json = super().get_task_meta(task_id, cache=cache)
        if meta["status"] != states.PENDING:
            return meta
        return self.meta_of_run(task_id) or meta

    def mget(self, keys: Any) -> Any:
        """The stored results of many tasks, in their order."""
        found = super().mget(keys)
        return [value or self._encoded_run(key) for key, value in zip(keys, found, strict=True)]

    def task_of(self, key: Any) -> str:
        """The id of the task whose result is under a key."""
        return str(self._strip_prefix(key))  # type: ignore[attr-defined]

    def meta_of_run(self, task_id: str) -> Json | None:
        """What the journal says of the run that a task began; None if it has not ended there."""
        row = _ended_run(task_id)
        if row is None or row.output is None:
            return None
        failed = row.status != "succeeded" and row.parent_run_id is None
        return {
            "task_id": task_id,
            "status": states.FAILURE if failed else states.SUCCESS,
            "result": _error_of(row) if failed else _result_of(row),
            "traceback": None,
            "children": [],
            "date_done": row.finished_at.isoformat() if row.finished_at else None,
        }

    def decode_result(self, payload: Any) -> Json:
        """A stored result; where there is a note, it is read from the journal."""
        meta: Json = super().decode_result(payload)
        meta["result"] = _without_note(meta["result"])
        return meta

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any
    ) -> Any:
        """Count a member of a chord; a large result is not put beside the counter."""
        noted = self._noted(result, request)
        return super().on_chord_part_return(request, state, noted, propagate, **kwargs)

    def _unpack_chord_result(self, tup: Any, decode: Any, *args: Any, **kwargs: Any) -> Any:
        base: Any = super()
        return _without_note(base._unpack_chord_result(tup, decode, *args, **kwargs))

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        noted = self._noted(result, request)
        base: Any = super()
        base._store_result(task_id, noted, state, traceback, request, **kwargs)
        return result

    def _noted(self, result: Any, request: Any) -> Any:
        """The result of a run, or a note in place of one that is too large for Redis."""
        if request is None or getattr(request, "task", None) != FINISH_RUN:
            return result
        if not isinstance(result, dict) or "run_id" not in result:
            return result
        too_large = len(self.encode(result)) > MAX_REDIS_BYTES
        return {NOTE: result["run_id"]} if too_large else result

    def _encoded_run(self, key: Any) -> Any:
        meta = self.meta_of_run(self.task_of(key))
        if meta is None:
            return None
        if meta["status"] == states.FAILURE:
            meta["result"] = self.prepare_exception(meta["result"])
        return self.encode(meta)


def _ended_run(task_id: str) -> RunRow | None:
    """The row of a run, if there is one; without a database only Redis can be asked."""
    try:
        row = process.journal().run(run_id_of_task(task_id))
    except (RunNotFound, ConfigError):
        return None
    except HeartbitError as error:
        _logger.warning("The journal cannot be asked for a result: %s", error.message)
        return None
    return row if row.task_id == task_id else None


def _error_of(row: RunRow) -> Exception:
    output = row.output or {}
    return run_error(output.get("error_code") or "", output.get("error") or row.status)


def _result_of(row: RunRow) -> Json | None:
    if row.parent_run_id is not None:
        return {"run_id": row.run_id, "status": row.status}
    return row.output


def _without_note(result: Any) -> Any:
    """A result, from the journal if it is a note.

    Raises:
        ConfigError: this process knows no database.
        JournalError: the database cannot be asked.
    """
    if not (isinstance(result, dict) and set(result) == {NOTE}):
        return result
    return process.journal().run(result[NOTE]).output
