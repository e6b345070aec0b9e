"""The repository as a set of files: what git tracks, or would if it were asked to add."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that is not ignored; in an unpacked archive without git, every file."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        return tuple(sorted(path for path in ROOT.rglob("*") if _ours(path)))
    names = listed.stdout.decode().split("\0")
    return tuple(sorted(ROOT / name for name in names if name and (ROOT / name).is_file()))


def _ours(path: Path) -> bool:
    folders = path.relative_to(ROOT).parts[:-1]
    made = {"node_modules", "__pycache__", "dist", "build"}
    return path.is_file() and not any(
        name in made or (name.startswith(".") and name != ".ci") for name in folders
    )


def compose_services() -> dict[str, dict[str, Any]]:
    """The services of docker-compose.yml, with anchors and merges resolved."""
    loaded = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return dict(loaded["services"])
