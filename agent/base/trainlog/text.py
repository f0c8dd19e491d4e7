"""Pieces of log lines that all formats share: escapes, envelopes, ranks, numbers."""

from __future__ import annotations

import json
import re
from datetime import timezone
from typing import Any, NamedTuple

from agent.base.trainlog.stamps import STAMP_WITHIN, stamp

LINE_LIMIT = 4096
"""Characters of a line that are looked at; a progress line is a few hundred long."""

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_RANK = re.compile(r"(?:\[(?:rank|default)[ -]?(\d{1,6})(?:/\d+)?\]|^\s*(\d{1,5}):\s|\[Rank (\d{1,6})\])")
_KUBERNETES = re.compile(r"(\d{4}-\d\d-\d\dT\S+) (?:stdout|stderr) [FP] ")
_NUMBER = re.compile(
    r"[-+]?(?:(?:(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)", re.I | re.A
)
_SCALAR = re.compile(r"\b(?:np\.|numpy\.)?(?:float\d*|tensor)\(([^(),]*)(?:,[^()]*)?\)")
_INTERVAL = re.compile(r"(?:(\d+) days?, )?(?:(\d+):)?(\d+):(\d\d(?:\.\d+)?)", re.A)
_SPELLED = re.compile(r"(?=\d)(?:(\d+)d ?)?(?:(\d+)h ?)?(?:(\d+)m ?)?(?:(\d+)s)", re.A)


class Line(NamedTuple):
    """A line without escapes and envelope; `time` is the envelope's clock in Unix seconds."""

    text: str
    time: float | None


def unwrap(line: str) -> Line:
    """Take off what container runtimes put round a line (docker's JSON, Kubernetes' prefix), and colours."""
    line = line[: 4 * LINE_LIMIT].removeprefix("\ufeff")
    time: float | None = None
    if line.startswith('{"log":'):
        try:
            envelope = parse_json(line)
            line = str(envelope["log"]).rstrip("\n")
            time = stamp(str(envelope.get("time", "")), timezone.utc)
        except (ValueError, KeyError, TypeError):
            pass
    elif found := _KUBERNETES.match(line):
        time = stamp(found[1], timezone.utc)
        line = line[found.end() :]
    if "\x1b" in line:
        line = _ESCAPES.sub("", line)
    return Line(line[:LINE_LIMIT], time)


def parse_json(text: str) -> Any:
    """As `json.loads`; what is nested too deeply to be read is a ValueError as well.

    Raises:
        ValueError: not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def rank(text: str) -> int | None:
    """The rank a launcher or logger put in front: `[rank3]:`, `[default3]:`, `[Rank 3]`, `3: ` (srun --label)."""
    found = _RANK.search(text[:STAMP_WITHIN])
    return int(next(group for group in found.groups() if group)) if found else None


def number(text: str | None) -> float | None:
    """The number that `text` is (thousands commas, quotes, `nan` and `inf` allowed); None if anything else is in it.

    A number that has lost its end or was written over is thus none, and not the number that is left of it.
    """
    if text is None or not (found := _NUMBER.fullmatch(text.strip().strip("'\""))):
        return None
    return float(found[0].replace(",", ""))


def scalars(text: str) -> str:
    """`text` with the numbers that numpy's and PyTorch's scalars hold: `np.float64(0.5)`, `tensor(0.5, ...)`."""
    return _SCALAR.sub(r"\1", text) if "(" in text else text


def integer(text: str | None) -> int | None:
    """As `number`, of whole numbers (`794.0` is one)."""
    return whole(number(text))


def whole(value: float | None) -> int | None:
    """`value` as an int if it is whole and finite, else None."""
    return int(value) if value is not None and abs(value) < 1e18 and value == int(value) else None


def interval(text: str) -> float | None:
    """Seconds of `58:12`, `9:07:58`, `878:01:48`, `2 days, 1:02:03` or `1h 2m 3s`; None for `?` and all else."""
    found = _INTERVAL.fullmatch(text.strip()) or _SPELLED.fullmatch(text.strip())
    if not found:
        return None
    days, hours, minutes, seconds = found.groups()
    return int(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def fields(text: str, separator: str = "|") -> dict[str, str]:
    """`key: value` pairs between separators, keys in lower case; the last of equal keys counts."""
    found: dict[str, str] = {}
    for part in text.split(separator):
        key, colon, value = part.partition(":")
        if colon:
            found[key.strip().lower()] = value.strip()
    return found
