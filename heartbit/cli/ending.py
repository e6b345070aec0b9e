"""Ending the process on Ctrl-C and SIGTERM while no run is under way: nothing to clean up.

No KeyboardInterrupt: it could come in the middle of any import, and even when it is caught there,
Python may remember it and end as if it had not been.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

CANCELLED = 3
_CURSOR_AND_NEW_LINE = b"\x1b[?25h\n"


def end_on_signals() -> None:
    """Let the signals end the process, unless it was started to ignore them."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end_at_once)


def ignore_signals() -> None:
    """Let the interpreter end in peace."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """End without waiting for anything; a terminal gets its cursor and a new line."""
    if os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb":
        os.write(2, _CURSOR_AND_NEW_LINE)
    os._exit(CANCELLED)
