"""Keeps one server running for exactly as long as the process that asked for it: a script.

    python -I keeper.py < a line of JSON: command, directory, user, stop_signal, grace_seconds, ...

It answers with the server's process id on a line of its own. Then it waits for the end of its
standard input, which comes however its owner ends, and stops the server. Between the two stands
this process, rather than a death signal set by the owner, because Linux sends that signal at the
end of the *thread* that forked, and other systems do not have it. Here there is one thread, so the
server gets a death signal of this process.

Only the standard library is imported: the script starts in some twenty milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1
# A process that the owner forked may hold the pipe open; the owner's death is seen without it.
_LOOK_FOR_OWNER_SECONDS = 0.5
_TOLD_TO_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> int:
    """Start what standard input orders, and end with it."""
    order = json.loads(sys.stdin.buffer.readline())
    woken = _wake_on(signal.SIGCHLD, *_TOLD_TO_STOP)
    try:
        server = _start(order)
    except OSError as error:
        sys.stderr.write(f"{order['command'][0]} cannot be run: {error.strerror}\n")
        return 127
    # Whoever asked may be gone already; then standard input is at its end.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{server.pid}\n".encode())
    _wait(server, woken, order["owner"])
    ended = server.poll()
    _stop(server, order["stop_signal"], order["grace_seconds"])
    return _exit_code(ended)


def _exit_code(ended: int | None) -> int:
    """How a server ended by itself, in the way of shells; 0 if it was stopped."""
    code = ended or 0
    return 128 - code if code < 0 else code


def _wake_on(*signals: signal.Signals) -> int:
    """A file that becomes readable with the number of each of these signals."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for one in signals:
        signal.signal(one, lambda *_: None)
    return reader


def _start(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    identity: dict[str, Any] = {}
    if order["user"]:
        entry = pwd.getpwnam(order["user"])
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return subprocess.Popen(  # noqa: S603 - what the owner ordered
        order["command"],
        cwd=order["directory"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        # The lock on a data directory belongs to the server too: it is free when all have ended.
        pass_fds=order["kept_open"],
        preexec_fn=_die_with_this_process(order["stop_signal"]),
        **identity,
    )


def _die_with_this_process(signal_number: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    keeper = os.getpid()

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != keeper:
            os._exit(1)

    return set_death_signal


def _wait(server: subprocess.Popen[bytes], woken: int, owner: int) -> None:
    """Return when the server has ended or should: its owner is gone, or a signal says so."""
    while server.poll() is None and os.getppid() == owner:
        ready, _, _ = select.select([sys.stdin, woken], [], [], _LOOK_FOR_OWNER_SECONDS)
        if sys.stdin in ready:
            return
        if woken in ready and set(os.read(woken, 64)) & set(_TOLD_TO_STOP):
            return


def _stop(server: subprocess.Popen[bytes], signal_number: int, grace_seconds: float) -> None:
    server.send_signal(signal_number)  # does nothing when it has ended
    try:
        server.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())
