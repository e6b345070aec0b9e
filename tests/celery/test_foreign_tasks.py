"""The example of tools in another code base, with workers that are processes of their own."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.support.repository import ROOT
from tests.support.workers import addresses, run, worker

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "celery_tools"
SUBMIT = ("-m", "heartbit", "submit", "--wait", "Remind whoever owes us invoice 4711.")
FOUND = '{"number":"4711","customer":"Ada","amount":120.5}'
REFUSED = "ValueError: We never write a strict letter."
UNKNOWN = "The Celery task failed. Nobody was told why"
SENT = "Invoice 4711: a friendly reminder is on its way."


@pytest.mark.parametrize(
    ("backend", "refused"), [({}, REFUSED), ({"CELERY_RESULT_BACKEND": "disabled://"}, UNKNOWN)]
)
def test_an_agent_calls_the_tasks_of_an_app_that_knows_nothing_of_heartbit(
    valkey: str, postgres: str, tmp_path: Path, backend: dict[str, str], refused: str
) -> None:
    """Also of one that keeps no results: only the reason of a failure is lost then."""
    environ = addresses(valkey, postgres, 6, EXAMPLE)
    billing = worker(
        "billing", environ | backend, EXAMPLE, tmp_path / "billing.log", "-Q", "billing", "-c", "1"
    )
    ours = ("-P", "threads", "-c", "4")
    with billing, worker("heartbit", environ, EXAMPLE, tmp_path / "heartbit.log", *ours):
        said = run(*SUBMIT, environ=environ, folder=EXAMPLE)
    assert said.startswith(FOUND)
    assert refused in said
    assert said.endswith(SENT)
    logs = [(tmp_path / f"{name}.log").read_text() for name in ("billing", "heartbit")]
    assert 3 == logs[0].count("received")
    assert "Traceback" not in logs[1]
    with psycopg.connect(postgres) as connection:
        rows = connection.execute("select distinct state from steps").fetchall()
    assert [("done",)] == rows


def test_a_task_that_nobody_works_on_does_not_stop_the_rest(
    valkey: str, postgres: str, tmp_path: Path
) -> None:
    """Without billing's worker: `heartbit run` says why it cannot, and a durable run times out."""
    config = (EXAMPLE / "heartbit.toml").read_text()
    (tmp_path / "heartbit.toml").write_text(
        config.replace("timeout_seconds = 30", "timeout_seconds = 1")
    )
    environ = addresses(valkey, postgres, 6, EXAMPLE)
    ours = ("-P", "threads", "-c", "4")
    with worker("heartbit", environ, tmp_path, tmp_path / "heartbit.log", *ours):
        said = run(*SUBMIT, environ=environ, folder=tmp_path)
    assert 3 == said.count("did not answer within 1 seconds. It may still take effect")
