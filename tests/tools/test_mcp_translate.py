"""What an MCP server says, in heartbit's words: descriptions, effects and results."""

from __future__ import annotations

import mcp_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.tools.mcp.server import McpServer
from heartbit.tools.mcp.translate import listed_tool, tool_output, tool_spec

SERVER = McpServer("https://key@example.org/mcp")


@pytest.mark.parametrize(
    ("hints", "effect"),
    [
        (None, "at_most_once"),
        (types.ToolAnnotations(), "at_most_once"),
        (types.ToolAnnotations(read_only_hint=True), "pure"),
        (types.ToolAnnotations(read_only_hint=True, idempotent_hint=True), "pure"),
        (types.ToolAnnotations(idempotent_hint=True), "idempotent"),
        (types.ToolAnnotations(read_only_hint=False, destructive_hint=False), "at_most_once"),
    ],
)
def test_annotations_decide_the_effect(hints: types.ToolAnnotations | None, effect: str) -> None:
    """A tool that promises nothing must not be repeated blindly."""
    tool = types.Tool(name="t", input_schema={"type": "object"}, annotations=hints)
    assert effect == tool_spec(SERVER, tool).effect


def test_a_tool_without_a_description_has_an_empty_one() -> None:
    """And a name no provider takes is made one, the server's own kept in the reference."""
    spec = tool_spec(SERVER, types.Tool(name="files.read", input_schema={"type": "object"}))
    assert "" == spec.description
    assert "files_read" == spec.name
    assert "mcp:https://example.org/mcp#files.read" == spec.ref


@pytest.mark.parametrize(
    ("raw", "schema"),
    [
        ({"name": "t"}, {"type": "object"}),
        ({"name": "t", "inputSchema": None}, {"type": "object"}),
        ({"name": "t", "inputSchema": True}, {"type": "object"}),
        ({"name": "t", "inputSchema": {}}, {"type": "object"}),
        (
            {"name": "t", "inputSchema": {"properties": {"a": {}}}},
            {"type": "object", "properties": {"a": {}}},
        ),
    ],
)
def test_a_missing_schema_is_that_of_any_object(raw: dict[str, object], schema: object) -> None:
    """One careless tool must not cost the others."""
    assert {"name": "t", "inputSchema": schema} == listed_tool(raw)


def test_texts_are_joined_by_newlines() -> None:
    """In the order of the server."""
    parts = [types.TextContent(text="eins\n"), types.TextContent(text="zwei ✓")]
    assert "eins\n\nzwei ✓" == tool_output(types.CallToolResult(content=[*parts])).content


def test_structured_content_is_used_only_when_there_is_no_text() -> None:
    """Servers send it beside a text that says the same."""
    text = types.TextContent(text="{}")
    image = types.ImageContent(data="AAAA", mime_type="image/png")
    both = types.CallToolResult(content=[text], structured_content={"a": "ü"})
    alone = types.CallToolResult(content=[image], structured_content={"a": "ü"})
    assert "{}" == tool_output(both).content
    assert '[image: image/png, 3 bytes]\n{"a": "ü"}' == tool_output(alone).content


def test_a_failure_of_the_tool_is_an_error_output() -> None:
    """The model may react to it."""
    result = types.CallToolResult(content=[types.TextContent(text="no")], is_error=True)
    assert tool_output(result).is_error


@given(st.binary(max_size=100))
def test_placeholders_give_the_size_of_the_decoded_bytes(data: bytes) -> None:
    """Not of their base64."""
    import base64

    part = types.ImageContent(data=base64.b64encode(data).decode(), mime_type="image/png")
    content = tool_output(types.CallToolResult(content=[part])).content
    assert f"[image: image/png, {len(data)} bytes]" == content
