"""The `heartbit` command: its sub-commands, found by name, and a prompt without any."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NoReturn, TypeVar

import click

from heartbit import __version__
from heartbit.cli.exits import BadConfiguration, Unexpected
from heartbit.errors import ConfigError, HeartbitError

NAME = "heartbit"
COMMANDS = {
    "run": "heartbit.cli.run:run",
    "chat": "heartbit.cli.chat:chat",
    "dev": "heartbit.cli.dev:dev",
    "serve": "heartbit.cli.serve:serve",
    "submit": "heartbit.cli.submit:submit",
    "status": "heartbit.cli.inspect:status",
    "watch": "heartbit.cli.watch:watch",
    "result": "heartbit.cli.submit:result",
    "runs": "heartbit.cli.inspect:runs",
    "approvals": "heartbit.cli.approvals:approvals",
    "approve": "heartbit.cli.approvals:approve",
    "deny": "heartbit.cli.approvals:deny",
    "cancel": "heartbit.cli.inspect:cancel",
    "fork": "heartbit.cli.fork:fork",
    "replay": "heartbit.cli.inspect:replay",
    "chaos": "heartbit.cli.chaos:chaos",
    "memory": "heartbit.cli.memory:memory",
    "knowledge": "heartbit.cli.knowledge:knowledge",
    "models": "heartbit.cli.models:models",
    "migrate": "heartbit.cli.migrate:migrate",
    "doctor": "heartbit.cli.doctor:doctor",
    "config": "heartbit.cli.configuration:config",
}
_FLAG = re.compile(r"-[A-Za-z]|--[A-Za-z][\w-]*(=.*)?", re.DOTALL)
F = TypeVar("F", bound=Callable[..., Any])


class PromptOrCommand(click.Group):
    """A group whose arguments are a prompt if they start with no command.

    One word is never a prompt: a command with a typo in it must not become a paid call.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module, and only that one."""
        if cmd_name not in COMMANDS:
            return None
        from importlib import import_module

        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, or `run` with all of `args` as its prompt."""
        first = args[0]
        if first in COMMANDS or (first.startswith("-") and first != "-"):
            return super().resolve_command(ctx, args)
        _refuse_near_miss(args)
        _refuse_flags(args)
        return "run", self.get_command(ctx, "run"), ["--", *args]

    def invoke(self, ctx: click.Context) -> Any:
        """Say every error in one sentence; with --debug unexpected ones keep their traceback."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise BadConfiguration(error.message) from error
        except HeartbitError as error:
            raise click.ClickException(error.message) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if settings(ctx)["debug"]:
                raise
            raise Unexpected(error) from error


def _refuse_near_miss(args: list[str]) -> None:
    """Refuse what is more likely a command with a typo than a prompt."""
    first = args[0]
    if len(args) > 2 or len(first.split()) > 1:
        return
    near = get_close_matches(first, COMMANDS, n=1, cutoff=0.6 if len(args) == 1 else 0.8)
    if near:
        _refuse(
            f"there is no command {first!r}; did you mean `{NAME} {' '.join([*near, *args[1:]])}`?"
        )
    if first == "-":
        _refuse(f"to read the prompt from stdin, write `{NAME} run -`.")
    if len(args) == 1:
        _refuse(f"there is no command {first!r}; did you mean `{NAME} run {first!r}`?")


def _refuse_flags(args: list[str]) -> None:
    """A flag must never end up in a prompt by mistake."""
    flag = next((arg for arg in args if _FLAG.fullmatch(arg)), None)
    if flag:
        _refuse(
            f"flags need a command: `{NAME} run {flag} ...`; "
            f"a prompt with {flag!r} in it goes after `{NAME} run --`."
        )


def _refuse(message: str) -> NoReturn:
    raise click.UsageError(message)


def settings(ctx: click.Context) -> dict[str, Any]:
    """The global flags, wherever on the command line they stood."""
    given: dict[str, Any] = ctx.meta.setdefault(__name__, {"config": None, "debug": False})
    return given


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    if value and parameter.name:
        settings(ctx)[parameter.name] = value
    return value


def global_flags(function: F) -> F:
    """--config and --debug, which may stand before and after the command."""
    config = click.option(
        "--config",
        metavar="FILE",
        expose_value=False,
        callback=_remember,
        help="The configuration; else $HEARTBIT_CONFIG, else ./heartbit.toml.",
    )
    debug = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help="Show tracebacks and the log.",
    )
    return config(debug(function))


@click.command(NAME, cls=PromptOrCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=NAME)
@global_flags
def heartbit() -> None:
    """Run LLM agents: an orchestrator that hands work to sub-agents with tools.

    \b
      heartbit run "Compare three Rust web frameworks"
      heartbit "Compare three Rust web frameworks"      the same, without flags
      heartbit dev                                      what durable runs need, on this machine
      heartbit submit "Compare three Rust frameworks"   a run that survives its workers

    Exit codes: 0 succeeded, 1 failed, 2 wrong usage or configuration, 3 cancelled,
    4 waiting for an approval.
    """
