"""The blackboard as a model sees it: three tools whose answers carry versions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from heartbit.core.tools import ToolOutput
from heartbit.errors import ToolError
from heartbit.stores.in_memory import InMemoryBlackboard
from heartbit.tools.base import ToolContext
from heartbit.tools.blackboard import BLACKBOARD_TOOLS
from tests.support.json_values import JSON_VALUES

TOOLS = {found.spec.name: found for found in BLACKBOARD_TOOLS}


class Board:
    """A blackboard that is used through its tools."""

    def __init__(self) -> None:
        self.store = InMemoryBlackboard()

    def call(self, name: str, **arguments: Any) -> ToolOutput:
        found = TOOLS[f"blackboard_{name}"]
        Draft202012Validator(found.spec.input_schema).validate(arguments)
        return run(found.call(arguments, ToolContext(blackboard=self.store)))


def run(awaitable: Awaitable[Any]) -> Any:
    async def main() -> Any:
        return await awaitable

    return asyncio.run(main())


def test_the_tools_are_built_in_and_transactional() -> None:
    assert ["blackboard_read", "blackboard_write", "blackboard_list"] == list(TOOLS)
    for name, found in TOOLS.items():
        assert (f"builtin:{name}", "transactional") == (found.spec.ref, found.spec.effect)
        Draft202012Validator.check_schema(found.spec.input_schema)


def test_a_text_is_read_as_plain_text_with_its_version() -> None:
    board = Board()
    assert 'Wrote "note" (version 1).' == board.call("write", key="note", value="a\nb").content
    assert ToolOutput(content='"note" (version 1):\na\nb') == board.call("read", key="note")


def test_other_json_is_read_pretty_printed() -> None:
    board = Board()
    board.call("write", key="k", value={"ä": [1, None]})
    expected = '"k" (version 1):\n{\n  "ä": [\n    1,\n    null\n  ]\n}'
    assert expected == board.call("read", key="k").content


def test_a_null_is_a_value_and_not_a_missing_key() -> None:
    board = Board()
    board.call("write", key="k", value=None)
    assert '"k" (version 1):\nnull' == board.call("read", key="k").content


def test_a_missing_key_is_a_result_that_lists_near_keys() -> None:
    board = Board()
    for key in ("agent:writer", "agent:writer:1", "plan"):
        board.call("write", key=key, value="x")
    got = board.call("read", key="agent:writr")
    expected = 'Key "agent:writr" not found. Did you mean agent:writer or agent:writer:1?'
    assert ToolOutput(content=expected) == got
    far = board.call("read", key="zzz").content
    assert 'Key "zzz" not found. See blackboard_list for the keys there are.' == far


def test_keys_are_listed_in_order() -> None:
    board = Board()
    assert "The blackboard is empty." == board.call("list").content
    board.call("write", key="b", value=1)
    assert "1 key:\n- b" == board.call("list").content
    board.call("write", key="a", value=1)
    assert "2 keys:\n- a\n- b" == board.call("list").content


def test_a_write_under_a_condition_that_holds_is_done() -> None:
    board = Board()
    board.call("write", key="k", value=1, expected_version=0)
    assert (
        'Wrote "k" (version 2).'
        == board.call("write", key="k", value=2, expected_version=1).content
    )


def test_a_write_under_a_condition_that_fails_names_the_current_version_and_value() -> None:
    board = Board()
    board.call("write", key="k", value="first")
    board.call("write", key="k", value="second")
    got = board.call("write", key="k", value="third", expected_version=1)
    assert got.is_error
    assert "is at version 2, not 1; nothing was written." in got.content
    assert got.content.endswith('\n"k" (version 2):\nsecond')
    assert board.call("read", key="k").content.endswith("second")
    missing = board.call("write", key="new", value=1, expected_version=4)
    assert missing.is_error
    assert missing.content.endswith("\nThe key does not exist.")


def test_a_key_no_store_can_keep_is_an_error() -> None:
    for arguments in ({"value": 1}, {"value": 1, "expected_version": 0}):
        with pytest.raises(ToolError, match="1 to 512 bytes"):
            Board().call("write", key="é" * 257, **arguments)


def test_a_run_without_a_blackboard_says_so() -> None:
    for found in BLACKBOARD_TOOLS:
        with pytest.raises(ToolError, match="This run has no blackboard"):
            run(found.call({"key": "k", "value": 1}, ToolContext()))


@given(value=JSON_VALUES)
def test_a_model_reads_back_whatever_json_it_wrote(value: Any) -> None:
    board = Board()
    assert not board.call("write", key="k", value=value).is_error
    header, _, _ = board.call("read", key="k").content.partition("\n")
    assert '"k" (version 1):' == header
    assert (value, 1) == run(board.store.read("k"))


@given(key=st.text(max_size=20))
def test_any_key_is_written_or_refused(key: str) -> None:
    board = InMemoryBlackboard()
    try:
        run(board.write(key, 1))
    except ToolError:
        assert () == run(board.keys())
    else:
        assert (key,) == run(board.keys())
