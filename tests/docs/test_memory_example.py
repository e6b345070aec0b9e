"""The examples of docs/how-to/memory.md, as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from heartbit.config import load
from tests.support.repository import ROOT

PAGE = (ROOT / "docs/how-to/memory.md").read_text()
[PYTHON] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
[TOML] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)


def test_the_program_recalls_what_it_has_stored(tmp_path: Path) -> None:
    """In another run of the same process."""
    (tmp_path / "example.py").write_text(PYTHON)
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "The customer prefers French. (fact; importance 8)" in done.stdout


def test_the_tables_are_those_that_are_read() -> None:
    """Every key is known, and used."""
    loaded = load(Path("heartbit.toml"), {}, text=TOML)
    assert () == tuple(loaded.warnings)
    assert loaded.config.memory is not None
    assert loaded.config.memory.consolidate_on_exit
