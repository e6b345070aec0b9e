"""What went wrong in the database, in the words of heartbit: mapped here and nowhere else.

No message has the url, whose password must not get into a log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psycopg
from psycopg_pool import PoolTimeout

from heartbit.errors import (
    BoardConflict,
    HeartbitError,
    JournalError,
    JournalUnavailable,
    LeaseLost,
    RunStateError,
)
from heartbit.stores.board_values import conflict

_MIGRATE = (
    "The database does not have the tables of this heartbit; run `heartbit migrate`, then try "
    "again."
)
_NOT_TEXT = "The journal cannot keep an id or a name with NUL or half a character; choose another."
_NO_URL = (
    "The database's url cannot be understood; it looks like postgresql://user:password@host/name."
)
_NO_VECTOR = (
    "The database server has no pgvector; install the extension `vector` (0.7 or newer) on the "
    "server, then run `heartbit migrate` again."
)
_TRY_AGAIN = "The database gave this up for another transaction; it is safe to try again."

SENTENCES: Mapping[str, tuple[type[JournalError], str]] = {
    "08P01": (JournalError, "The database does not speak PostgreSQL's protocol; check its url."),
    "22021": (JournalError, _NOT_TEXT),
    "22P05": (JournalError, _NOT_TEXT),
    "25006": (
        JournalUnavailable,
        "The database is read-only, probably a standby; the url must lead to the primary.",
    ),
    "25P03": (
        JournalUnavailable,
        "The database ended a transaction that did nothing for too long; nothing of it counts.",
    ),
    "28000": (
        JournalError,
        "The database refused the user of its url; check user and pg_hba.conf.",
    ),
    "28P01": (JournalError, "The database refused the password of its url; check it."),
    "3D000": (JournalError, "The database named in the url does not exist; create it."),
    "40001": (JournalUnavailable, _TRY_AGAIN),
    "40P01": (JournalUnavailable, _TRY_AGAIN),
    "42501": (
        JournalError,
        "The database user may not do this; grant it the rights on heartbit's tables.",
    ),
    "42703": (JournalError, _MIGRATE),
    "42883": (JournalError, _MIGRATE),
    "42P01": (JournalError, _MIGRATE),
    "53100": (
        JournalUnavailable,
        "The database's disk is full; nothing was written. Free some space, then try again.",
    ),
    "53200": (JournalUnavailable, "The database is out of memory; try again later."),
    "53300": (
        JournalUnavailable,
        "The database has no connection left; raise max_connections or run fewer processes.",
    ),
    "55P03": (JournalUnavailable, _TRY_AGAIN),
    "57014": (JournalUnavailable, "The database gave up a statement that took too long."),
    "57P01": (JournalUnavailable, "The database is being shut down; try again when it is back."),
    "57P02": (JournalUnavailable, "The database has crashed; try again when it is back."),
    "57P03": (JournalUnavailable, "The database is starting up; try again in a moment."),
    "HB001": (LeaseLost, ""),
    "HB003": (
        RunStateError,
        "The id of a sub-run is taken by another run; nothing was written.",
    ),
}

# libpq gives no code for a connection that was never made: these are its words.
_REFUSED = (
    ("password authentication failed", "28P01"),
    ("no password supplied", "28P01"),
    ("no pg_hba.conf entry", "28000"),
    ("too many clients", "53300"),
    ("too many connections", "53300"),
    ("connection slots are reserved", "53300"),
    ("the database system is starting up", "57P03"),
    ("the database system is shutting down", "57P01"),
    ("is not permitted to log in", "28000"),
    ('role "', "28000"),
    ('database "', "3D000"),
    ("invalid response to SSL negotiation", "08P01"),
    ("expected authentication request from server", "08P01"),
)


@contextmanager
def mapped() -> Iterator[None]:
    """What psycopg raises in the block becomes a `JournalError`."""
    try:
        yield
    except psycopg.Error as error:
        raise explained(error) from error
    except UnicodeEncodeError as error:
        raise JournalError(_NOT_TEXT) from error


def explained(error: psycopg.Error) -> HeartbitError:
    """The error in one sentence: what happened and what to do."""
    if isinstance(error, PoolTimeout):
        return JournalUnavailable(
            "All connections of this process to the database are in use; try again later."
        )
    code = error.sqlstate or _code_of_words(str(error))
    if code == "HB002":
        return BoardConflict(conflict(**json.loads(error.diag.message_detail or "{}")))
    if code == "23505" and error.diag.table_name == "run_events":
        return LeaseLost("This step has its outcome already.")
    if code is not None and code in SENTENCES:
        kind, sentence = SENTENCES[code]
        return kind(sentence or None)
    if code == "0A000" and 'extension "vector"' in str(error):
        return JournalError(_NO_VECTOR)
    if isinstance(error, psycopg.DataError) and ("NUL" in str(error) or _half(error)):
        return JournalError(_NOT_TEXT)
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return JournalUnavailable(
            f"The database cannot be reached{_reason(error)}; check that it runs, and its url."
        )
    if error.sqlstate is None:
        return JournalError(_NO_URL)
    return JournalError(f"The database could not do it: {_first_line(error)}")


def _half(error: psycopg.Error) -> bool:
    """Whether it is about an escape that stands for half a character."""
    return "Unicode" in (error.diag.message_detail or "")


def _code_of_words(message: str) -> str | None:
    return next((code for words, code in _REFUSED if words in message), None)


def _reason(error: psycopg.Error) -> str:
    """What the system said, without anything that was taken from the url."""
    _, failed, reason = _first_line(error).rpartition(" failed: ")
    return f" ({reason})" if failed else ""


def _first_line(error: psycopg.Error) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
