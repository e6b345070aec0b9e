"""Durable runs from outside of any worker: submit, look, decide, cancel.

What is asked for is in the journal before anybody is told: a message that cannot be sent is sent by
the sweep of some worker. Nothing here does a step of a run.
"""

from __future__ import annotations

from heartbit.client.connection import connect, lend, local_config, stream, submit
from heartbit.client.events import RunEvents
from heartbit.client.handle import RunHandle
from heartbit.client.outputs import decode_output, entries_of, only_waits
from heartbit.client.runs import Client

__all__ = [
    "Client",
    "RunEvents",
    "RunHandle",
    "connect",
    "decode_output",
    "entries_of",
    "lend",
    "local_config",
    "only_waits",
    "stream",
    "submit",
]
