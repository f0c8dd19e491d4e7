"""Dates and times as programs put them in front of their lines."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Final

STAMP_WITHIN: Final = 160
"""A line's own clock stands in its first characters; a date further on belongs to its text."""

_TIME: Final = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?(?: ?(?P<half>[AP])M\b)?"
    r"\s?(?P<zone>Z|UTC|GMT|[+-]\d\d:?\d\d)?(?![\d:])"
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATES: Final = tuple(
    re.compile(date + _TIME + rest, re.A)
    for date, rest in (
        (r"(?<!\d)(?P<year>\d{4})[-/.]?(?P<month>\d\d)[-/.]?(?P<day>\d\d)[ T_-]", ""),
        (r"(?<!\d)(?P<month>\d\d)/(?P<day>\d\d)/(?P<year>\d{4}|\d\d),? ", ""),
        (r"(?<!\d)(?P<day>\d\d)\.(?P<month>\d\d)\.(?P<year>\d{4}),? ", ""),
        (r"(?<!\d)(?P<year>\d\d)[-/](?P<month>\d\d)[-/](?P<day>\d\d) ", ""),
        (rf"\b(?P<name>{'|'.join(_MONTHS)}) +(?P<day>\d{{1,2}}) ", r"(?: [A-Z]{3,4})?(?: (?P<year>\d{4})\b)?"),
        (r"^[DIWEF](?P<month>\d\d)(?P<day>\d\d) +", ""),
        (r"(?<![\d/-])(?P<month>\d\d)[-/](?P<day>\d\d) ", ""),
    )
)
"""The usual one first; then the month before the day where a year ends the date, as Python's loggers have it."""
_ANY_TIME: Final = re.compile(r"\d:\d\d:\d\d", re.A)
_UNIX: Final = re.compile(r"\W{0,2}(1\d{9}\.\d{1,9}|1\d{9}(?=\]))(?=[\s\]:,)])", re.A)
_OF_DAY: Final = re.compile(
    r"\W{0,3}(?:[A-Z]{4,8}\W{1,3})?([01]\d|2[0-3]):([0-5]\d):([0-5]\d(?:[.,]\d{1,6})?)(?![\d:<])", re.A
)


def stamp(text: str, tz: tzinfo | None = None) -> float | None:
    """Unix seconds of the date and time in `text`, or None.

    A date without a year is the last one that is not in the future.

    Args:
        text: the beginning of a line.
        tz: the zone of a clock that names none; the machine's own if None.
    """
    text = text[:STAMP_WITHIN]
    if not _ANY_TIME.search(text):
        found = _UNIX.match(text)
        return float(found[1]) if found else None
    for date in _DATES:
        if (found := date.search(text)) and (moment := _moment(found.groupdict(), tz)) is not None:
            return moment
    return None


def time_of_day(text: str) -> float | None:
    """Seconds since midnight on the clock with which `text` begins, or None; for lines whose clock has no date."""
    found = _OF_DAY.match(text)
    return 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3].replace(",", ".")) if found else None


def _moment(given: dict[str, str | None], tz: tzinfo | None) -> float | None:
    if zone := given["zone"]:
        tz = timezone.utc if zone.isalpha() else _offset(zone)
    name, hour = given.get("name"), int(given["hour"] or 0)
    if half := given["half"]:
        hour = hour % 12 + (12 if half == "P" else 0)
    month = _MONTHS.index(name) + 1 if name else int(given["month"] or 0)
    rest = (month, int(given["day"] or 0), hour, int(given["minute"] or 0), int(given["second"] or 0))
    fraction = float(f"0.{given['fraction']}") if given["fraction"] else 0.0
    for year in _years(given.get("year")):
        try:
            moment = datetime(year, *rest, tzinfo=tz).timestamp()
        except (ValueError, OverflowError, OSError):
            continue
        if given.get("year") or moment <= datetime.now().timestamp() + 86400:
            return moment + fraction
    return None


def _years(given: str | None) -> range:
    """Years that the date may be of, the likeliest first."""
    if given:
        year = int(given) + (2000 if len(given) == 2 else 0)
        return range(year, year + 1)
    now = datetime.now().year
    return range(now + 1, now - 9, -1)  # a 29th of February comes again after eight years at most


def _offset(zone: str) -> timezone:
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return timezone(timedelta(minutes=min(minutes, 1439) * (-1 if zone[0] == "-" else 1)))
