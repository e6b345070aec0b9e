"""A worker whose broker went away while its messages were unanswered."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery.exceptions import Ignore
from kombu import Connection

from heartbit.consumer import Consumer, described


@pytest.fixture
def lost(valkey: str) -> Any:
    """A channel of Redis whose connection is closed, as kombu leaves it after an outage."""
    connection = Connection(valkey)
    channel = connection.default_channel
    connection.release()
    return channel


@pytest.fixture
def consumer() -> Any:
    """The part of a consumer that acknowledges; nothing is started."""
    made: Any = object.__new__(Consumer)
    made.hub = None
    return made


def test_a_channel_that_kombu_has_closed_fails_in_a_way_that_nobody_expects(lost: Any) -> None:
    """Once it does not any more, heartbit.consumer can go."""
    with pytest.raises(AttributeError, match="NoneType"):
        lost.basic_ack("tag")


def test_a_message_of_a_lost_connection_is_one_line_in_the_log(
    lost: Any, consumer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """And not the end of the worker."""
    consumer.call_soon_ack(lost.basic_ack, "tag")
    [record] = caplog.records
    assert "its copy will be dropped" in record.getMessage()
    assert None is record.exc_info


def test_a_connection_that_cannot_be_let_go_of_is_one_line_in_the_log(
    lost: Any, consumer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The consumer goes on, and connects again."""

    class Unreleasable:
        connection_errors = channel_errors = (ConnectionError,)

        def collect(self, socket_timeout: float) -> None:
            """What is open is forgotten."""

        def close(self) -> None:
            lost.basic_ack("tag")

    consumer.connection = Unreleasable()
    consumer.on_connection_error_after_connected(ConnectionError("refused"))
    assert any("the sweep finds what they were about" in r.getMessage() for r in caplog.records)
    assert None is consumer.connection


def raised(error: Exception) -> tuple[type[Exception], Exception, Any]:
    """What is known of an exception that a task ended with."""
    try:
        raise error
    except type(error):
        return type(error), error, error.__traceback__


def test_a_task_that_ends_with_ignore_is_described_without_a_traceback() -> None:
    """And the description travels from a child process as Celery's own does."""
    told = pickle.loads(pickle.dumps(described(raised(Ignore("later")), internal=True)))
    assert isinstance(told, ExceptionInfo)
    assert (Ignore, None, "", True) == (told.type, told.tb, told.traceback, told.internal)
    assert "Ignore('later')" == repr(told.exception)


def test_every_other_exception_is_described_by_celery() -> None:
    """With its traceback."""
    told = described(raised(ValueError("wrong")))
    assert "in raised" in str(told.traceback)
    assert "ValueError: wrong" in str(told.traceback)
