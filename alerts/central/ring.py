"""A ring of points: the window that a monitor remembers, one column a series, on a grid of its step."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from alerts.central.promread import Labels, Series


class Ring:
    """The last `length` grid rows of any number of series; a row is Unix time / step.

    Memory is `length` x series x 8 bytes. Rows only move forward; a point older than the window is dropped.
    """

    def __init__(self, length: int, step: float) -> None:
        self.length = length
        self.step = step
        self.keys: list[Labels] = []
        self.head: int | None = None
        self._columns: dict[Labels, int] = {}
        self._data = np.full((length, 0), np.nan)

    @property
    def series(self) -> int:
        return len(self.keys)

    def columns(self, keys: Iterable[Labels]) -> npt.NDArray[np.intp]:
        """Where each series stands in `rows` and `window`; -1 if it is not here."""
        return np.array([self._columns.get(key, -1) for key in keys], dtype=np.intp)

    def advance(self, head: int) -> None:
        """Make `head` the newest row; the rows that it uncovers are empty."""
        if self.head is None:
            self.head = head
        if head > self.head:
            fresh = np.arange(max(self.head + 1, head - self.length + 1), head + 1) % self.length
            self._data[fresh] = np.nan
            self.head = head

    def put(self, series: Series) -> None:
        """Store points, over what stood there: late data is read again."""
        if self.head is None:
            raise ValueError("advance before put")
        column = self._columns.get(series.labels)
        if column is None:
            column = self._grow(series.labels)
        keep = (series.rows <= self.head) & (series.rows > self.head - self.length)
        self._data[series.rows[keep] % self.length, column] = series.values[keep]

    def blank(self, first: int, last: int, columns: npt.NDArray[np.intp] | list[int]) -> None:
        """Forget rows `first..last` of some columns: points that must be neither learnt nor scored."""
        if self.head is None or not len(columns):
            return
        rows = np.arange(max(first, self.head - self.length + 1), min(last, self.head) + 1) % self.length
        self._data[np.ix_(rows, np.asarray(columns))] = np.nan

    def rows(self, first: int, last: int) -> npt.NDArray[np.float64]:
        """A copy of rows `first..last` (both included), shape (last - first + 1, series); NaN is missing."""
        if self.head is None or first > last:
            return np.empty((0, self.series))
        if first <= self.head - self.length or last > self.head:
            raise ValueError(f"rows {first}..{last} are not within the window that ends at {self.head}")
        index = np.arange(first, last + 1) % self.length
        return np.array(self._data[index, : self.series])

    def window(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Unix times (length,) and values (length, series) of the whole window, oldest first."""
        if self.head is None:
            return np.empty(0), np.empty((0, self.series))
        first = self.head - self.length + 1
        times = np.arange(first, self.head + 1, dtype=np.float64) * self.step
        return times, self.rows(first, self.head)

    def fill(self, head: int, keys: list[Labels], values: npt.NDArray[np.float64]) -> None:
        """Replace everything by a whole window, (length, series) oldest first, that ends at row `head`."""
        self.keys, self.head = list(keys), head
        self._columns = {key: column for column, key in enumerate(self.keys)}
        self._data = np.empty((self.length, len(keys)))
        self._data[np.arange(head - self.length + 1, head + 1) % self.length] = values

    def forget_silent(self) -> list[Labels]:
        """Drop series without a point in the whole window; returns those dropped."""
        used = self._data[:, : self.series]
        alive = ~np.isnan(used).all(axis=0)
        if alive.all():
            return []
        gone = [key for key, live in zip(self.keys, alive, strict=True) if not live]
        self.keys = [key for key, live in zip(self.keys, alive, strict=True) if live]
        self._columns = {key: column for column, key in enumerate(self.keys)}
        self._data = used[:, alive].copy()
        return gone

    def _grow(self, labels: Labels) -> int:
        column = self.series
        if column == self._data.shape[1]:
            wider = np.full((self.length, max(8, 2 * column)), np.nan)
            wider[:, :column] = self._data
            self._data = wider
        self.keys.append(labels)
        self._columns[labels] = column
        return column
