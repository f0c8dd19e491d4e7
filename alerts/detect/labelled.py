"""Labelled series on disk: CSV with a time, a value and, if there, a label; or windows in `windows.json`."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.base.errors import ConfigError
from alerts.detect.bands import Array
from alerts.detect.stamps import beside, is_number, read_all, reader

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
LABELS = (
    "label",
    "labels",
    "is_anomaly",
    "anomaly",
    "isanomaly",
    "anomalous",
    "is_anomalous",
    "anomaly_label",
    "anomaly_labels",
    "ground_truth",
    "class",
    "is_outlier",
    "outlier",
)
NORMAL = ("", "false", "f", "no", "n", "normal", "ok", "none", "null", "n/a", "-", "healthy", "benign", "nominal")
"""Labels, beside 0, of a row that is no anomaly."""
MISSING = ("", "nan", "inf", "+inf", "-inf", "infinity", "-infinity", "null", "none", "na", "n/a", "-")
"""Values that say there is none."""
FIRST = 100
"""Rows whose first entries tell which columns hold numbers."""
Windows = Sequence[tuple[str, str]]
"""From and to, as they stand in the file; both belong to the window."""
_THOUSANDS = re.compile(r"-?\d{1,3}(,\d{3})+(\.\d+)?")


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
    windows, _ = read_windows(folder)
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
    """One CSV, its columns divided by comma, semicolon, tab or bar; `windows` (from, to) beat its label column.

    Raises:
        ConfigError: it has no rows, no time or no value; a time can be read in two ways; no value is a number.
    """
    header, rows, mark = _read_rows(path)
    time, value, label = _columns(path, header, rows)
    stamps, texts = _column(rows, time), _column(rows, value)
    read = reader(stamps, str(path), time_format)
    times = read_all(read, stamps, str(path), time_format)
    labels = None
    if windows is not None:
        labels = np.zeros(len(rows), dtype=np.int64)
        for span in windows:
            low, high = (beside(read, text, f"{WINDOWS} ({path.name})") for text in span)
            if low > high:
                raise ConfigError(f"{WINDOWS} ({path.name}): {span[0]!r} is after {span[1]!r}")
            labels[(times >= low) & (times <= high)] = 1
    elif label is not None:
        labels = np.array([_is_set(text) for text in _column(rows, label)], dtype=np.int64)
    values = np.array([_number(text.replace(",", ".") if mark != "," else text) for text in texts])
    strange = next((text for text in texts if text.lower() not in MISSING), None)
    if strange is not None and np.isnan(values).all():
        raise ConfigError(f"{path}: no value in column {header[value]!r} is a number; the first is {strange!r}")
    return Labelled(path.relative_to(folder), stamps, texts, times, values, labels)


def _read_rows(path: Path) -> tuple[list[str], list[list[str]], str]:
    """Header, rows that hold anything, and what divides their columns."""
    try:
        with path.open("rb") as raw:
            wide = raw.read(2) in (b"\xff\xfe", b"\xfe\xff")
        # A letter that cannot be read is no matter in a column that is not asked for.
        with path.open(encoding="utf-16" if wide else "utf-8-sig", errors="replace", newline="") as file:
            first = next((line for line in iter(file.readline, "") if line.strip()), "")
            mark = max(",;\t|", key=first.count)
            file.seek(0)
            rows = [row for row in csv.reader(file, delimiter=mark) if any(row)]
    except (OSError, UnicodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from None
    if not rows:
        raise ConfigError(f"{path}: has no rows")
    return rows[0], rows[1:], mark


def _column(rows: list[list[str]], place: int) -> tuple[str, ...]:
    return tuple(row[place].strip() if place < len(row) else "" for row in rows)


def read_windows(folder: Path) -> tuple[dict[Path, Windows], list[str]]:
    """The windows that each `windows.json` below `folder` gives for files beside or below it; and names without one.

    A file is named by its path from there, or by the end of its path if that fits one file alone.

    Raises:
        ConfigError: one is no such document, or names no file that is there.
    """
    found: dict[Path, Windows] = {}
    strange: list[str] = []
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
            raise ConfigError(f"{path}: no such file here, or more than one: {', '.join(unknown[:5])}")
        strange += unknown
    return found, strange


def _plain(name: str | None) -> str:
    """A column's name in small letters, words joined by one low line."""
    return re.sub(r"[^a-z0-9]+", "_", (name or "").lower()).strip("_")


def _columns(path: Path, header: list[str], rows: list[list[str]]) -> tuple[int, int, int | None]:
    """Places of the time, value and label columns; a value may have any name where no other column holds numbers.

    Raises:
        ConfigError: there is no time, or no value.
    """
    names = list(map(_plain, header))
    time, value, label = (
        next((names.index(name) for name in known if name in names), None) for known in (TIMES, VALUES, LABELS)
    )
    if time is None:
        near = [place for place, name in enumerate(names) if name.partition("_")[0] in TIMES]
        time = near[0] if len(near) == 1 else None
    if value is None and time is not None:
        rest = [place for place, name in enumerate(names) if name and place not in (time, label)]
        numeric = [place for place in rest if is_number(next(filter(None, _column(rows[:FIRST], place)), ""))]
        left = rest if len(rest) == 1 else numeric
        value = left[0] if len(left) == 1 else None
    if time is None or value is None:
        raise ConfigError(f"{path}:1: needs a time ({', '.join(TIMES[:4])}) and a value column, has {', '.join(names)}")
    return time, value, label


def _is_set(text: str) -> bool:
    lowered = text.lower()
    try:
        return not math.isnan(number := float(lowered)) and number != 0
    except ValueError:
        return lowered not in NORMAL


def _number(text: str) -> float:
    text = text.removesuffix("%")
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
