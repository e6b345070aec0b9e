"""How long the step of a killed worker lies there, with the broker's redelivery far away."""

from __future__ import annotations

from benchmarks.fleet import fleet, services, until
from benchmarks.report import Found
from benchmarks.rig import model_server

LEASE_SECONDS = 15.0
LATENCY_SECONDS = 3.0
ATTEMPT = "select attempt from steps where step = '1/model'"


def measure(lease_seconds: float = LEASE_SECONDS) -> list[Found]:
    """Seconds from the kill of a worker in a model call until another one holds that step."""
    with (
        model_server(LATENCY_SECONDS) as model,
        services() as servers,
        fleet(servers, "takeover", model, lease_seconds=lease_seconds) as made,
    ):
        made.start_worker()
        sent = made.send("turns=1 pad=0")
        until(lambda: made.query("select count(*) from steps where state = 'running'"))
        made.start_worker()
        killed = made.workers.pop(0)
        killed.kill()
        killed.wait()
        start = made.query("select heartbit_now()")
        until(lambda: made.query(ATTEMPT) == 2)
        taken = (made.query("select heartbit_now()") - start).total_seconds()
        made.results([sent])
    return [Found("takeover", lease_seconds, taken, taken - lease_seconds)]
