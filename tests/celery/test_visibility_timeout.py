"""A message whose step is at work stays invisible in Redis, however short the timeout is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from heartbit.visibility import Visibility
from tests.support.canvas import until
from tests.support.live_workers import live_workers
from tests.support.model_server import Call, Recorded, Reply

LONG_AGO = 1_000_000_000.0
Maker = Callable[..., Visibility]


@pytest.fixture
def client(valkey: str) -> Iterator[redis.Redis]:
    """What kombu keeps about deliveries, empty."""
    with redis.Redis.from_url(valkey) as made:
        yield made


@pytest.fixture
def make(valkey: str) -> Iterator[Maker]:
    """Visibility for an app with these transport options."""
    apps: list[Celery] = []

    def made(broker: str = valkey, **options: Any) -> Visibility:
        app = Celery("tests", broker=broker, set_as_current=False)
        app.conf.broker_transport_options = options
        apps.append(app)
        return Visibility(app)

    yield made
    for app in apps:
        app.close()


def test_only_messages_of_steps_at_work_are_kept(client: redis.Redis, make: Maker) -> None:
    """One that was acknowledged meanwhile does not come back, and others keep their time."""
    client.zadd("unacked_index", {"mine": LONG_AGO, "another": LONG_AGO})
    visibility = make()
    with visibility.keep("mine"), visibility.keep("acknowledged"):
        visibility.renew()
    client.zadd("unacked_index", {"done": LONG_AGO})
    with visibility.keep("done"):
        pass
    visibility.renew()
    visibility.stop()
    assert 3 == client.zcard("unacked_index")
    assert time.time() - 60 < (client.zscore("unacked_index", "mine") or 0)
    assert [LONG_AGO] * 2 == [client.zscore("unacked_index", each) for each in ("another", "done")]


def test_keys_with_a_prefix_are_found(client: redis.Redis, make: Maker) -> None:
    """Two fleets may share a Redis."""
    client.zadd("fleet:unacked_index", {"mine": LONG_AGO})
    visibility = make(global_keyprefix="fleet:")
    with visibility.keep("mine"):
        visibility.renew()
    visibility.stop()
    assert LONG_AGO < (client.zscore("fleet:unacked_index", "mine") or 0)


def test_a_thread_keeps_messages_four_times_per_timeout(client: redis.Redis, make: Maker) -> None:
    """It begins with the first step."""
    client.zadd("unacked_index", {"mine": LONG_AGO})
    visibility = make(visibility_timeout=0.2)
    with visibility.keep("mine"):
        until(lambda: LONG_AGO < (client.zscore("unacked_index", "mine") or 0))
    visibility.stop()


def test_a_broker_that_is_away_is_a_line_in_the_log(
    make: Maker, caplog: pytest.LogCaptureFixture
) -> None:
    """The journal drops the copies that may come."""
    visibility = make("redis://127.0.0.1:1/0", retry_on_timeout=False)
    with visibility.keep("mine"):
        visibility.renew()
    visibility.stop()
    assert "Long steps may be delivered a second time" in caplog.text


def test_other_brokers_know_by_themselves_who_is_at_work(make: Maker) -> None:
    """Nothing is started, and a message without a tag is nobody's."""
    for visibility in (make("memory://"), make()):
        with visibility.keep("tag" if visibility._app.conf.broker_url == "memory://" else None):
            assert None is visibility._thread


def script(request: Recorded) -> Any:
    """One long call."""
    first = len(request.json["messages"]) == 1
    return Reply(calls=(Call(name="look"),)) if first else Reply(text="Done.")


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_step_longer_than_the_visibility_timeout_is_delivered_once(
    tmp_path: Path, postgres: str, valkey: str, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    """Another worker, which would get the copy, hears nothing of it for three timeouts."""
    options = {"visibility_timeout": 2, "unacked_restore_interval": 0.5}
    with live_workers(tmp_path, postgres, valkey, script) as workers:
        workers.configure(
            broker_transport_options=options | {"unacked_restore_throttle": 1},
        )
        for name, value in workers.environment.items():
            monkeypatch.setenv(name, value)
        workers.start(pool, 2)
        run = workers.run("look")
        workers.until(lambda: workers.begun("look"), "the call is at work")
        since = time.monotonic()
        workers.start(pool, 2)
        until(lambda: time.monotonic() - since > 6)
        assert 1 == workers.received("heartbit.tool_call")
        workers.let("look")
        assert "Done." == run.result(timeout=20).result
        assert 1 == workers.begun("look")
