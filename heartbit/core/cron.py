"""When a cron expression comes next, in either of two dialects.

Five fields mean what they mean in a crontab: minute, hour, day of month, month, day of week (0 and
7 are Sunday), and a day counts if either of its two fields fits. With six the first is the second,
days of the week go from 1 (Sunday) to 7, and both fields of a day must fit.

There is no clock here: whoever asks says after which moment.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

from croniter import CroniterBadDateError, CroniterError, croniter

NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_CRONTAB, _WITH_SECONDS = 5, 6
_BEFORE = datetime(2000, 1, 1, tzinfo=UTC)
# croniter draws a number for these letters: no two processes would find the same times.
_RANDOM = re.compile(r"(?<![A-Za-z])[HRhr](?![A-Za-z])")
_WEEKDAY = re.compile(r"(?<![\d/#])\d+")


def check_cron(expression: str) -> None:
    """Look whether there ever is a time that fits.

    Raises:
        ValueError: there is none, or it is no expression; the message goes on from its name.
    """
    next_time(expression, UTC, _BEFORE)


def next_time(expression: str, zone: tzinfo, after: datetime) -> datetime:
    """The first time (in UTC) after a moment that fits by the clocks of `zone`.

    Where clocks are put forward, a time that they skip comes at the first moment behind the gap;
    where they are put back, an hour that the expression names comes once.

    Raises:
        ValueError: there is no such time, or it is no expression; the message goes on from its
            name.
    """
    fields = _fields(expression)
    every_hour = fields[-4].startswith("*")
    try:
        times = _times(fields, after.astimezone(zone))
        found: datetime = times.get_next(datetime)
        while found.fold and not every_hour:
            found = times.get_next(datetime)
    except CroniterBadDateError:
        raise ValueError(f"names a time that never comes: {expression!r}") from None
    except CroniterError as error:
        raise ValueError(f"is no cron expression: {error}") from None
    return found.astimezone(UTC)


def _fields(expression: str) -> list[str]:
    fields = NICKNAMES.get(expression, expression).split()
    if len(fields) not in (_CRONTAB, _WITH_SECONDS):
        raise ValueError(
            "must have five fields (minute, hour, day of month, month, day of week), or six with "
            f"the second in front, not {len(fields)}"
        )
    if _RANDOM.search(expression):
        raise ValueError("must not leave anything to chance: H and R stand for random numbers")
    return fields


def _times(fields: list[str], after: datetime) -> croniter:
    if len(fields) == _CRONTAB:
        return croniter(" ".join(fields), after)
    weekday = _WEEKDAY.sub(_from_zero, fields[-1])
    expression = " ".join([*fields[:-1], weekday])
    return croniter(expression, after, second_at_beginning=True, day_or=False)


def _from_zero(found: re.Match[str]) -> str:
    day = int(found[0])
    if not 1 <= day <= 7:
        raise ValueError(
            f"has {day} for a day of the week; with six fields they go from 1 (Sunday) to 7"
        )
    return str(day - 1)
