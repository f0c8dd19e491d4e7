"""A table: a line of column names, then a line of values for each step, as Lightning's CSVLogger writes `metrics.csv`.

Columns have the names of the `json` format; `_ms` behind a name are milliseconds. Where a column `kind`, `split` or
`phase` says that a line is of the validation, its loss is.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from agent.base.trainlog.jsonlines import NAMES, record
from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.text import number

_CELL = r"[^,|{}\[\]()'\":=]{0,64}"
_KINDS: Final = ("kind", "split", "phase")
_VALIDATION: Final = re.compile(r"val|eval|test", re.I)


class Table(Parser):
    name = "csv"
    summary = "comma-separated values with a line of names"
    claims = re.compile(rf"^{_CELL}(?:,{_CELL})+$")

    _columns: tuple[str, ...] = ()

    def ignores(self, line: str) -> bool:
        """Lines of names, of which the last counts; all others before there is one, and lines without a step."""
        cells = _cells(line)
        if any(cell in NAMES["step"] for cell in cells) and all(number(cell) is None for cell in cells):
            self._columns = cells
            return True
        if len(cells) != len(self._columns):
            return not self._columns
        return not any(self._values(cells).get(name) for name in NAMES["step"])

    def parse(self, line: str) -> Progress | None:
        cells = _cells(line)
        if len(cells) != len(self._columns):
            return None
        values = self._values(cells)
        found = record(values, self.tz)
        if found is not None and any(_VALIDATION.search(str(values.get(kind, ""))) for kind in _KINDS):
            damaged = {"validation_loss" if name == "loss" else name for name in found.damaged}
            return replace(found, loss=None, validation_loss=found.loss, damaged=frozenset(damaged))
        return found

    def _values(self, cells: tuple[str, ...]) -> dict[str, Any]:
        """The cells that hold something, by column; numbers as such, that a time may be one."""
        found: dict[str, Any] = {}
        for column, cell in zip(self._columns, cells, strict=True):
            value = number(cell)
            if cell and value is not None and column.endswith("_ms"):
                found[column.removesuffix("_ms")] = value / 1000
            elif cell:
                found[column.removesuffix("_ms")] = cell if value is None or column in NAMES["step"] else value
        return found


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.split(","))
