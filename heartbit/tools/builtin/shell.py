"""The tool `bash`: a command in a shell that starts in the workspace. It is not a sandbox.

The shell runs with the rights of this process and reaches whatever they reach: files outside the
workspace, the network. What is promised: a working directory of its own for each agent, no
variable of the environment that is not on a list of harmless ones (so no key or token), a time
limit, bounded output, and nothing left running in the shell's process group.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping

from heartbit.core.messages import Json
from heartbit.errors import ToolError
from heartbit.tools.base import ToolContext
from heartbit.tools.builtin.build import build_tool
from heartbit.tools.builtin.workspace import workspace_root

DEFAULT_SECONDS = 120
MAX_SECONDS = 600
GRACE_SECONDS = 2.0
MAX_OUTPUT_BYTES = 30_000
_DIRECTORY = "builtin.bash.directory"
_PATH_BYTES = 8192

HARMLESS = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "TZ", "TMPDIR"}
    | {"VIRTUAL_ENV", "CONDA_PREFIX", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)

DESCRIPTION = f"""Run a shell command. It starts in the workspace; the working directory is kept \
from call to call.

stdout and stderr come back together, with the exit code; of more than {MAX_OUTPUT_BYTES} bytes \
the middle is left out. stdin is empty, so nothing can ask questions. Processes left in the \
background are ended when the command returns. To read, search or change files prefer the other \
tools."""


async def run_command(arguments: Json, context: ToolContext) -> str:
    """Run the command and remember where it ended; raises ToolError unless it exits with 0."""
    from heartbit.tools.builtin.process import Output, collecting, run_group

    root = workspace_root(context)
    seconds = arguments.get("timeout_seconds", DEFAULT_SECONDS)
    output, ended_in = Output(MAX_OUTPUT_BYTES), Output(_PATH_BYTES)
    with collecting(output) as stdout, collecting(ended_in) as report:
        try:
            code = await run_group(
                _shell(arguments["command"], report),
                stdout=stdout,
                cwd=_directory(context, root),
                env=harmless(os.environ),
                timeout=seconds,
                grace=GRACE_SECONDS,
                pass_fds=(report,),
            )
        except ValueError:
            raise ToolError("The command holds a character that no command can hold.") from None
    _remember(context, ended_in.text())
    return _answer(output.text(), code, seconds)


def harmless(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables a command may see: an allow-list, because secrets have any name."""
    return {
        name: value for name, value in environ.items() if name in HARMLESS or name.startswith("LC_")
    }


def _shell(command: str, report: int) -> list[str]:
    """The command line. At its exit, however it exits, the shell writes its directory to `report`.

    The trap stands on the command's first line, so that line numbers in messages are the command's.
    """
    shell = shutil.which("bash") or shutil.which("sh")
    if shell is None:
        raise ToolError("There is neither bash nor sh on the PATH, so no command can be run.")
    return [shell, "-c", f"trap 'command pwd -P >/dev/fd/{report}' EXIT; {command}"]


def _directory(context: ToolContext, root: str) -> str:
    directory = context.scratch.get(_DIRECTORY, root)
    return directory if os.path.isdir(directory) else root


def _remember(context: ToolContext, reported: str) -> None:
    directory = reported.removesuffix("\n")
    if os.path.isabs(directory) and os.path.isdir(directory):
        context.scratch[_DIRECTORY] = directory


def _answer(text: str, code: int | None, seconds: float) -> str:
    text = text if not text or text.endswith("\n") else f"{text}\n"
    if code is None:
        raise ToolError(
            f"{text}[timed out after {seconds} seconds; the command and what it started were ended]"
        )
    if code < 0:
        raise ToolError(f"{text}[ended by signal {_signal_name(-code)}]")
    if code:
        raise ToolError(f"{text}[exit code: {code}]")
    return f"{text}[exit code: 0]"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


BASH = build_tool(
    "bash",
    DESCRIPTION,
    properties={
        "command": {
            "type": "string",
            "minLength": 1,
            "description": "The command, as for bash -c.",
        },
        "timeout_seconds": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": MAX_SECONDS,
            "description": f"After this it is ended (default {DEFAULT_SECONDS}).",
        },
    },
    required=("command",),
    effect="at_most_once",
    answer=run_command,
)
