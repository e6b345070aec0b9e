"""Permission rules: the first one that matches a call decides, and nothing dodges it."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.agent import Action, PermissionRule
from heartbit.core.permissions import decide, glob_matches


def rule(action: Action, tool: str = "bash", pattern: str = "*") -> PermissionRule:
    return PermissionRule(tool=tool, action=action, pattern=pattern)


def test_the_first_rule_that_matches_decides() -> None:
    rules = (rule("allow", pattern="git *"), rule("ask", pattern="* push*"), rule("deny"))
    assert decide(rules, "bash", {"command": "git push"}) == "allow"
    assert decide(rules, "bash", {"command": "hg push"}) == "ask"
    assert decide(rules, "bash", {"command": "rm -rf /"}) == "deny"


def test_no_matching_rule_is_no_decision() -> None:
    assert decide((), "bash", {"command": "ls"}) is None
    assert decide((rule("deny", pattern="rm *"),), "bash", {"command": "ls"}) is None


@pytest.mark.parametrize("name", ["Bash", "bosh", "bash2", ""])
def test_a_rule_for_a_tool_means_exactly_that_tool(name: str) -> None:
    assert decide((rule("deny"),), name, {"command": "ls"}) is None


def test_a_star_means_every_tool_but_a_glob_in_the_tool_name_does_not() -> None:
    assert decide((rule("ask", tool="*"),), "anything", {}) == "ask"
    assert decide((rule("ask", tool="ba*"),), "bash", {}) is None


@pytest.mark.parametrize("arguments", [{}, {"n": 1}, {"flags": [True, None]}])
def test_the_pattern_star_also_matches_a_call_without_any_text(
    arguments: dict[str, object],
) -> None:
    assert decide((rule("deny"),), "bash", arguments) == "deny"
    assert decide((rule("deny", pattern="?*"),), "bash", arguments) is None
    assert decide((rule("deny", pattern=""),), "bash", arguments) is None


@pytest.mark.parametrize("action", ["deny", "ask"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"harmless": "ls", "command": "rm -rf /"},
        {"options": {"command": "rm -rf /"}},
        {"steps": [{"run": ["ls", "rm -rf /"]}]},
    ],
)
def test_a_denial_cannot_be_dodged_by_nesting(action: Action, arguments: dict[str, object]) -> None:
    rules = (rule(action, pattern="rm *"), rule("allow"))
    assert decide(rules, "bash", arguments) == action


def test_a_nested_text_never_allows_a_call() -> None:
    rules = (rule("allow", pattern="git *"), rule("deny"))
    sneaky = {"command": "rm -rf /", "notes": {"why": "git status"}, "more": ["git status"]}
    assert decide(rules, "bash", sneaky) == "deny"


def test_an_allow_rule_needs_one_matching_argument_and_ignores_the_others() -> None:
    rules = (rule("allow", tool="edit", pattern="src/*"), rule("ask", tool="edit"))
    assert decide(rules, "edit", {"path": "src/a.py", "old": "x", "new": "y"}) == "allow"
    assert decide(rules, "edit", {"path": "lib/a.py", "old": "x", "new": "y"}) == "ask"


def test_very_deep_arguments_are_looked_through() -> None:
    arguments: dict[str, object] = {"command": "rm x"}
    for _ in range(5_000):
        arguments = {"in": arguments}
    assert decide((rule("deny", pattern="rm *"),), "bash", arguments) == "deny"


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("rm *", "rm -rf\n/", True),
        ("rm *", "sudo rm -rf /", False),
        ("*rm *", "sudo\nrm -rf /", True),
        ("?.py", "a.py", True),
        ("?.py", "\n.py", True),
        ("?.py", ".py", False),
        ("[ab].py", "a.py", False),
        ("[ab].py", "[ab].py", True),
        ("a.c", "abc", False),
        ("LS", "ls", False),
        ("", "", True),
        ("", "x", False),
        ("*a*b*a", "xaxbxa", True),
        ("*a*b*a", "xaxbxab", False),
        ("end", "end\n", False),
        ("\\*", "\\anything", True),
    ],
)
def test_only_star_and_question_mark_are_special(pattern: str, text: str, matches: bool) -> None:
    assert glob_matches(pattern, text) is matches


@given(st.text("ab*?\n", max_size=8), st.text("ab*?\n", max_size=10))
def test_a_glob_means_what_the_naive_regular_expression_means(pattern: str, text: str) -> None:
    naive = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    assert glob_matches(pattern, text) is bool(re.fullmatch(naive, text, re.DOTALL))


def test_a_hostile_argument_cannot_make_a_glob_slow() -> None:
    started = time.process_time()
    assert not glob_matches("*a" * 20 + "*b", "a" * 20_000)
    assert time.process_time() - started < 1
