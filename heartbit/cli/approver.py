"""Asks the person at the terminal about tool calls: approve, deny, edit, always.

Nothing is approved by default: an empty or unknown answer is asked again, the end of the input
leaves the run waiting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from heartbit.cli.display import Display
from heartbit.cli.keyboard import Keyboard
from heartbit.cli.words import one_line, pretty
from heartbit.core.events import Decision, Verdict
from heartbit.core.messages import Json, ToolCall
from heartbit.core.result import PendingApproval
from heartbit.tools.threads import in_thread

CHOICES = "[a]pprove  [d]eny REASON  [e]dit JSON  al[w]ays  ne[v]er  a[l]l? "
HELP = """\
  a, yes         run it                       d REASON, n    do not; the model reads the reason
  e              change it in $EDITOR         e {"x": 1}     run it with these arguments
  w, always      run it, and this tool from now on without asking
  v, never       do not run this tool in this run at all
  l, all         run this one and all others of this question"""
_WORDS = {
    "approve": ("a", "y", "yes", "approve"),
    "deny": ("d", "n", "no", "deny"),
    "edit": ("e", "edit"),
    "always": ("w", "always"),
    "never": ("v", "never"),
    "all": ("l", "all"),
}
_MEANING = {word: meaning for meaning, words in _WORDS.items() for word in words}
_ALONE = {"approve", "always", "never", "all"}
Editor = Callable[[str], str | None]


class TerminalApprover:
    """Answers the questions of all agents of a run; `always` and `never` hold for all of them."""

    def __init__(self, keyboard: Keyboard, display: Display, editor: Editor | None = None) -> None:
        self._keyboard = keyboard
        self._display = display
        self._editor = editor or open_editor
        self._settled: dict[str, Verdict] = {}

    async def __call__(self, question: PendingApproval) -> list[Decision] | None:
        """One decision per call, or None if the person left."""
        with self._asking(question):
            return await self._decide(question)

    @contextmanager
    def _asking(self, question: PendingApproval) -> Iterator[None]:
        if all(call.name in self._settled for call in question.calls):
            yield
            return
        with self._display.held():
            self._keyboard.forget_type_ahead()
            yield

    async def _decide(self, question: PendingApproval) -> list[Decision] | None:
        decisions: list[Decision] = []
        rest: Verdict | None = None
        for position, call in zip(question.positions, question.calls, strict=True):
            known = self._settled.get(call.name) or rest
            if known:
                decisions.append(Decision(position=position, verdict=known))
                continue
            meaning, decision = await self._ask(question.agent, position, call)
            if decision is None:
                return None
            rest = "approve" if meaning == "all" else None
            decisions.append(decision)
        return decisions

    async def _ask(self, agent: str, position: int, call: ToolCall) -> tuple[str, Decision | None]:
        self._say(f"[{one_line(agent)}] wants to call {one_line(call.name)}\n")
        self._say(f"{pretty(call.arguments)}\n")
        while True:
            self._say(CHOICES)
            line = await self._keyboard.line()
            if line is None:
                self._say("\n")
                return "left", None
            meaning, rest = parse_answer(line)
            decision = await self._decision(meaning, rest, position, call)
            if decision is not None:
                return meaning, decision

    async def _decision(
        self, meaning: str, rest: str, position: int, call: ToolCall
    ) -> Decision | None:
        match meaning:
            case "approve" | "all":
                return Decision(position=position, verdict="approve")
            case "deny":
                return Decision(position=position, verdict="deny", reason=rest or None)
            case "always" | "never":
                verdict: Verdict = "approve" if meaning == "always" else "deny"
                self._settled[call.name] = verdict
                return Decision(position=position, verdict=verdict, always=True)
            case "edit":
                return await self._edited(rest, position, call)
        self._say(f"{HELP}\n")
        return None

    async def _edited(self, text: str, position: int, call: ToolCall) -> Decision | None:
        """The decision to run other arguments; None when there are none to be had."""
        try:
            arguments = parse_arguments(text or await self._from_editor(call))
        except (ValueError, click.ClickException) as error:
            self._say(f"{one_line(str(error))}\n")
            return None
        return Decision(position=position, verdict="edit", arguments=arguments)

    async def _from_editor(self, call: ToolCall) -> str:
        before = json.dumps(call.arguments, indent=2, ensure_ascii=False)
        after = await in_thread(lambda: self._editor(before), "editor")
        if after is None:
            raise ValueError("Nothing was changed.")
        return after

    def _say(self, text: str) -> None:
        self._display.err.write(text)


def parse_answer(line: str) -> tuple[str, str]:
    """What an answer means, and what was said beside it; `unclear` when nobody can tell."""
    found = re.match(r"\s*([A-Za-z]+)[\s,:;.!]*", line)
    meaning = _MEANING.get(found[1].lower(), "unclear") if found else "unclear"
    rest = line[found.end() :].strip() if found else ""
    if rest and meaning in _ALONE:
        return "unclear", ""
    return meaning, rest


def parse_arguments(text: str) -> Json:
    """The arguments that a person wrote.

    Raises:
        ValueError: they are no JSON object; the message says where.
    """
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"That is no JSON ({error}).") from error
    if not isinstance(arguments, dict):
        raise ValueError("The arguments must be a JSON object: {...}.")
    return arguments


def open_editor(text: str) -> str | None:
    """`text` as it is after $EDITOR; None when it was not saved."""
    return click.edit(text, extension=".json")
