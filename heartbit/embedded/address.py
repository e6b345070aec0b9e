"""Where the servers of `heartbit dev` are, for the other commands of the same person.

The file with the addresses has their passwords, so only its owner can read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "running.json"
_ROOTS_OWN = Path("/var/lib/heartbit")


@dataclass(frozen=True, kw_only=True, slots=True)
class Addresses:
    """What runs, and in which process; an address is None where a server of another's is used."""

    pid: int
    database_url: str | None = None
    broker_url: str | None = None
    flower_url: str | None = None


def state_directory(environ: Mapping[str, str], *, root: bool | None = None) -> Path:
    """Where `heartbit dev` keeps its data: $XDG_STATE_HOME/heartbit, else ~/.local/state/heartbit.

    Root's home is closed to the user that its PostgreSQL runs as, so root has /var/lib/heartbit.
    """
    if given := environ.get("XDG_STATE_HOME"):
        return Path(given).absolute() / "heartbit"
    if os.geteuid() == 0 if root is None else root:
        return _ROOTS_OWN
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return home / ".local" / "state" / "heartbit"


def announce(directory: Path, addresses: Addresses) -> None:
    """Let the other commands know; the file is there whole or not at all."""
    draft = directory / f"{FILE}.new"
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        json.dump(asdict(addresses), opened)
    draft.replace(directory / FILE)


def withdraw(directory: Path) -> None:
    """Nothing runs any more."""
    (directory / FILE).unlink(missing_ok=True)


def find_running(directory: Path) -> Addresses | None:
    """What `heartbit dev` runs; None when it does not, or was killed."""
    try:
        found = Addresses(**json.loads((directory / FILE).read_text()))
        os.kill(found.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return found
