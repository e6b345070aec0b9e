"""What a docstring tells a model: a description of the tool and one of each parameter.

Google, NumPy and Sphinx styles are recognised by themselves. The parser is imported at the first
docstring that can have sections: importing it costs more than all the rest of this package.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from griffe import DocstringSection


@dataclass(frozen=True, kw_only=True, slots=True)
class DocstringParts:
    """The prose of a docstring, and the description of each parameter by name."""

    description: str = ""
    parameters: dict[str, str] = field(default_factory=dict)


def parse_docstring(docstring: str | None) -> DocstringParts:
    """Split a docstring; one that is malformed is prose."""
    text = inspect.cleandoc(docstring or "")
    if "\n" not in text:
        return DocstringParts(description=text)
    sections = _sections(text)
    return DocstringParts(
        description="\n\n".join(filter(None, map(_prose, sections))),
        parameters={
            item.name: item.description
            for section in sections
            if section.kind.value in {"parameters", "other parameters"}
            for item in section.value
        },
    )


def _sections(text: str) -> list[DocstringSection]:
    import griffe

    # It logs a warning for every parameter without a type, and here types are in the signature.
    with griffe.logger.disable():
        return griffe.Docstring(text).parse(griffe.Parser.auto)


def _prose(section: DocstringSection) -> str:
    value: Any = section.value
    match section.kind.value:
        case "text":
            return str(value)
        case "admonition":
            return f"{section.title}: {value.description}"
        case "returns":
            described = "; ".join(item.description for item in value if item.description)
            return f"Returns: {described}" if described else ""
        case _:
            return ""
