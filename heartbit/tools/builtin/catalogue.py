"""The one list of built-in tools: a new one is added here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from heartbit.tools.base import BoundTool
from heartbit.tools.builtin.edit import EDIT
from heartbit.tools.builtin.listing import LIST
from heartbit.tools.builtin.read import READ
from heartbit.tools.builtin.search import GLOB, GREP
from heartbit.tools.builtin.shell import BASH
from heartbit.tools.builtin.todo import TODOREAD, TODOWRITE
from heartbit.tools.builtin.webfetch import make_webfetch
from heartbit.tools.builtin.write import WRITE

TOOLS = (READ, WRITE, EDIT, GLOB, GREP, LIST, BASH, make_webfetch(), TODOWRITE, TODOREAD)

BUILTIN: Mapping[str, BoundTool] = MappingProxyType({tool.spec.name: tool for tool in TOOLS})
