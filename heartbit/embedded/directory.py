"""The data directory of an embedded server: who may start it, its password, and its log.

A directory belongs to one running server at a time. The lock is the kernel's, held by the owner,
its keeper and the server: it outlives none of them and is never stale, whatever the file says.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from heartbit.errors import ConfigError

_LOCK_NAME = "owner.lock"
_PASSWORD_NAME = "password"  # noqa: S105 - the name of a file
_POLL_SECONDS = 0.02


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
        if names and _LOCK_NAME not in names:
            raise ConfigError(
                f"The directory {self.path} holds other files; choose an empty or a new one."
            )

    def lock(self, *, patience_seconds: float) -> int:
        """Take the directory for this process: an open file that holds it until it is closed.

        What a killed owner left behind gets `patience_seconds` to end.

        Raises:
            ConfigError: another process has it.
        """
        lock = os.open(self.path / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self._wait_for(lock, time.monotonic() + patience_seconds)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _wait_for(self, lock: int, deadline: float) -> None:
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(lock, 32, 0).decode().strip()
                if _is_running(owner) or time.monotonic() > deadline:
                    raise ConfigError(
                        f"The directory {self.path} is in use by process {owner};"
                        " stop that one first or choose another directory."
                    ) from None
            time.sleep(_POLL_SECONDS)

    def has_password(self) -> bool:
        """Whether `password` was called before, by this or an earlier process."""
        return (self.path / _PASSWORD_NAME).exists()

    def password(self) -> str:
        """The password of the server in here, made at the first call."""
        if not self.has_password():
            self.write_private(_PASSWORD_NAME, os.urandom(24).hex())
        return (self.path / _PASSWORD_NAME).read_text().strip()

    def write_private(self, name: str, text: str) -> Path:
        """Write a file that only its owner can read, whole or not at all."""
        file, draft = self.path / name, self.path / f"{name}.new"
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(text)
        return draft.replace(file)


def _is_running(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
