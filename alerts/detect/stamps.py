"""Times as people write them: read where they can be read in one way, else refused.

A count since 1970 (the unit follows from its size), or a date with or without a time of day. Of 07/03/2018 the whole
file tells which is the day; where it does not, nobody guesses.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

import numpy as np

from agent.base.errors import ConfigError
from alerts.detect.bands import Array

Read = Callable[[str], float]
"""Unix time of a stamp; raises ValueError where it is none."""
Order = tuple[int, int, int]
"""Where year, month and day stand."""
YMD, DMY, MDY = (0, 1, 2), (2, 1, 0), (2, 0, 1)
LATEST = 1e11
"""Unix times beyond it (the year 5138) are mistakes."""
_CLOCK = (
    r"(?:(?:[T ,:]|, )(\d\d?)(?::(\d\d)(?::(\d\d)(?:[.,](\d+))?)?)? ?(am|pm)?)?"
    r" ?(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?"
)
_NUMBERS = re.compile(rf"(\d{{1,4}})([-/.])(\d\d?)\2(\d{{1,4}}){_CLOCK}", re.IGNORECASE)
_COMPACT = re.compile(r"((?:19|20)\d\d)(0[1-9]|1[0-2])([0-3]\d)(?:T?([0-2]\d)([0-5]\d)([0-5]\d)?)?(Z)?", re.IGNORECASE)
_DAY = r"(?:[a-z]{3,9},? )?"
_NAMED = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_DAY}(?P<day>\d\d?)[- /](?P<month>[a-z]{{3}})[a-z]*\.?[- /,]+(?P<year>\d{{4}}){_CLOCK}",
        rf"{_DAY}(?P<month>[a-z]{{3}})[a-z]*\.? +(?P<day>\d\d?),? (?P<year>\d{{4}}){_CLOCK}",
        rf"{_DAY}(?P<month>[a-z]{{3}}) +(?P<day>\d\d?){_CLOCK} (?P<year>\d{{4}})",
    )
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def parse_times(stamps: Sequence[str], where: str, time_format: str | None = None) -> Array:
    """Unix times (R,); a stamp without a zone is UTC.

    Raises:
        ConfigError: a stamp is no time, or day and month cannot be told apart.
    """
    return read_all(reader(stamps, where, time_format), stamps, where, time_format)


def read_all(read: Read, stamps: Sequence[str], where: str, time_format: str | None = None) -> Array:
    """Unix times (R,); `time_format` is told where one does not fit it.

    Raises:
        ConfigError: a stamp is no time.
    """
    found = np.empty(len(stamps))
    for row, stamp in enumerate(stamps):
        try:
            found[row] = read(stamp)
        except (ValueError, OverflowError):
            why = f"does not fit --time-format {time_format!r}" if time_format else "is no time; give --time-format"
            raise ConfigError(f"{where}:{row + 2}: {stamp!r} {why}") from None
    return found


def reader(stamps: Sequence[str], where: str, time_format: str | None = None) -> Read:
    """The one way to read the stamps of a file.

    Raises:
        ConfigError: there are two.
    """
    if time_format:
        layout = time_format
        return lambda stamp: _utc(datetime.strptime(stamp, layout))
    first = next(filter(None, stamps), "")
    if is_number(first) and not _COMPACT.fullmatch(first):
        unit = _unit(float(first))
        return lambda stamp: _counted(stamp, unit)
    order = _order(stamps, where)
    return lambda stamp: _dated(stamp, order)


def beside(read: Read, stamp: str, where: str) -> float:
    """Unix time of a stamp that belongs to a file, and is written as that file's own (`read`) or in a way of its own.

    Raises:
        ConfigError: it is no time, or can be read in two ways.
    """
    if not is_number(stamp):
        try:
            return read(stamp)
        except (ValueError, OverflowError):
            pass
    try:
        return reader([stamp], where)(stamp)
    except (ValueError, OverflowError):
        raise ConfigError(f"{where}: {stamp!r} is no time") from None


def _counted(stamp: str, unit: float) -> float:
    value = float(stamp) * unit
    if not abs(value) < LATEST:
        raise ValueError(stamp)
    return value


def _dated(stamp: str, order: Order) -> float:
    if found := _NUMBERS.fullmatch(stamp):
        date, clock = found.group(1, 3, 4), found.groups()[4:]
        year, month, day = (int(date[place]) for place in order)
        if len(date[order[0]]) == 2:
            year += 2000 if year < 69 else 1900
        return _moment(year, month, day, *clock)
    if found := _COMPACT.fullmatch(stamp):
        *numbers, hour, minute, second, zone = found.groups()
        year, month, day = map(int, numbers)
        return _moment(year, month, day, hour, minute, second, None, None, zone)
    for pattern in _NAMED:
        if found := pattern.fullmatch(stamp):
            names = found.groupdict()
            named = pattern.groupindex.values()
            clock = tuple(text for number, text in enumerate(found.groups(), 1) if number not in named)
            month = _MONTHS.index(names["month"].lower()) + 1
            return _moment(int(names["year"]), month, int(names["day"]), *clock)
    raise ValueError(stamp)


def _moment(
    year: int,
    month: int,
    day: int,
    hour: str | None,
    minute: str | None,
    second: str | None,
    fraction: str | None,
    half: str | None,
    zone: str | None,
) -> float:
    hours = int(hour or 0)
    if half:
        if not 1 <= hours <= 12:
            raise ValueError(hour)
        hours = hours % 12 + 12 * (half.lower() == "pm")
    moment = datetime(year, month, day, hours, int(minute or 0), int(second or 0), tzinfo=timezone.utc)
    if zone and zone[0] in "+-":
        east = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:].strip(":") or 0))
        moment -= east if zone[0] == "+" else -east
    return moment.timestamp() + float(f"0.{fraction or 0}")


def _order(stamps: Sequence[str], where: str) -> Order:
    """Where year, month and day stand, when the numbers of all dates allow one order only."""
    dates = [found.group(1, 3, 4) for found in map(_NUMBERS.fullmatch, stamps) if found]
    if not dates or any(len(date[0]) == 4 for date in dates):
        return YMD
    short = all(len(date[2]) <= 2 for date in dates)
    places = [max(map(int, place)) for place in zip(*dates, strict=True)]
    possible = [
        order
        for order in ((YMD, DMY, MDY) if short else (DMY, MDY))
        if places[order[1]] <= 12 and places[order[2]] <= 31
    ]
    if len(possible) > 1 and (short or any(int(date[0]) != int(date[1]) for date in dates)):
        example = next(stamp for stamp in stamps if _NUMBERS.fullmatch(stamp))
        what = "year, month and day cannot be told apart" if short else "the day could be the month"
        raise ConfigError(f"{where}: in {example!r} {what}: give --time-format")
    return possible[0] if possible else YMD


def is_number(text: str) -> bool:
    """Whether this is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _unit(value: float) -> float:
    for limit, unit in ((1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6)):
        if abs(value) < limit:
            return unit
    return 1e-9


def _utc(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
