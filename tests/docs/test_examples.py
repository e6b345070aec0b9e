"""What the README shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from heartbit.config import check
from tests.support.model_server import ModelServer, Reply
from tests.support.repository import ROOT

README = (ROOT / "README.md").read_text()
NOBODY = "http://127.0.0.1:9/mcp"  # the discard port: an MCP server that is not running


def blocks(language: str) -> list[str]:
    """The README's code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_readme_shows_a_configuration_and_a_program() -> None:
    """The blocks are found: without any the next tests would say nothing."""
    assert (True, True) == (bool(blocks("toml")), bool(blocks("python")))


@pytest.mark.parametrize("block", blocks("toml"))
def test_every_configuration_in_the_readme_is_valid(block: str) -> None:
    """`heartbit config check` has nothing to say about it."""
    environ = {"ANTHROPIC_API_KEY": "key"}
    assert [] == [str(p) for p in check(Path("README.md"), environ, text=block)]


@pytest.mark.parametrize("block", blocks("python"))
def test_every_program_in_the_readme_runs(
    block: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the addresses are changed: a model server on loopback answers."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    with ModelServer([Reply(text="Rust is fine.")]) as server:
        program = block.replace("http://localhost:8000/mcp", NOBODY).replace(
            "AnthropicProvider(", f"AnthropicProvider(base_url={server.url!r}, api_key='key', "
        )
        exec(compile(program, "README.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out.startswith("Rust is fine.")
    assert ["/v1/messages"] == [request.path for request in server.requests]
