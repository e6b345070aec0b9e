"""What a server says, in our words: its tools as specs, its results as outputs. Pure functions."""

from __future__ import annotations

import json

import mcp_types

from heartbit.core.messages import Json
from heartbit.core.tools import Effect, ToolOutput, ToolSpec
from heartbit.tools.mcp.server import McpServer
from heartbit.tools.spec import safe_name


def tool_spec(server: McpServer, tool: mcp_types.Tool) -> ToolSpec:
    """The tool as the model sees it. Its annotations are believed: use servers you trust."""
    return ToolSpec(
        name=safe_name(tool.name),
        description=tool.description or "",
        input_schema=tool.input_schema,
        ref=f"{server.ref}#{tool.name}",
        effect=_effect(tool.annotations),
    )


def listed_tool(raw: Json) -> Json:
    """A tool as servers really list them, with the object schema that the protocol demands."""
    schema = raw.get("inputSchema")
    return {**raw, "inputSchema": {"type": "object", **(schema if type(schema) is dict else {})}}


def tool_output(result: mcp_types.CallToolResult) -> ToolOutput:
    """All text, part by part; what is no text is named with its type and size.

    The structured content stands in for a missing text.
    """
    lines = [_text(part) for part in result.content]
    has_text = any(isinstance(part, mcp_types.TextContent) for part in result.content)
    if not has_text and result.structured_content is not None:
        lines.append(json.dumps(result.structured_content, ensure_ascii=False))
    return ToolOutput(content="\n".join(lines), is_error=result.is_error)


def _effect(hints: mcp_types.ToolAnnotations | None) -> Effect:
    if hints and hints.read_only_hint:
        return "pure"
    return "idempotent" if hints and hints.idempotent_hint else "at_most_once"


def _text(part: mcp_types.ContentBlock) -> str:
    match part:
        case mcp_types.TextContent():
            return part.text
        case mcp_types.ImageContent() | mcp_types.AudioContent():
            return f"[{part.type}: {part.mime_type}, {_decoded_size(part.data)} bytes]"
        case mcp_types.ResourceLink():
            size = None if part.size is None else f"{part.size} bytes"
            return _named(f"[resource link: {part.uri}", part.mime_type, size)
        case mcp_types.EmbeddedResource():
            return _resource_text(part.resource)


def _resource_text(
    resource: mcp_types.TextResourceContents | mcp_types.BlobResourceContents,
) -> str:
    if isinstance(resource, mcp_types.TextResourceContents):
        return resource.text
    size = f"{_decoded_size(resource.blob)} bytes"
    return _named(f"[resource: {resource.uri}", resource.mime_type, size)


def _named(start: str, *facts: str | None) -> str:
    return ", ".join([start, *(fact for fact in facts if fact)]) + "]"


def _decoded_size(base64: str) -> int:
    """The bytes it stands for, without decoding megabytes to count them."""
    return len(base64) * 3 // 4 - base64[-2:].count("=")
