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
