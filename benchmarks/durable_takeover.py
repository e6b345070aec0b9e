"""How long the step of a killed worker lies there, with the broker's redelivery far away."""

from __future__ import annotations

from benchmarks.fleet import fleet, services, until
from benchmarks.report import Found
from benchmarks.rig import model_server

LEASE_SECONDS = 15.0
LATENCY_SECONDS = 3.0
OWNER = "select split_part(lease_owner, ':', 2) from steps where state = 'running'"
TAKEN_OVER = "select attempt > 1 from steps where step = '1/model'"
NOW = "select heartbit_now()"


def measure(lease_seconds: float = LEASE_SECONDS) -> list[Found]:
    """Seconds from the kill of a worker in a model call until another one holds that step."""
    with (
        model_server(LATENCY_SECONDS) as model,
        services() as servers,
        fleet(servers, "takeover", model, lease_seconds=lease_seconds) as made,
    ):
        workers = {made.start_worker().pid: made.workers[-1] for _ in range(2)}
        sent = made.send("turns=1 pad=0")
        killed = workers[int(until(lambda: made.query(OWNER)))]
        killed.kill()
        killed.wait()
        made.workers.remove(killed)
        start = made.query(NOW)
        until(lambda: made.query(TAKEN_OVER))
        taken = (made.query(NOW) - start).total_seconds()
        made.results([sent])
    return [Found("takeover", lease_seconds, taken, taken - lease_seconds)]
