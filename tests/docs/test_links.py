"""What the docs point at is there: files, headings, commands of make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.repository import ROOT, tracked

PAGES = [path for path in tracked() if path.suffix == ".md"]
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The fragments that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_resolves(page: Path) -> None:
    """A path exists, and a fragment is the heading of its page."""
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (fragment and fragment not in anchors(file)):
            broken.append(target)
    assert [] == broken


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_make_command_the_docs_name_is_a_target(page: str) -> None:
    """`make x` in a page is a rule of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)", (ROOT / page).read_text()))
    assert set() == named - targets


def test_code_that_cites_a_page_cites_one_that_exists() -> None:
    """A comment that says `docs/x.md, Heading` names a heading of that page."""
    broken = []
    for path in tracked():
        if path.suffix == ".py" and path.is_relative_to(ROOT / "heartbit"):
            for page, heading in re.findall(r"(docs/[\w/-]+\.md)(?:, (\w+))?", path.read_text()):
                file = ROOT / page
                if not file.exists() or (heading and heading.lower() not in anchors(file)):
                    broken.append(f"{path.relative_to(ROOT)}: {page}, {heading}")
    assert [] == broken
