"""Cron expressions in both dialects, in every time zone, and on the two nights that are special."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbit.core.cron import check_cron, next_time

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ("UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu")
MIXED = ("30 2 * * *", "*/15 * * * *", "0 9 * * 1-5", "0 0 29 2 *", "5 1,2 * * 0", "@hourly")
WITH_SECONDS = ("*/10 * * * * *", "0 30 2 * * *", "0 0 9 * * 1-5")


def after(expression: str, start: str, count: int = 1, zone: str = "UTC") -> list[str]:
    """The next times after a UTC time, in UTC."""
    moment, found = datetime.fromisoformat(f"{start}+00:00"), []
    for _ in range(count):
        moment = next_time(expression, ZoneInfo(zone), moment)
        found.append(moment.strftime("%Y-%m-%d %H:%M:%S"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 9 * * *", "2025-01-01 09:00:00"),
        ("@daily", "2025-01-02 00:00:00"),
        ("0 0 * * 0", "2025-01-05 00:00:00"),  # a Sunday
        ("0 0 * * 7", "2025-01-05 00:00:00"),
        ("0 0 * * sun", "2025-01-05 00:00:00"),
        ("0 0 13 * 5", "2025-01-03 00:00:00"),  # the 13th, or a Friday
        ("0 0 0 * * 1", "2025-01-05 00:00:00"),  # six fields: 1 is Sunday
        ("0 0 0 * * 2-4/2", "2025-01-06 00:00:00"),
        ("0 0 0 * * sun", "2025-01-05 00:00:00"),
        ("0 0 0 13 * 6", "2025-06-13 00:00:00"),  # the 13th, and a Friday
        ("30 * * * * *", "2025-01-01 08:00:30"),
        ("0 0 9 * * *", "2025-01-01 09:00:00"),
    ],
)
def test_both_dialects_are_read_as_their_users_mean_them(expression: str, expected: str) -> None:
    """A Wednesday at eight is where the search begins."""
    assert [expected] == after(expression, "2025-01-01 08:00:00")


def test_a_time_zone_moves_the_hours_through_the_year() -> None:
    assert ["2025-01-15 08:00:00"] == after("0 9 * * *", "2025-01-15 00:00:00", 1, "Europe/Berlin")
    assert ["2025-07-15 07:00:00"] == after("0 9 * * *", "2025-07-15 00:00:00", 1, "Europe/Berlin")


def test_a_time_that_clocks_skip_comes_right_after_the_gap() -> None:
    """On 2025-03-30 there is no 02:30 in Berlin."""
    got = after("30 2 * * *", "2025-03-29 12:00:00", 2, "Europe/Berlin")
    assert ["2025-03-30 01:00:00", "2025-03-31 00:30:00"] == got


def test_an_hour_that_clocks_repeat_counts_once_where_it_is_named() -> None:
    """On 2025-10-26 there are two 02:30 in Berlin; every half hour is every half hour."""
    start = "2025-10-25 23:59:00"
    once = after("30 2 * * *", start, 2, "Europe/Berlin")
    assert ["2025-10-26 00:30:00", "2025-10-27 01:30:00"] == once
    always = after("*/30 * * * *", start, 6, "Europe/Berlin")
    assert ["00:00", "00:30", "01:00", "01:30", "02:00", "02:30"] == [t[11:16] for t in always]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "must have five fields .* not 0"),
        ("* * * *", "must have five fields .* not 4"),
        ("* * * * * * *", "not 7"),
        ("61 * * * *", "is no cron expression"),
        ("x * * * *", "is no cron expression"),
        ("*/0 * * * *", "is no cron expression"),
        ("99999999999999999999 * * * *", "is no cron expression"),
        ("0 0 30 2 *", "names a time that never comes"),
        ("0 0 0 30 2 *", "names a time that never comes"),
        ("R * * * *", "must not leave anything to chance"),
        ("H(0-5) * * * *", "must not leave anything to chance"),
        ("0 0 9 * * 0", "has 0 for a day of the week"),
        ("0 0 9 * * 8", "has 8 for a day of the week"),
        ("@reboot", "must have five fields"),
    ],
)
def test_what_is_no_expression_is_said_in_words(expression: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_cron(expression)


@given(
    expression=st.sampled_from(MIXED + WITH_SECONDS),
    zone=st.sampled_from(ZONES),
    moment=st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),  # noqa: DTZ001
)
def test_the_next_time_is_later_and_the_first_one(
    expression: str, zone: str, moment: datetime
) -> None:
    """Nothing lies between: asked from just before it, it is found again."""
    start = moment.replace(tzinfo=UTC)
    found = next_time(expression, ZoneInfo(zone), start)
    assert found > start
    just_before = max(start, found - timedelta(microseconds=1))
    assert found == next_time(expression, ZoneInfo(zone), just_before)


@given(st.text(alphabet="0123456789*/,-#LRH@?abcdefu \x00٣", max_size=24))
def test_any_text_is_an_expression_or_a_value_error(text: str) -> None:
    """Nothing else comes out of it, and in no time."""
    with suppress(ValueError):
        check_cron(text)
