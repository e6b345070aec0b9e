"""The reference of the command line, written from its own help.

`python -m heartbit.cli.reference` prints it; docs/reference/cli.md is its output.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from heartbit.cli.group import NAME, heartbit

_INTRODUCTION = """\
# Command line

<!-- Written by `python -m heartbit.cli.reference`; change the commands, not this page. -->

stdout carries the answer, and with `--json` one object; everything else goes to stderr. When stderr
is a terminal it shows a live tree of agents, turns, tools, tokens and cost, else plain lines.

| exit code | meaning |
|---|---|
| 0 | succeeded |
| 1 | failed |
| 2 | wrong usage or configuration |
| 3 | cancelled: Ctrl-C, SIGTERM, or nobody read the output any more |
| 4 | waiting for an approval that nobody gave, or not ended yet |

These are the codes of `run`, `submit --wait` and `result`, which tell how a run ended. Every other
command gives 0 if it could answer, 1 if it could not (there is no such run, the database is away)
and 2 or 3 as above.
"""


def reference() -> str:
    """The page, as Markdown."""
    return _INTRODUCTION + "".join(_sections(heartbit, NAME, None))


def _sections(command: click.Command, path: str, parent: click.Context | None) -> Iterator[str]:
    name = path.rpartition(" ")[2]
    context = click.Context(
        command, parent, info_name=name, terminal_width=88, max_content_width=88
    )
    help_text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"\n## `{path}`\n\n```text\n{help_text}\n```\n"
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            inner = command.get_command(context, each)
            if inner is not None:
                yield from _sections(inner, f"{path} {each}", context)


if __name__ == "__main__":
    sys.stdout.write(reference())
