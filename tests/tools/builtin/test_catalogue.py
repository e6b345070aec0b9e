"""The set of built-in tools as agents, engines and the start of a process see it."""

from __future__ import annotations

import subprocess
import sys

import jsonschema
import pytest

import heartbit.tools.builtin
from heartbit.tools.builtin import BUILTIN, builtin_tool

EFFECTS = {
    "read": "pure",
    "write": "idempotent",
    "edit": "at_most_once",
    "glob": "pure",
    "grep": "pure",
    "list": "pure",
    "bash": "at_most_once",
    "webfetch": "pure",
    "todowrite": "transactional",
    "todoread": "pure",
}


def test_every_tool_declares_its_effect() -> None:
    assert EFFECTS == {name: tool.spec.effect for name, tool in BUILTIN.items()}


@pytest.mark.parametrize("name", EFFECTS)
def test_a_tool_says_where_it_is_found_and_what_it_takes(name: str) -> None:
    spec = builtin_tool(name).spec
    assert (name, f"builtin:{name}") == (spec.name, spec.ref)
    jsonschema.Draft202012Validator.check_schema(spec.input_schema)
    assert spec.input_schema["additionalProperties"] is False
    assert [] == [
        argument
        for argument, schema in spec.input_schema["properties"].items()
        if not schema.get("description")
    ]
    assert len(spec.description) > 20


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        builtin_tool("format_disk")
    with pytest.raises(AttributeError):
        _ = heartbit.tools.builtin.NOTHING


def test_loading_the_tools_loads_nothing_heavy() -> None:
    heavy = ["asyncio", "httpx2", "html", "ssl", "socket", "subprocess", "difflib", "pydantic"]
    program = (
        "import sys; from heartbit.tools.builtin import BUILTIN; len(BUILTIN); "
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "[]\n" == shown.stdout
