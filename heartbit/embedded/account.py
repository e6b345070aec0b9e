"""The account a server runs under: our own, or `nobody` when we are root.

PostgreSQL refuses to run as root, and is right.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heartbit.embedded.process import environment
from heartbit.errors import ConfigError

UNPRIVILEGED = "nobody"


def server_user() -> str | None:
    """The user that a server must run as; None when it is the one we are.

    Raises:
        ConfigError: we are root and there is no such user.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(UNPRIVILEGED).pw_name
    except KeyError:
        raise ConfigError(
            "PostgreSQL cannot run as root, and there is no user nobody; start as another user."
        ) from None


def run_as(
    user: str | None, command: Sequence[str], *, lock: int | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end under an account, with `text` as its input.

    `lock` is held open by the program too, so that nobody follows while it still works.

    Raises:
        OSError: the program cannot be executed by this account.
    """
    identity: dict[str, Any] = {}
    if user:
        identity = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    return subprocess.run(  # noqa: S603 - a program of the server's installation
        command,
        cwd="/",
        env=environment(),
        input=text,
        pass_fds=() if lock is None else (lock,),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **identity,
    )


def may_execute(user: str, program: Path) -> bool:
    """Whether this account reaches a program: tried, because modes do not tell it all."""
    try:
        return run_as(user, [str(program), "--version"]).returncode == 0
    except OSError:
        return False


def let_enter(user: str, directory: Path) -> None:
    """Let an account reach what is its own in a directory of ours, and see nothing of the rest.

    Raises:
        ConfigError: a directory above keeps the account out.
    """
    directory.chmod(0o711)
    if run_as(user, ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(directory)]).returncode:
        raise ConfigError(
            f"Root's PostgreSQL runs as the user {user}, who may not enter {directory}; choose a"
            " data directory below one that everybody may enter, such as /var/lib/heartbit."
        )


def private_directory(path: Path, user: str | None) -> Path:
    """An empty directory that only this account may enter; what was there is removed."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    if user:
        shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
    return path
