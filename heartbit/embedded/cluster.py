"""The files of a PostgreSQL server: made once, whole or not at all, before it first starts."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from heartbit.embedded.account import private_directory, run_as
from heartbit.embedded.server import failure
from heartbit.errors import ConfigError

ROLE = "heartbit"
DATABASE = "heartbit"
# Nothing is trusted: whoever connects gives the password, and only over loopback.
_ADMISSION = "host all all 127.0.0.1/32 scram-sha-256\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A data directory of PostgreSQL, which programs to use on it, and as whom."""

    path: Path
    programs: Path
    user: str | None
    lock: int
    durable: bool

    def create(self, password: str) -> None:
        """Make the directory, the role (a superuser), pgvector and the database.

        Raises:
            ConfigError: one of the programs failed.
        """
        draft = private_directory(self.path.with_name(self.path.name + ".new"), self.user)
        self._initialise(draft)
        draft.joinpath("pg_hba.conf").write_text(_ADMISSION)
        # What is in template1 is in every database made later.
        self._execute(
            draft,
            _password_is(password),
            "create extension vector",
            f"create database {DATABASE}",
        )
        draft.replace(self.path)

    def change_password(self, password: str) -> None:
        """Give the role a password, while no server runs on the directory."""
        self._execute(self.path, _password_is(password))

    def check(self) -> None:
        """See that the directory is one that these programs can serve.

        Raises:
            ConfigError: it is none, or one of another version.
        """
        try:
            written_by = (self.path / "PG_VERSION").read_text().strip()
        except OSError:
            raise ConfigError(f"{self.path} is not a data directory of PostgreSQL.") from None
        version = self._run("postgres", "--version").stdout.split()[-1].partition(".")[0]
        if version != written_by:
            raise ConfigError(
                f"The data in {self.path} was written by PostgreSQL {written_by}, and this is"
                f" {version}; use that version, or another data directory."
            )

    def _initialise(self, draft: Path) -> None:
        flush = () if self.durable else ("--no-sync",)
        form = ("--encoding=UTF8", "--locale=C", "--auth=trust", f"--username={ROLE}")
        self._succeed(self._run("initdb", "-D", str(draft), *form, *flush))

    def _execute(self, data: Path, *statements: str) -> None:
        flush = () if self.durable else ("-c", "fsync=off")
        settings = ("-c", "exit_on_error=on", "-c", "log_min_error_statement=panic", *flush)
        arguments = ("--single", "-D", str(data), *settings, "template1")
        # By input, because everybody on the machine can read a command line.
        text = "".join(f"{one}\n" for one in statements)
        self._succeed(self._run("postgres", *arguments, text=text))

    def _run(
        self, program: str, *arguments: str, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        command = (str(self.programs / program), *arguments)
        return run_as(self.user, command, lock=self.lock, text=text)

    def _succeed(self, done: subprocess.CompletedProcess[str]) -> None:
        if done.returncode:
            log = self.path.with_name("setup.log")
            log.write_text(done.stdout + done.stderr)
            raise ConfigError(failure("PostgreSQL", done.stderr, log))


def _password_is(password: str) -> str:
    return f"alter role {ROLE} password '{password}'"
