"""The log's clock against ours: a container that writes UTC on a node that does not is hours off."""

from __future__ import annotations

_HALF_HOUR = 1800.0
_FURTHEST = 15 * 3600.0
_SLACK = 120.0
_AHEAD = 120.0
"""Seconds by which a clock may be ahead of ours."""


def believed(at: float | None, now: float) -> float | None:
    """`at` in Unix seconds; None if there is none or it cannot be: no number, before 1970, later than now."""
    return at if at is not None and 0 <= at <= now + _AHEAD else None


class LogClock:
    """Corrects a log's zoneless clock by whole half hours, the step of nearly all time zones.

    The file's modification time is when its last line was written, on our clock: the difference to the clock
    of a progress line at the end is the zone's, if it is plausible and close to whole half hours.
    """

    def __init__(self) -> None:
        self.offset = 0.0
        """Seconds to add to the log's times."""
        self.known = False
        """The offset has been found out; later it may change with the season."""

    def learn(self, last_line: float, modified: float) -> None:
        """Compare the time in one of the file's last lines with the file's modification time."""
        difference = modified - last_line
        whole = round(difference / _HALF_HOUR) * _HALF_HOUR
        if abs(whole) <= _FURTHEST and abs(difference - whole) <= _SLACK:
            self.offset, self.known = whole, True
