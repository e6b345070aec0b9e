"""Every script of the core through Celery and PostgreSQL: the same journal as in one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import _state

from heartbit import runtime as process
from heartbit.loop import stop_background_loop
from tests.engines.scripts import SCRIPTS
from tests.support import canvas
from tests.support.durable import DurableEngineUnderTest
from tests.support.engines import standalone
from tests.support.parity import Script, canonical, canonical_memories, canonical_requests
from tests.support.shared_postgres import delete_all_rows

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[None, 60.0], ids=["each", "batched"])
def _worker(
    request: pytest.FixtureRequest, valkey_server: str, _postgres_database: str
) -> Iterator[DurableEngineUnderTest]:
    app = canvas.host_app(valkey_server)
    app.set_current()
    state: Any = _state
    try:
        with canvas.worker(app):
            yield DurableEngineUnderTest(app, _postgres_database, request.param)
    finally:
        process.close()
        stop_background_loop()
        forget_results(app)
        app.close()
        state._tls.current_app = state.default_app = None


def forget_results(app: Any) -> None:
    """Nobody asked for the results of the chords that this process has sent: stop listening."""
    consumer = app.backend.result_consumer
    consumer.stop()
    consumer._pubsub = None


@pytest.fixture
def durable(
    _worker: DurableEngineUnderTest, valkey_server: str, _postgres_database: str
) -> DurableEngineUnderTest:
    """The durable engine on empty servers."""
    delete_all_rows(_postgres_database)
    with redis.Redis.from_url(valkey_server) as client:
        client.flushdb()
    return _worker


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_durable_engine_writes_the_journal_of_the_standalone_one(
    durable: DurableEngineUnderTest, script: Script
) -> None:
    """The same multiset of events in every journal of the tree, the same requests."""
    expected, got = standalone(script), durable(script)
    script.expect(got)
    assert expected.journals.keys() == got.journals.keys()
    for place, events in expected.journals.items():
        assert canonical(events) == canonical(got.journals[place]), place
    assert canonical_requests(expected.asked) == canonical_requests(got.asked)
    assert canonical_memories(expected.remembered) == canonical_memories(got.remembered)
