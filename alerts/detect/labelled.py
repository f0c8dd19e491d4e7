"""Labelled series on disk: CSV with a time, a value and, if there, a label; or windows in `windows.json`."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.base.errors import ConfigError
from alerts.detect.bands import Array

WINDOWS = "windows.json"
TIMES = (
    "timestamp",
    "time",
    "datetime",
    "date",
    "ds",
    "ts",
    "date_time",
    "time_stamp",
    "timestamps",
    "unix",
    "unixtime",
    "epoch",
)
VALUES = ("value", "values", "y", "val", "metric", "reading", "v")
LABELS = ("label", "labels", "is_anomaly", "anomaly", "isanomaly", "anomalous", "class", "is_outlier", "outlier")
Windows = Sequence[tuple[str, str]]
"""From and to, as they stand in the file; both belong to the window."""
_FORMATS = ("%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d", "%Y%m%d%H%M%S", "%d %b %Y %H:%M:%S", "%d-%b-%Y %H:%M:%S")
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))? ?(Z|UTC|[+-]\d\d(?::?\d\d)?)?)?", re.IGNORECASE
)
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")
_SLASHED = ("%H:%M:%S.%f", "%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One file.

    Attributes:
        path: relative to the directory.
        stamps, texts: time and value of each row as they stand in the file.
        times, values: the same as numbers (R,); NaN where a value is missing.
        labels: 1 where the row is anomalous (R,), None where nobody said.
    """

    path: Path
    stamps: tuple[str, ...]
    texts: tuple[str, ...]
    times: Array
    values: Array
    labels: npt.NDArray[np.int64] | None


def read_directory(folder: Path, time_format: str | None = None) -> list[Labelled]:
    """Every CSV below `folder`, in order of path.

    Raises:
        ConfigError: no CSV there, one that cannot be read, or times that can be read in two ways.
    """
    windows = read_windows(folder)
    return [read_file(path, folder, windows.get(path), time_format) for path in find(folder)]


def find(folder: Path) -> list[Path]:
    """Every CSV below `folder`, in order of path.

    Raises:
        ConfigError: there is none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".csv" and path.is_file())
    if not paths:
        raise ConfigError(f"{folder}: no .csv file below it")
    return paths


def read_file(path: Path, folder: Path, windows: Windows | None = None, time_format: str | None = None) -> Labelled:
    """One CSV, its columns divided by comma, semicolon, tab or bar; `windows` (from, to) beat its label column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            mark = max(",;\t|", key=first.count)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=mark)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from None
    if not first.strip():
        raise ConfigError(f"{path}: has no rows")
    names = {_plain(name): name for name in reader.fieldnames or ()}
    time, value, label = _columns(names)
    if time is None or value is None:
        raise ConfigError(f"{path}:1: needs a time ({', '.join(TIMES[:4])}) and a value column, has {', '.join(names)}")
    stamps = tuple((row[time] or "").strip() for row in rows)
    texts = tuple((row[value] or "").strip() for row in rows)
    times = parse_times(stamps, str(path), time_format)
    labels = None
    if windows is not None:
        labels = np.zeros(len(rows), dtype=np.int64)
        for begin, end in windows:
            low, high = parse_times([begin, end], f"{WINDOWS} ({path.name})", time_format)
            labels[(times >= low) & (times <= high)] = 1
    elif label is not None:
        labels = np.array([_is_set(row[label]) for row in rows], dtype=np.int64)
    values = np.array([_number(text.replace(",", ".") if mark != "," else text) for text in texts])
    return Labelled(path.relative_to(folder), stamps, texts, times, values, labels)


def parse_times(stamps: Sequence[str], where: str, time_format: str | None = None) -> Array:
    """Unix times (R,); a stamp without a zone is UTC.

    Raises:
        ConfigError: a stamp is no time, or day and month cannot be told apart.
    """
    found = np.empty(len(stamps))
    if not stamps:
        return found
    read = _reader(stamps, where, time_format)
    for row, stamp in enumerate(stamps):
        try:
            found[row] = read(stamp)
        except (ValueError, TypeError, OverflowError):
            raise ConfigError(f"{where}:{row + 2}: {stamp!r} is no time; give --time-format") from None
    return found


class _reader:
    """Chooses one way to read the stamps of a file, and reads them by it."""

    def __init__(self, stamps: Sequence[str], where: str, time_format: str | None) -> None:
        self._formats: tuple[str, ...] = (time_format,) if time_format else ()
        self._unit = 0.0
        if time_format:
            return
        first = stamps[0]
        if _is_number(first) and not _looks_compact(first):
            self._unit = _unit(float(first))
            return
        if "/" in first or (first[2:3] in ".-" and first[5:6] in ".-"):
            self._formats = _day_and_month(stamps, where)

    def __call__(self, stamp: str) -> float:
        if self._unit:
            return float(stamp) * self._unit
        for layout in self._formats:
            try:
                return _utc(datetime.strptime(stamp, layout))
            except ValueError:
                continue
        if self._formats:
            raise ValueError(stamp)
        if iso := _ISO.fullmatch(stamp):
            date, clock, fraction, zone = iso.groups()
            if zone:
                zone = "+00:00" if zone.upper() in ("Z", "UTC") else f"{zone[:3]}:{zone[3:].strip(':') or '00'}"
            moment = datetime.fromisoformat(f"{date}T{clock or '00:00'}{zone or ''}")
            return _utc(moment) + float(f"0.{fraction or 0}")
        for layout in _FORMATS:
            try:
                return _utc(datetime.strptime(stamp, layout))
            except ValueError:
                continue
        return _utc(parsedate_to_datetime(stamp))


def _day_and_month(stamps: Sequence[str], where: str) -> tuple[str, ...]:
    """Layouts for 07/03/2018 10:00, when the numbers say which is the day."""
    mark = next(mark for mark in "/.-" if mark in stamps[0])
    parts = [stamp.split()[0].split(mark) for stamp in stamps if stamp]
    if len(parts[0][0]) == 4:
        day = f"%Y{mark}%m{mark}%d"
    else:
        first, second = max(int(part[0]) for part in parts), max(int(part[1]) for part in parts)
        if first <= 12 and second <= 12:
            raise ConfigError(f"{where}: in {stamps[0]!r} the day could be the month: give --time-format")
        year = "%Y" if len(parts[0][2]) == 4 else "%y"
        day = f"%d{mark}%m{mark}{year}" if first > 12 else f"%m{mark}%d{mark}{year}"
    return tuple(f"{day} {clock}".strip() for clock in _SLASHED)


def _looks_compact(text: str) -> bool:
    """20180703140000 is a date, 1530626400000 a count of milliseconds."""
    return len(text) in (12, 14) and text.isdigit() and text[:2] in ("19", "20") and "01" <= text[4:6] <= "12"


def _unit(value: float) -> float:
    for limit, unit in ((1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6)):
        if abs(value) < limit:
            return unit
    return 1e-9


def _utc(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def read_windows(folder: Path) -> dict[Path, Windows]:
    """The windows that each `windows.json` below `folder` gives for files beside or below it.

    A file is named by its path from there, or by the end of its path if that fits one file alone.

    Raises:
        ConfigError: one is no such document, or names no file that is there.
    """
    found: dict[Path, Windows] = {}
    for path in sorted(folder.rglob(WINDOWS)):
        try:
            document = json.loads(path.read_text(encoding="utf-8-sig"))
            spans = {str(name): tuple((str(a), str(b)) for a, b in spans) for name, spans in document.items()}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path}: must be {{file: [[from, to], ...]}}: {error}") from None
        below = find(path.parent) if spans else []
        unknown = []
        for name, windows in spans.items():
            ends = [file for file in below if f"/{file.as_posix()}".endswith("/" + name.removeprefix("./"))]
            exact = path.parent / name
            if exact not in below and len(ends) != 1:
                unknown.append(name)
                continue
            found[exact if exact in below else ends[0]] = windows
        if unknown and len(unknown) == len(spans):
            raise ConfigError(f"{path}: no such file here: {', '.join(unknown[:5])}")
    return found


def _plain(name: str | None) -> str:
    """A column's name in small letters, words joined by one low line."""
    return re.sub(r"[^a-z0-9]+", "_", (name or "").lower()).strip("_")


def _columns(names: dict[str, str]) -> tuple[str | None, str | None, str | None]:
    """Names of the time, value and label columns; a value may have any name where only one column is left."""
    time, value, label = (
        next((names[name] for name in known if name in names), None) for known in (TIMES, VALUES, LABELS)
    )
    rest = [name for plain, name in names.items() if plain and name not in (time, label)]
    if value is None and time is not None and len(rest) == 1:
        value = rest[0]
    return time, value, label


def _is_set(text: str | None) -> bool:
    lowered = (text or "").strip().lower()
    return lowered not in ("", "0", "0.0", "false", "no", "normal", "n", "nan")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _number(text: str) -> float:
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
