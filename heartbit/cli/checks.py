"""What `heartbit doctor` looks at: one finding per thing, with the remedy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from heartbit.stores.health import ServerFacts

Level = Literal["ok", "warn", "fail"]

OLDEST_POSTGRES = 14
OLDEST_VECTOR = (0, 7)
OLDEST_REDIS = (6, 2)
CLOCK_SECONDS = 2.0
# Per worker process: the journal's pool, one for leases, those of transactional tools.
CONNECTIONS_PER_PROCESS = 13
SHORT_VISIBILITY_SECONDS = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the doctor; a finding that is not ok says what to do."""

    name: str
    level: Level
    said: str
    remedy: str = ""


def ok(name: str, said: str) -> Finding:
    """Nothing to do."""
    return Finding(name=name, level="ok", said=said)


def warn(name: str, said: str, remedy: str) -> Finding:
    """It works, but not as well as it could."""
    return Finding(name=name, level="warn", said=said, remedy=remedy)


def fail(name: str, said: str, remedy: str) -> Finding:
    """Durable runs do not work like this."""
    return Finding(name=name, level="fail", said=said, remedy=remedy)


def server_findings(facts: ServerFacts) -> Iterable[Finding]:
    """What is to be said of a database server."""
    major = facts.version // 10_000
    if major < OLDEST_POSTGRES:
        remedy = f"Upgrade the server to PostgreSQL {OLDEST_POSTGRES} or newer."
        yield fail("database", f"PostgreSQL {major} is too old", remedy)
    else:
        yield ok("database", f"PostgreSQL {major} answers")
    yield _vector(facts.vector)
    yield _clock(facts.ahead_seconds)
    yield _connections(facts.max_connections, facts.connections)


def _vector(release: str | None) -> Finding:
    needed = ".".join(map(str, OLDEST_VECTOR))
    if release is None:
        remedy = "Install pgvector on the server; it is needed for memory and knowledge only."
        return warn("pgvector", "the server has no pgvector", remedy)
    if numbers(release) < OLDEST_VECTOR:
        return warn("pgvector", f"pgvector {release} is old", f"Upgrade it to {needed} or newer.")
    return ok("pgvector", f"pgvector {release}")


def _clock(ahead: float) -> Finding:
    if abs(ahead) > CLOCK_SECONDS:
        side = "ahead of" if ahead > 0 else "behind"
        said = f"the database's clock is {abs(ahead):.1f} s {side} this machine's"
        return warn("clock", said, "Set the clocks by NTP; leases go by the database's.")
    return ok("clock", f"{abs(ahead):.1f} s from the database's clock")


def _connections(maximum: int, current: int) -> Finding:
    processes = max(0, maximum - current) // CONNECTIONS_PER_PROCESS
    said = f"max_connections = {maximum}: room for {processes} more worker processes"
    if not processes:
        return warn("connections", said, "Raise max_connections, or put pgbouncer in between.")
    return ok("connections", said)


def migration_finding(pending: Sequence[str]) -> Finding:
    """What is to be said of the tables."""
    if pending:
        said = f"not applied: {', '.join(pending)}"
        return fail("migrations", said, "Run `heartbit migrate`.")
    return ok("migrations", "the tables are those of this heartbit")


def redis_findings(version: str, policy: str | None) -> Iterable[Finding]:
    """What is to be said of a Redis server; `policy` is its maxmemory-policy, if it tells."""
    if numbers(version) < OLDEST_REDIS:
        needed = ".".join(map(str, OLDEST_REDIS))
        remedy = f"Upgrade it to {needed} or newer, or use Valkey."
        yield fail("broker", f"Redis {version} is too old", remedy)
    else:
        yield ok("broker", f"Redis {version} answers")
    if policy is None:
        yield warn("eviction", "Redis does not tell its maxmemory-policy", "It must be noeviction.")
    elif policy != "noeviction":
        remedy = "Set maxmemory-policy noeviction: any other one throws messages away."
        yield fail("eviction", f"maxmemory-policy is {policy}", remedy)
    else:
        yield ok("eviction", "maxmemory-policy is noeviction")


def visibility_finding(seconds: float, lease_seconds: float) -> Finding:
    """What is to be said of the time after which Redis hands a message out again."""
    said = f"visibility_timeout is {seconds:g} s, lease_seconds {lease_seconds:g}"
    if seconds < max(SHORT_VISIBILITY_SECONDS, lease_seconds):
        remedy = (
            f"Set it to {SHORT_VISIBILITY_SECONDS} s or more in broker_transport_options: a longer "
            "step is handed out twice, for nothing."
        )
        return warn("visibility", said, remedy)
    return ok("visibility", said)


def worker_findings(
    queues_by_worker: Mapping[str, Sequence[str]], wanted: Sequence[str]
) -> Iterable[Finding]:
    """What is to be said of the workers that answered, and of what they read."""
    if not queues_by_worker:
        yield fail("workers", "no worker answers", "Start one: `celery -A heartbit worker`.")
        return
    yield ok("workers", f"{len(queues_by_worker)} answer: {', '.join(sorted(queues_by_worker))}")
    read = {queue for queues in queues_by_worker.values() for queue in queues}
    if unread := sorted(set(wanted) - read):
        names = ",".join(unread)
        remedy = f"Start a worker with -Q {names}."
        yield fail("queues", f"nobody reads {', '.join(unread)}", remedy)
    else:
        yield ok("queues", f"all {len(wanted)} are read")


def numbers(version: str) -> tuple[int, ...]:
    """`7.2.4` as (7, 2, 4), for comparing; what is no number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
