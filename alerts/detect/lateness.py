"""Is a run late? Its expected duration against the plan, with hysteresis, and who must hear of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from alerts.detect.eta import Eta, Track

LATE = 0.15
"""Deviation above which a run is late."""
GOOD = 0.10
"""Deviation below which it is no longer."""
RECORDS = 3
WORK = 0.01
"""A state changes only after so many records in a row that also span this share of the work."""
DEAREST = 3.0
"""A configured plan beyond the interval widens it, unless the steps left would have to cost so many times as much."""
LEARN_AT = 0.05
LEARN_RECORDS = (8, 20)
"""Share of the work after which a run is settled: it can be late from then on. Where no plan is configured one is
learnt after the first number of records if they agree, else after the second."""

Alert = Literal["ticket", "page"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The state after a record.

    `deviation` is `eta.total / plan - 1`, None while there is no plan yet; `pace` is the present pace against the one
    learnt when it had settled, minus 1: it tells of a slowdown long before the finish suffers much.
    """

    eta: Eta | None
    deviation: float | None
    alert: Alert | None
    learned: bool
    pace: float | None = None


@dataclass(slots=True)
class Lateness:
    """Judges a run record by record.

    Args:
        plan: seconds that the run should take; None learns it once the pace has settled. A learnt plan never
            pages: only somebody who promised a date can miss it.
    """

    plan: float | None = None
    learned: bool = field(init=False)
    _late: bool = False
    _since: float | None = None
    _count: int = 0
    _phases: int = 0
    _total: float = 0.0
    _pace: float | None = None
    _pace_of: int = 0
    _interrupted: float = 0.0
    """Seconds of interruptions in a learnt plan."""

    def __post_init__(self) -> None:
        self.learned = self.plan is None

    def judge(self, track: Track, now: float | None = None) -> Judgement:
        """The state with what `track` knows now; call once a record."""
        eta = track.estimate(now)
        if eta is None:
            return Judgement(None, None, None, self.learned)
        if self.learned and (track.phases, track.total) != (self._phases, self._total):
            self.plan, self._late = None, False  # announced: what was learnt is void
        self._phases, self._total = track.phases, track.total
        few, many = LEARN_RECORDS
        agree = eta.low >= (1.0 - LATE / 2) * eta.total
        learnable = track.phase_records >= (few if agree else many)
        if track.phases != self._pace_of or (self._pace is None and learnable):
            self._pace = eta.pace if learnable else None
            self._pace_of = track.phases
        pace = eta.pace / self._pace - 1.0 if self._pace else None
        if self.plan is None and track.done >= LEARN_AT and learnable:
            self.plan = eta.total
            self._interrupted = track.interrupted
        if not self.plan:
            return Judgement(eta, None, None, self.learned, pace)
        if self.learned:  # an evaluation that has not come yet is not in it, and is no lateness when it does
            self.plan += track.interrupted - self._interrupted
            self._interrupted = track.interrupted
        if not self.learned and eta.high < self.plan <= track.elapsed + DEAREST * (eta.total - track.elapsed):
            eta = replace(eta, high=self.plan)  # who promised it may know of dearer steps to come
        deviation = eta.total / self.plan - 1.0
        if track.done >= LEARN_AT or track.elapsed > (1.0 + LATE) * self.plan:
            self._turn(deviation, track.done)
        alert: Alert | None = None
        if self._late:
            alert = "page" if not self.learned and eta.low > self.plan else "ticket"
        return Judgement(eta, deviation, alert, self.learned, pace)

    def _turn(self, deviation: float, done: float) -> None:
        """Change the state once the deviation has stood on the other side for long enough."""
        other = deviation < GOOD if self._late else deviation > LATE
        if not other:
            self._since, self._count = None, 0
            return
        if self._since is None:
            self._since = done
        self._count += 1
        if self._count >= RECORDS and abs(done - self._since) >= WORK:
            self._late = not self._late
            self._since, self._count = None, 0
