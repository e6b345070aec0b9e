"""Tools found by reference, with a person's options, under names no two of them share."""

from __future__ import annotations

import asyncio
import pickle
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.messages import Json
from heartbit.core.schema import violations
from heartbit.core.tools import RESERVED, ToolOutput, ToolSpec
from heartbit.errors import ConfigError
from heartbit.tools.base import BoundTool, Tool, ToolContext
from heartbit.tools.function import FunctionTool, tool
from heartbit.tools.registry import (
    ToolOptions,
    load_tool,
    own_tools,
    unique_names,
    with_options,
    with_spec,
)
from heartbit.tools.spec import safe_name

MODULE = """
from heartbit.tools.function import tool

@tool(effect="pure")
def decorated(number: int) -> int:
    return number + 1

renamed = tool(name="other")(lambda: "renamed")

def plain(number: int) -> int:
    return number + 2

def without_hints(number): ...

class Box:
    @staticmethod
    def inner() -> str:
        return "inner"

class CeleryTask:
    name = "billing.lookup"
    def apply_async(self): ...

lookup = CeleryTask()
settings = {}
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a package, which is gone from the interpreter afterwards."""
    package = tmp_path / "shop_for_tests"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tools.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.startswith("shop_for_tests")]:
        del sys.modules[name]


def call(found: Tool, **arguments: Any) -> ToolOutput:
    return asyncio.run(found.call(arguments, ToolContext()))


def bound(name: str, ref: str = "mcp:x#y") -> BoundTool:
    """A tool that answers with its reference."""

    async def run(_: Json, __: ToolContext) -> ToolOutput:
        return ToolOutput(content=ref)

    spec = ToolSpec(name=name, description="", input_schema={"type": "object"}, ref=ref)
    return BoundTool(spec=spec, run=run)


@pytest.mark.usefixtures("directory")
def test_a_reference_finds_a_tool_of_the_working_directory() -> None:
    before = list(sys.path)
    found = load_tool("shop_for_tests.tools:decorated")
    assert ("decorated", "pure") == (found.spec.name, found.spec.effect)
    assert "2" == call(found, number=1).content
    assert before == sys.path


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("name", ["decorated", "renamed", "plain", "Box.inner"])
def test_the_ref_of_a_loaded_tool_finds_it_again(name: str) -> None:
    found = load_tool(f"shop_for_tests.tools:{name}")
    assert f"python:shop_for_tests.tools:{name}" == found.spec.ref
    assert found == load_tool(found.spec.ref)
    assert 1 == len({found, load_tool(found.spec.ref)})
    assert found != with_options(found, ToolOptions(name=name, queue="other"))


@pytest.mark.usefixtures("directory")
def test_a_function_that_was_never_decorated_is_an_at_most_once_tool() -> None:
    found = load_tool("shop_for_tests.tools:plain")
    assert ("plain", "at_most_once") == (found.spec.name, found.spec.effect)
    assert "3" == call(found, number=1).content


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("decorated", "Tool decorated: write module:attribute, for example myapp.tools:book_room"),
        ("a:b:c", "write module:attribute"),
        (":", "write module:attribute"),
        ("shop_for_tests.tools:", "write module:attribute"),
        ("..:x", "importing .. failed"),
        ("missing_for_tests.tools:x", "there is no module missing_for_tests, neither installed"),
        ("shop_for_tests.tool:x", "there is no module shop_for_tests.tool, neither installed"),
        ("shop_for_tests.tools.more:x", "there is no module shop_for_tests.tools.more, neither"),
        (
            "shop_for_tests.tools:decorate",
            "shop_for_tests.tools has no attribute decorate. Did you mean decorated?",
        ),
        ("shop_for_tests.tools:Box.outer", "has no attribute Box.outer."),
        (
            "shop_for_tests.tools:settings",
            "it is a dict, not a tool; write a function with type hints and decorate it with "
            "@heartbit.tool",
        ),
        ("shop_for_tests.tools:Box", "it is a class, not a tool"),
        ("shop_for_tests.tools:without_hints", "give the parameter number a type hint"),
        ("shop_for_tests.tools:lookup", "it is a Celery task; write celery:billing.lookup."),
        (
            "celery:billing.lookup",
            "Celery tasks are tools of durable runs only, because somebody has to wait for their "
            "answers; start the run with `heartbit submit`.",
        ),
    ],
)
def test_a_reference_that_leads_nowhere_says_what_is_wrong(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load_tool(reference)
    assert caught.value.message.startswith(f"Tool {reference}: ")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nowhere_for_tests", "importing {} failed: ModuleNotFoundError: No module named"),
        ("1 / 0", "importing {} failed: ZeroDivisionError: division by zero"),
        ("def", "importing {} failed: SyntaxError"),
        ("raise SystemExit(2)", "importing {} failed: SystemExit: 2"),
        (
            "from heartbit.tools.function import tool\n@tool\ndef f(*names: str): ...",
            "Tool f: *names cannot be described to a model",
        ),
    ],
)
def test_a_module_that_cannot_be_imported_is_no_traceback(
    directory: Path, source: str, message: str
) -> None:
    (directory / "broken.py").write_text(source)
    module = "shop_for_tests.broken"
    with pytest.raises(ConfigError, match=re.escape(message.format(module))):
        load_tool(f"{module}:f")


async def coroutine() -> None: ...
def plain() -> None: ...


def test_options_replace_only_what_they_set() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    found = bound("lookup")
    options = ToolOptions(
        name="lookup",
        queue="slow",
        timeout_seconds=5,
        effect="pure",
        on_doubt="ask_human",
        input_schema=schema,
    )
    expected = replace(
        found.spec,
        queue="slow",
        timeout_seconds=5,
        effect="pure",
        on_doubt="ask_human",
        input_schema=schema,
    )
    changed = with_options(found, options)
    assert expected == changed.spec
    assert "mcp:x#y" == call(changed).content
    assert found is with_options(found, ToolOptions(name="lookup"))


def test_options_of_a_function_tool_leave_it_a_function_tool() -> None:
    found = tool(plain)
    changed = with_options(found, ToolOptions(name="plain", effect="transactional"))
    assert isinstance(changed, FunctionTool)
    assert ("transactional", "at_most_once") == (changed.spec.effect, found.spec.effect)


@pytest.mark.parametrize("found", [tool(coroutine), bound("remote")])
def test_no_option_makes_a_tool_transactional_that_cannot_be(found: Tool) -> None:
    with pytest.raises(ConfigError, match="effect = transactional is for plain def functions only"):
        with_options(found, ToolOptions(name="x", effect="transactional"))
    already = with_spec(found, replace(found.spec, effect="transactional"))
    assert with_options(already, ToolOptions(name="x", effect="transactional", queue="q"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effect": "sometimes"}, "effect is 'sometimes'"),
        ({"on_doubt": "panic"}, "on_doubt is 'panic'"),
        ({"timeout_seconds": -1}, "timeout_seconds must be greater than 0"),
        ({"input_schema": {"type": "objekt"}}, "input_schema is not usable: "),
        ({"input_schema": {"type": "array"}}, 'input_schema is not usable: its type must be "obj'),
    ],
)
def test_an_option_with_a_wrong_value_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"Tool lookup: {message}"):
        with_options(bound("lookup"), ToolOptions(name="lookup", **options))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("read_file", "read_file"),
        ("Read-File2", "Read-File2"),
        ("files.read", "files_read"),
        ("files/read me", "files_read_me"),
        ("", "_e3b0c442"),
        ("suche_für", "suche_f_r_ba21523d"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 55 + "_9537c5fd"),
    ],
)
def test_a_safe_name_is_readable_and_the_same_in_every_process(name: str, expected: str) -> None:
    assert expected == safe_name(name)


@given(name=st.text(max_size=100))
def test_every_name_becomes_one_that_providers_take(name: str) -> None:
    safe = safe_name(name)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", safe)
    assert safe == safe_name(safe)


def names(groups: list[tuple[str, list[BoundTool]]]) -> list[str]:
    return [found.spec.name for found in unique_names(groups)[0]]


def test_names_that_do_not_collide_stay_as_they_are() -> None:
    groups = [("", [bound("read")]), ("files", [bound("list"), bound("search")])]
    tools, warnings = unique_names(groups)
    assert ["read", "list", "search"] == [found.spec.name for found in tools]
    assert [] == warnings
    assert groups[0][1][0] is tools[0]


def test_a_collision_between_sources_is_prefixed_whatever_their_order() -> None:
    files, web = ("files", [bound("search", "f")]), ("web", [bound("search", "w"), bound("get")])
    assert ["files_search", "web_search", "get"] == names([files, web])
    assert ["web_search", "get", "files_search"] == names([web, files])
    assert ["f", "w"] == [call(found).content for found in unique_names([files, web])[0]][:2]


def test_a_source_without_a_prefix_keeps_its_names() -> None:
    assert ["files_read", "read"] == names([("files", [bound("read")]), ("", [bound("read")])])


def test_a_prefixed_name_never_takes_that_of_another_tool() -> None:
    groups = [
        ("a", [bound("b_c"), bound("x")]),
        ("a_b", [bound("c"), bound("x")]),
        ("", [bound("b_c"), bound("c"), bound("a_x")]),
    ]
    assert ["a_b_c", "a_x_2", "a_b_c_2", "a_b_x", "b_c", "c", "a_x"] == names(groups)


def test_a_repeated_name_of_one_source_is_left_out_with_a_warning() -> None:
    tools, warnings = unique_names([("s", [bound("read", "one"), bound("read", "two")])])
    assert ["one"] == [call(found).content for found in tools]
    assert ["Tool two is left out: one is called read, too, and comes first."] == warnings


@pytest.mark.parametrize("name", [*sorted(RESERVED), "delegate.task"])
def test_a_name_heartbit_uses_itself_is_refused(name: str) -> None:
    tools, warnings = unique_names([("s", [bound(name, "mcp:s#t")])])
    assert [] == tools
    assert [f"Tool mcp:s#t is left out: {safe_name(name)} is heartbit's own."] == warnings


@given(
    groups=st.lists(
        st.tuples(
            st.sampled_from(["", "a", "a_b", "ä", "x" * 64]),
            st.lists(st.sampled_from(["b", "c", "b_c", "a_b", "b.c", "b_2", "y" * 70])),
        ),
        max_size=5,
    )
)
def test_names_are_always_unique_and_no_tool_is_lost_without_a_warning(
    groups: list[tuple[str, list[str]]],
) -> None:
    tools, warnings = unique_names([(prefix, [bound(n) for n in each]) for prefix, each in groups])
    got = [found.spec.name for found in tools]
    assert len(got) == len(set(got))
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in got)
    assert sum(len(each) for _, each in groups) == len(tools) + len(warnings)


def test_a_spec_can_be_sent_to_another_process_after_it_was_used() -> None:
    """What was worked out from it stays here."""
    spec = own_tools()["blackboard_write"].spec
    assert not violations(spec, {"key": "k", "value": 1})
    there = pickle.loads(pickle.dumps(spec))
    assert (spec, {}) == (there, there.memo)
