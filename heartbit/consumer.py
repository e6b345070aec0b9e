"""Celery's consumer, made to live through a broker that goes away while messages are unanswered.

Celery itself imports this module, in a worker only, because `worker_consumer` names it.
"""

from __future__ import annotations

import logging

from celery.worker.consumer import Consumer as CeleryConsumer

_logger = logging.getLogger("heartbit.worker")


class Consumer(CeleryConsumer):
    """Tries to connect again whatever happens while a lost connection is let go of."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let go of the connection; what it still had to hand back comes from the journal.

        kombu closes a channel of Redis twice if the server refuses connections by then. The second
        time it looks for the address of a connection that it has forgotten, and the AttributeError
        of that would end the worker.
        """
        try:
            super().on_connection_error_after_connected(exc)
        except AttributeError as error:
            _logger.warning(
                "Messages under way when the broker was lost could not be handed back (%s): the "
                "sweep finds what they were about.",
                error,
            )
