"""The immutable picture a scrape is answered from; rendered at most once for each variant."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from agent.base.exposition import Families, Format, Renderer

_MOST_FILTERS = 16


@dataclass(frozen=True, slots=True)
class Status:
    """How one collector stands, for people and for readiness."""

    name: str
    state: str
    """"ok", "failed", "late" or "starting"."""
    error: str = ""
    series: int = 0
    age: float | None = None
    """Seconds since the run began that brought what is on the page."""


@dataclass(slots=True)
class Snapshot:
    """What was known at one tick.

    Attributes:
        taken: Unix time.
        blocks: families by collector; the agent's own stand under "agent".
        statuses: how each collector stands.
        renderer: shared by the snapshots of a process, for what does not change between them.
    """

    taken: float
    blocks: Mapping[str, Families]
    statuses: tuple[Status, ...]
    renderer: Renderer = field(default_factory=Renderer)
    _pages: dict[tuple[Format, bool, frozenset[str]], bytes] = field(default_factory=dict)

    def page(self, form: Format, *, gzip: bool = False, only: Collection[str] = ()) -> bytes:
        """The page in a format, whole or of the collectors `only`."""
        key = (form, gzip, frozenset(only))
        page = self._pages.get(key)
        if page is None:
            shown = (families for name, families in self.blocks.items() if not only or name in only)
            page = self.renderer.render(shown, form, gzip=gzip)
            if len(self._pages) < _MOST_FILTERS:
                self._pages[key] = page
        return page

    def value(self, stem: str, collector: str = "") -> float | None:
        """The value of the first series of a metric, if it is on the page."""
        for name, families in self.blocks.items():
            if (not collector or name == collector) and stem in families:
                return next(iter(families[stem].lines.values()), None)
        return None

    @property
    def waiting(self) -> list[str]:
        """Collectors whose first run has neither ended nor passed its deadline."""
        return [status.name for status in self.statuses if status.state == "starting"]
