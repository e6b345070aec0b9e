"""The database goes away while a worker has an outcome in its hands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heartbit.core.events import ToolReturned
from tests.support.canvas import until
from tests.support.live_workers import LiveWorkers, live_workers
from tests.support.model_server import Call, Recorded, Reply
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

LEASE_SECONDS = 2


def script(request: Recorded) -> Reply:
    """One call, then the end."""
    first = len(request.json["messages"]) == 1
    return Reply(calls=(Call(name="pay"),)) if first else Reply(text="Done.")


@pytest.fixture
def line(postgres: str) -> Iterator[Proxy]:
    """The workers' way to the database; the test has its own."""
    proxy = Proxy.before(postgres)
    yield proxy
    proxy.close()


@pytest.fixture
def workers(
    tmp_path: Path, postgres: str, valkey: str, line: Proxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LiveWorkers]:
    """No worker yet."""
    with live_workers(tmp_path, postgres, valkey, script) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        made.environment["HEARTBIT_DATABASE_URL"] = line.url(postgres)
        yield made


@pytest.mark.parametrize("steps", ["each", "batched"])
def test_a_payment_made_while_the_database_was_away_is_no_doubt(
    workers: LiveWorkers, line: Proxy, steps: str
) -> None:
    """Its outcome outlives an outage of two leases, though two workers look for lost steps."""
    workers.configure(lease=LEASE_SECONDS, steps=steps)
    workers.start()
    workers.start()
    run = workers.run("pay")
    workers.until(lambda: workers.begun("pay"), "the payment is under way")
    line.refuse()
    workers.let("pay")
    workers.until(lambda: "is kept, it cannot be stored yet" in workers.logs(), "it is kept")
    since = time.monotonic()
    until(lambda: time.monotonic() - since > 2 * LEASE_SECONDS)
    line.mend()
    assert "Done." == run.result(timeout=30).result
    [paid] = [e for e in workers.journal.events(run.id) if isinstance(e, ToolReturned)]
    assert "pay done" == paid.content
    assert 1 == workers.begun("pay")
    assert "has reached the database" in workers.logs()
