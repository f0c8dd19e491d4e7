"""The values of one line: each is a whole number, or absent, or damaged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.base.trainlog import text

NOTHING = frozenset({"none", "null", "n/a"})
"""What programs write for a value that they do not have: it is absent, and nothing is damaged."""


class Reading:
    """Gives numbers by the name they have in the line; `damaged` gathers the fields whose value is no number.

    A value that was damaged says nothing, and what was known before it no longer stands: `Progress.damaged`.
    """

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        """`values`: text of each value by its name in the line."""
        self._values = values or {}
        self._damaged: set[str] = set()

    @property
    def damaged(self) -> frozenset[str]:
        return frozenset(self._damaged)

    def spoil(self, *fields: str) -> None:
        """Fields that cannot be known, for what they are made of is damaged or the line ends before it."""
        self._damaged.update(fields)

    def derive(self, field: str, sources: Iterable[str]) -> None:
        """Spoil `field` if any of the fields it is made of is damaged."""
        if not self._damaged.isdisjoint(sources):
            self._damaged.add(field)

    def number(self, field: str, *names: str) -> float | None:
        """The value of the first of `names` that the line has, None if it has none of them or it is damaged."""
        given = self._given(names)
        return None if given is None else self.take(field, given)

    def integer(self, field: str, *names: str) -> int | None:
        """As `number`, of whole numbers."""
        given = self._given(names)
        return None if given is None else self.take_integer(field, given)

    def take(self, field: str, given: str, unit: str = "") -> float | None:
        """The number that `given` is before its `unit`; a unit that is missing is damage too."""
        value = text.number(given.removesuffix(unit)) if given.endswith(unit) else None
        if value is None and given.strip(" '\"").lower() not in NOTHING:
            self._damaged.add(field)
        return value

    def take_integer(self, field: str, given: str) -> int | None:
        value = self.take(field, given)
        if value is not None and text.whole(value) is None:
            self._damaged.add(field)
        return text.whole(value)

    def _given(self, names: Iterable[str]) -> str | None:
        return next((self._values[name] for name in names if name in self._values), None)
