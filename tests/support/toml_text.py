"""TOML written in many ways, for tests: the same values with headers, inline, dotted or quoted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from typing import Any

Path = tuple[str | int, ...]
Choose = Callable[[list[str]], str]


def plain(options: list[str]) -> str:
    """The first of the ways: headers for tables, one line per value."""
    return options[0]


def toml(data: dict[str, Any], choose: Choose = plain) -> str:
    """The text of a table."""
    return Writer(choose).document(data)


class Writer:
    """Writes one document; `lines` then has the line of every key, table and list entry."""

    def __init__(self, choose: Choose = plain) -> None:
        self.choose = choose
        self.text = ""
        self.lines: dict[Path, int] = {}

    def document(self, data: dict[str, Any]) -> str:
        self.table((), data)
        return self.text

    def table(self, path: Path, table: dict[str, Any]) -> None:
        later: list[tuple[Path, Any]] = []
        for key, value in table.items():
            if self._wants_header(value):
                later.append(((*path, key), value))
            else:
                self.decorate()
                self.pair((*path, key), value, f"{_key(key)} = ")
                self.text += self.choose(["\n", "  # end = of [line]\n"])
        for inner, value in later:
            self.headed(inner, value)

    def _wants_header(self, value: Any) -> bool:
        tables = isinstance(value, list) and value != [] and all(isinstance(v, dict) for v in value)
        return (isinstance(value, dict) or tables) and self.choose(["header", "inline"]) == "header"

    def headed(self, path: Path, value: Any) -> None:
        name = ".".join(_key(step) for step in path if isinstance(step, str))
        for index, table in enumerate(value if isinstance(value, list) else [value]):
            self.decorate()
            self.mark(path)
            inner = (*path, index) if isinstance(value, list) else path
            self.mark(inner)
            self.text += f"[[{name}]]\n" if isinstance(value, list) else f"[{name}]\n"
            self.table(inner, table)

    def decorate(self) -> None:
        self.text += self.choose(["", "\n", '# key = "value"\n', "  \t"])

    def pair(self, path: Path, value: Any, start: str) -> None:
        self.mark(path)
        self.text += start
        self.value(path, value)

    def mark(self, path: Path) -> None:
        self.lines.setdefault(path, self.text.count("\n") + 1)

    def value(self, path: Path, value: Any) -> None:
        if isinstance(value, dict):
            self.inline_table(path, value)
        elif isinstance(value, list):
            self.array(path, value)
        elif isinstance(value, str):
            self.text += self.string(value)
        else:
            self.text += _scalar(value)

    def inline_table(self, path: Path, table: dict[str, Any]) -> None:
        self.text += "{"
        for n, (key, value) in enumerate(table.items()):
            self.text += ", " if n else " "
            self.pair((*path, key), value, f"{_key(key)} = ")
        self.text += "}"

    def array(self, path: Path, items: list[Any]) -> None:
        blank = self.choose(["", "\n", " # ] \n", " "])
        self.text += "[" + blank
        for index, item in enumerate(items):
            self.mark((*path, index))
            self.value((*path, index), item)
            self.text += "," + blank
        self.text += "]"

    def string(self, value: str) -> str:
        basic = json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")
        if any("\ud800" <= char <= "\udfff" or ord(char) > 0xFFFF for char in value):
            basic = '"' + "".join(_escaped(char) for char in value) + '"'
        ways = ["basic"]
        if re.fullmatch(r"[ !-&(-~\u00a1-\ud7ff]*", value):
            ways.append("literal")
        if re.fullmatch(r"[\n !#-&(-\[\]-~]*", value):
            ways += ["multi", "multi_literal"]
        way = self.choose(ways)
        forms = {"basic": basic, "literal": f"'{value}'", "multi": f'"""\n{value}"""'}
        return forms.get(way, f"'''\n{value}'''")


def _escaped(char: str) -> str:
    return f"\\U{ord(char):08x}" if ord(char) > 0xFFFF else json.dumps(char)[1:-1]


def _key(key: str | int) -> str:
    text = str(key)
    if re.fullmatch(r"[A-Za-z0-9_-]+", text):
        return text
    return '"' + "".join(_escaped(char) for char in text).replace("\x7f", "\\u007f") + '"'


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else repr(value)
