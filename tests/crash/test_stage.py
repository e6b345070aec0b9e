"""What `heartbit chaos` puts on stage: the agents of any configuration, without their services."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery import _state as celery_state

from heartbit.chaos.program import Order
from heartbit.chaos.stage import Stage, build_stage, read_config
from heartbit.config import load
from tests.support.marks import slow
from tests.support.repository import ROOT

EXAMPLES = ROOT / "examples"
CONFIGS = [*sorted(EXAMPLES.glob("*/heartbit.toml")), ROOT / "heartbit/demo/fleet.toml"]
WITH_SERVERS = [ROOT / "heartbit/demo/demo.toml"]
EVERYTHING = """
[provider]
name = "anthropic"
api_key = "$ANTHROPIC_API_KEY"

[[agents]]
name = "solo"
description = "Does everything."
system_prompt = "Do it."
provider = { name = "openai", model = "m", api_key = "$OPENAI_API_KEY" }

[database]
url = "$DATABASE_URL"

[memory]
type = "postgres"
database_url = "$DATABASE_URL"
embedding = { provider = "openai" }

[knowledge]
sources = [{ type = "file", path = "nothing.md" }]
"""


@pytest.fixture(autouse=True)
def as_the_command(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process of its own: its environment, its Celery app, its modules of an example."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    app = Celery("mine", set_as_current=False)
    monkeypatch.setattr(celery_state, "default_app", app)
    here: Any = celery_state
    monkeypatch.setattr(here._tls, "current_app", app)
    yield
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    for name, file in files.items():
        if file and EXAMPLES in Path(file).parents:
            del sys.modules[name]


def stage_of(path: Path) -> Stage:
    """As the command makes it."""
    return build_stage(read_config(path))


def name_of(path: Path) -> str:
    """For the names of tests."""
    return f"{path.parent.name}-{path.stem}"


@pytest.mark.parametrize("path", [*CONFIGS, *slow(*WITH_SERVERS)], ids=name_of)
def test_the_agents_of_every_example_can_be_put_on_stage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its directory, with nothing set: no key, no database, no broker."""
    monkeypatch.chdir(path.parent)
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    stage = stage_of(path)
    listed = {agent.name for agent in load(path, os.environ).config.agents}
    assert listed == {agent.name for agent in stage.agents} - {"orchestrator"}
    assert any(spec.ref.startswith("chaos:") for spec in stage.tools)


def test_the_examples_are_found() -> None:
    """Without any, the test above would say nothing."""
    assert {"celery_tools", "effects", "host_app"} == {p.parent.name for p in CONFIGS} - {"demo"}


def test_a_celery_task_is_a_stub_that_our_own_workers_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the task's own queue, of which nobody else reads."""
    path = EXAMPLES / "celery_tools/heartbit.toml"
    monkeypatch.chdir(path.parent)
    stage = stage_of(path)
    refs = {spec.name: spec.ref for spec in stage.tools}
    assert {
        "lookup_invoice": "chaos:celery:billing.lookup_invoice",
        "remind": "chaos:celery:billing.remind",
    } == refs
    order = Order(
        directory=path.parent,
        database="",
        broker="",
        stage=stage,
        lease_seconds=1,
        batch_seconds=None,
    )
    assert "billing" in order.queues.split(",")


def test_what_a_configuration_leaves_to_the_environment_need_not_be_there(tmp_path: Path) -> None:
    """Keys and databases are for services that nobody asks."""
    path = tmp_path / "heartbit.toml"
    path.write_text(EVERYTHING)
    stage = stage_of(path)
    assert stage.remembers
    assert "knowledge_search" in {spec.name for spec in stage.tools}


def test_no_server_of_the_environment_is_seen_any_more(tmp_path: Path) -> None:
    """Whatever is imported for the agents finds none either."""
    names = ("HEARTBIT_DATABASE_URL", "CELERY_BROKER_URL", "CELERY_RESULT_BACKEND")
    os.environ |= dict.fromkeys(names, "postgresql://production/precious")
    path = tmp_path / "heartbit.toml"
    path.write_text(EVERYTHING)
    config = read_config(path)
    assert config.database.url is not None
    assert "nothing" in config.database.url.get_secret_value()
    assert [] == [name for name in names if "production" in os.environ[name]]
