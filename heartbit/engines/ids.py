"""Ids that every attempt, on every machine, makes the same."""

from __future__ import annotations

import uuid


def run_id_of_task(task_id: str) -> str:
    """The run of a Celery task: its own id where that is a UUID, else one made of it."""
    try:
        return str(uuid.UUID(task_id))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, task_id))


def sub_run_id(parent_run_id: str, step: str) -> str:
    """The id of the sub-run that `step` of a run starts."""
    return str(uuid.uuid5(uuid.UUID(run_id_of_task(parent_run_id)), step))


def external_task_id(run_id: str, step: str, attempt: int) -> str:
    """The id of the Celery task that a step calls; an attempt that a human orders is another one.

    The first one may have been revoked, and workers remember that.
    """
    again = f"#{attempt}" if attempt else ""
    return str(uuid.uuid5(uuid.UUID(run_id_of_task(run_id)), f"{step}{again}"))
