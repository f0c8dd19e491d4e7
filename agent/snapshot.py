"""The immutable picture a scrape is answered from; rendered at most once for each variant."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from agent.base.exposition import Families, Format, Renderer

_MOST_FILTERS = 16
_REMEMBERED_S = 300.0

Variant = tuple[Format, bool, frozenset[str]]
"""Format, whether as gzip, and of which collectors (none: of all)."""


class Pages:
    """What the snapshots of a process share: the renderer, and which variants are asked for again and again.

    Those are rendered with the snapshot, so that a scrape finds its answer made: nobody waits for it, and what a
    scrape costs does not depend on how many servers scrape.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.renderer = Renderer()
        self._monotonic = monotonic
        self._asked: dict[Variant, float] = {}

    def ask(self, variant: Variant) -> None:
        """Somebody asked for this one, of which whole pages are kept ready for a while."""
        if not variant[2]:
            self._asked[variant] = self._monotonic()

    def wanted(self) -> list[Variant]:
        """What was asked for in the last minutes."""
        since = self._monotonic() - _REMEMBERED_S
        self._asked = {variant: at for variant, at in self._asked.items() if at > since}
        return list(self._asked)


@dataclass(frozen=True, slots=True)
class Status:
    """How one collector stands, for people and for readiness."""

    name: str
    state: str
    """"ok", "failed", "late" or "starting"."""
    error: str = ""
    series: int = 0
    began: float | None = None
    """When the run began that brought what is on the page, monotonic seconds."""


@dataclass(slots=True)
class Snapshot:
    """What was known at one tick.

    Attributes:
        taken: Unix time.
        at: the same moment in monotonic seconds.
        blocks: families by collector; the agent's own stand under "agent".
        statuses: how each collector stands.
        pages: shared by the snapshots of a process.
    """

    taken: float
    blocks: Mapping[str, Families]
    statuses: tuple[Status, ...]
    at: float = 0.0
    pages: Pages = field(default_factory=Pages)
    _made: dict[Variant, bytes] = field(default_factory=dict)

    def page(self, form: Format, *, gzip: bool = False, only: Collection[str] = ()) -> bytes:
        """The page in a format, whole or of the collectors `only`."""
        variant = (form, gzip, frozenset(only))
        self.pages.ask(variant)
        return self._page(variant)

    def make(self) -> None:
        """Render what will be asked for, as far as it was lately."""
        for variant in self.pages.wanted():
            self._page(variant)

    def _page(self, variant: Variant) -> bytes:
        page = self._made.get(variant)
        if page is None:
            form, gzip, only = variant
            shown = {name: families for name, families in self.blocks.items() if not only or name in only}
            page = self.pages.renderer.render(shown, form, gzip=gzip)
            if len(self._made) < _MOST_FILTERS:
                self._made[variant] = page
        return page

    def value(self, stem: str, collector: str = "") -> float | None:
        """The value of the first series of a metric, if it is on the page."""
        for name, families in self.blocks.items():
            if (not collector or name == collector) and stem in families:
                return next(iter(families[stem].values), None)
        return None

    @property
    def waiting(self) -> list[str]:
        """Collectors whose first run has neither ended nor passed its deadline."""
        return [status.name for status in self.statuses if status.state == "starting"]
