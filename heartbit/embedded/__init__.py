"""PostgreSQL and Valkey from wheels, as children of this process, for one machine.

Each server has a data directory of its own, a free port on 127.0.0.1 and a random password. It
lives as long as the process that started it: a clean stop, an exception and kill -9 all end it,
and the next start finds the data. Importing this package starts nothing and loads neither wheel.
"""

from __future__ import annotations

from heartbit.embedded.postgres import EmbeddedPostgres
from heartbit.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedValkey"]
