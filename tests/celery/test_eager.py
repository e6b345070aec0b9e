"""Under `apply()` and task_always_eager a run needs no worker, no broker and no database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.repository import ROOT
from tests.surfaces.test_celery_app import python

PROGRAM = """
import celery
from heartbit.tasks import run_agent
app = celery.Celery("host", broker="redis://127.0.0.1:1/0", backend="cache+memory://")
"""


@pytest.fixture
def _config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two agents with a scripted model that fails on demand."""
    (tmp_path / "script_of_test.py").write_text(
        "from heartbit import ToolContext, tool\n"
        "from heartbit.providers.scripted import call\n"
        "@tool(effect='pure')\n"
        "def who(context: ToolContext) -> str:\n"
        "    'Tells.'\n"
        "    return f'{context.user_id} of {context.tenant_id}'\n"
        "def reply(request):\n"
        "    text = request.messages[0].text\n"
        "    if text == 'fail':\n"
        "        from heartbit.errors import InvalidRequest\n"
        "        raise InvalidRequest('told to')\n"
        "    if text == 'who' and len(request.messages) == 1:\n"
        "        return call('who')\n"
        "    if text == 'who':\n"
        "        return request.messages[-1].parts[0].content\n"
        "    return f'{request.system} {text}'\n"
    )
    (tmp_path / "heartbit.toml").write_text(
        '[provider]\nname = "scripted"\nmodel = "script_of_test:reply"\n'
        '[[agents]]\nname = "a"\ndescription = "."\nsystem_prompt = "A"\n'
        '[[agents]]\nname = "b"\ndescription = "."\nsystem_prompt = "B"\n'
        'tools = ["script_of_test:who"]\n'
    )
    monkeypatch.setenv("HEARTBIT_CONFIG", str(tmp_path / "heartbit.toml"))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")


pytestmark = pytest.mark.usefixtures("_config")


def test_apply_runs_here() -> None:
    """With the agent that was named."""
    code = "print(run_agent.apply(('hi',), {'agent': 'b'}).get()['result'])"
    assert "B hi" == python(PROGRAM + code)


def test_tools_are_told_for_whom_they_work_here_too() -> None:
    """As those of a durable run are."""
    whose = "{'agent': 'b', 'tenant_id': 'acme', 'user_id': 'ann', 'priority': 3}"
    code = f"print(run_agent.apply(('who',), {whose}).get()['result'])"
    assert "ann of acme" == python(PROGRAM + code)


@pytest.mark.slow
def test_a_direct_call_runs_here() -> None:
    """As of any Celery task."""
    assert "A hi" == python(PROGRAM + "print(run_agent('hi', agent='a')['result'])")


@pytest.mark.slow
def test_always_eager_runs_a_whole_chain_here() -> None:
    """For the tests of a host application."""
    code = (
        "app.conf.task_always_eager = True\n"
        "@app.task\n"
        "def text(output): return output['result']\n"
        "made = celery.chain(run_agent.s('hi', agent='a'), text.s(), run_agent.s(agent='b'))()\n"
        "print(made.get()['result'])"
    )
    assert "B A hi" == python(PROGRAM + code)


def test_a_run_that_fails_here_raises_its_error() -> None:
    """The same error as from a worker."""
    code = "print(repr(run_agent.apply(('fail',), {'agent': 'a'}).result))"
    assert "ModelCallFailed" in python(PROGRAM + code)
