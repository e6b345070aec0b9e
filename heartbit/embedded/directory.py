"""The data directory of an embedded server: who may start it, its password and private files.

A directory belongs to one owner, and one server, at a time. Both locks are the kernel's and end
with the processes that hold them: none is ever stale, whatever the files say.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path

from heartbit.errors import ConfigError

_OWNER_LOCK = "owner.lock"
_SERVER_LOCK = "server.lock"
_PASSWORD = "password"  # noqa: S105 - the name of a file
_POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """The right to run a server in a directory, as open files.

    `server` is inherited by the keeper and the server: it is free when the last of them ended.
    """

    owner: int
    server: int

    def release(self) -> None:
        """Let go; call it once."""
        os.close(self.server)
        os.close(self.owner)


class DataDirectory:
    """A directory of ours, created when missing (mode 0700).

    Raises:
        ConfigError: the path is a file, cannot be created, or holds somebody else's files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = os.listdir(self.path)
        except OSError as error:
            raise ConfigError(
                f"The data directory {self.path} cannot be used: {error.strerror}."
            ) from error
        if names and _OWNER_LOCK not in names:
            raise ConfigError(
                f"The directory {self.path} holds other files; choose an empty or a new one."
            )

    def hold(self, *, patience_seconds: float) -> Hold:
        """Take the directory for this process.

        The server of an owner that was killed gets `patience_seconds` to end.

        Raises:
            ConfigError: another process has it.
        """
        owner = self._open(_OWNER_LOCK)
        try:
            self._become_owner(owner)
            server = self._open(_SERVER_LOCK)
        except BaseException:
            os.close(owner)
            raise
        held = Hold(owner=owner, server=server)
        try:
            self._wait_for_the_last_server(server, time.monotonic() + patience_seconds)
        except BaseException:
            held.release()
            raise
        return held

    def _open(self, name: str) -> int:
        return os.open(self.path / name, os.O_RDWR | os.O_CREAT, 0o600)

    def _become_owner(self, lock: int) -> None:
        if not _try_lock(lock):
            owner = os.pread(lock, 32, 0).decode().strip()
            raise ConfigError(
                f"The directory {self.path} is in use by process {owner};"
                " stop that one first or choose another directory."
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)

    def _wait_for_the_last_server(self, lock: int, deadline: float) -> None:
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise ConfigError(
                    f"The last server in {self.path} has lost its owner and is still stopping;"
                    " try again in a minute."
                )
            time.sleep(_POLL_SECONDS)

    def has_password(self) -> bool:
        """Whether `password` was called before, by this or an earlier process."""
        return (self.path / _PASSWORD).exists()

    def password(self) -> str:
        """The password of the server in here, made at the first call."""
        if not self.has_password():
            self.write_private(_PASSWORD, os.urandom(24).hex())
        return (self.path / _PASSWORD).read_text().strip()

    def write_private(self, name: str, text: str) -> Path:
        """Write a file that only its owner can read, whole or not at all."""
        file, draft = self.path / name, self.path / f"{name}.new"
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(text)
        return draft.replace(file)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
