"""Training ETA: error beside plain rules, coverage, false alerts, and the delay on injected slowdowns.

`runs` takes every log below --data whose end is in it (CSV of progress or raw), `generator` made-up runs with fresh
seeds: 6,000 steps of 12 s, a record every 10, noise of 4 % or 15 %, 0.3 % of steps 2 to 6 times as long, a checkpoint
of 90 s every 1,000 steps and an evaluation of 300 s every 2,000. Errors and coverage are taken at 10, 25, 50 and 75 %
of the steps. The plan is the time that the run would have taken when healthy.

Rivals: the mean time of a step so far, the slope of the last 5 % of steps, and Prophet's trend of time over steps.
Prints `name value unit` lines.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))  # a script's folder comes first: bench/agent.py would be `agent`

import numpy as np

from alerts.central.pool import one_thread
from alerts.detect.bands import Array
from alerts.detect.design import DAY
from alerts.detect.eta import Eta, Schedule, Track
from alerts.detect.lateness import Judgement, Lateness
from alerts.detect.model import Options
from alerts.detect.prophet_batched import ProphetBatched
from alerts.detect.records import read

SHARES = (0.1, 0.25, 0.5, 0.75)
STEPS = 6000
# What the program of that run says in advance: tokens of a step, from the steps at which they change.
KNOWN = {"BatchSizeSchedule": Schedule(((0.0, 1.0), (707.0, 2.0), (1413.0, 3.0)))}


@dataclass(frozen=True)
class Run:
    """A whole run: seconds and steps of its records, its steps, and how many of them were made at second 0."""

    name: str
    times: Array
    steps: Array
    total: float
    begin: float = 0.0
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def end(self) -> float:
        return float(self.times[-1])

    def follow(self, plan: float | None, schedule: Schedule | None = None) -> list[Judgement]:
        """The judgement after each record."""
        track, lateness = Track(self.total, schedule or Schedule()), Lateness(plan)
        track.begin(0.0, self.begin)
        found = []
        for at, step in zip(self.times.tolist(), self.steps.tolist(), strict=True):
            track.add(at, step)
            found.append(lateness.judge(track))
        return found

    def expected(self, shares: tuple[float, ...], schedule: Schedule | None) -> Iterator[tuple[int, Eta]]:
        """Place and estimate at the records where these shares of the steps are made."""
        track, wanted = Track(self.total, schedule or Schedule()), [share * self.total for share in shares]
        track.begin(0.0, self.begin)
        for place, (at, step) in enumerate(zip(self.times.tolist(), self.steps.tolist(), strict=True)):
            track.add(at, step)
            if wanted and step >= wanted[0]:
                wanted.pop(0)
                if (eta := track.estimate()) is not None:
                    yield place, eta

    def thinned(self) -> Run:
        """About 600 of the records, the last among them."""
        every = max(len(self.steps) // 600, 1)
        return replace(self, times=self.times[::-every][::-1], steps=self.steps[::-every][::-1])

    def slowed(self, factor: float, onset: float, over: float = 0.0) -> Run:
        """The same run with every step after `onset` (a share) `factor` times as long, growing to that over a share."""
        share = self.steps / self.total
        grown = np.clip((share - onset) / over, 0.0, 1.0) if over else share > onset
        each = np.diff(self.times, prepend=0.0) * (1.0 + (factor - 1.0) * grown)
        return replace(self, times=np.cumsum(each))

    def paused(self, seconds: float, at: float) -> Run:
        return replace(self, times=self.times + seconds * (self.steps > at * self.total))

    def restarted(self, lost: int, seconds: float, at: float) -> Run:
        """The records `lost` before the share `at` are made again, after a pause."""
        place = int(at * len(self.steps))
        back = place - lost
        again = self.times[place - 1] + seconds + self.times[back:] - self.times[back - 1]
        return replace(
            self,
            times=np.concatenate([self.times[:place], again]),
            steps=np.concatenate([self.steps[:place], self.steps[back:]]),
        )


def logs(folder: Path) -> Iterator[Run]:
    """The logs that tell how long their run took, from the last reset of their clock on; each run once."""
    known: set[tuple[float, float]] = set()
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        with path.open(encoding="utf-8", errors="replace") as lines:
            records = [r for r in read(lines) if r.elapsed is not None and r.step is not None and r.total_steps]
        total = float(records[-1].total_steps or 0) if records else 0.0
        if len(records) < 100 or records[-1].step != total:
            continue
        times, steps = np.array([r.elapsed for r in records]), np.array([float(r.step or 0) for r in records])
        reset = int(np.flatnonzero(np.diff(times) < 0).max(initial=-1)) + 1
        if (key := (round(float(times[-1]), 3), total)) in known:
            continue
        known.add(key)
        begin = steps[reset - 1] if reset else 0.0
        schedule = next((known for word, known in KNOWN.items() if word in path.name), Schedule())
        yield Run(path.stem[:60], times[reset:], steps[reset:], total, float(begin), schedule)


def made(seed: int, noise: float = 0.04, checkpoint: float = 90.0) -> Run:
    rng = np.random.default_rng(seed)
    each = 12.0 * np.exp(noise * rng.normal(size=STEPS))
    spikes = rng.random(STEPS) < 0.003
    each[spikes] *= rng.uniform(2, 6, spikes.sum())
    each[999::1000] += checkpoint
    each[1999::2000] += 300.0
    return Run(f"seed{seed}", np.cumsum(each)[9::10], np.arange(10.0, STEPS + 1, 10), float(STEPS))


# --- rivals: expected duration from the records so far -------------------------------------------------------------


def by_mean(run: Run, place: int) -> float:
    return float(run.times[place] / (run.steps[place] - run.begin) * (run.total - run.begin))


def by_slope(run: Run, place: int) -> float:
    now = run.steps[place]
    before = int(np.searchsorted(run.steps[: place + 1], now - 0.05 * run.total))
    each = (run.times[place] - run.times[before]) / (now - run.steps[before])
    return float(run.times[place] + each * (run.total - now))


def by_prophet(run: Run, place: int) -> float:
    """Prophet's trend of the elapsed time over the steps, at its own settings; 200 points, a step is a day to it."""
    picked = np.unique(np.linspace(0, place, 200).round().astype(int))
    steps, first = np.unique(run.steps[picked], return_index=True)
    trend = ProphetBatched().fit(steps * DAY, run.times[picked][first][:, None], Options(daily=False, weekly=False))
    return float(trend.forecast(np.array([run.total * DAY])).yhat[0, 0])


RIVALS: dict[str, Callable[[Run, int], float]] = {"mean": by_mean, "slope": by_slope, "prophet": by_prophet}


# --- parts -----------------------------------------------------------------------------------------------------


def show(name: str, value: float, unit: str) -> None:
    print(f"{name} {value:.4g} {unit}", flush=True)


def accuracy(prefix: str, runs: list[Run], schedule: bool = False, each: bool = False) -> None:
    """Median absolute error beside the rivals, and how often the interval held the truth."""
    errors: dict[tuple[str, float], list[float]] = defaultdict(list)
    inside: list[bool] = []
    for run in runs:
        for share, (place, eta) in zip(SHARES, run.expected(SHARES, run.schedule if schedule else None), strict=True):
            errors["ours", share].append(eta.total / run.end - 1.0)
            inside.append(eta.low <= run.end <= eta.high)
            for name, rival in RIVALS.items():
                errors[name, share].append(rival(run, place) / run.end - 1.0)
            if each:
                show(f"{prefix}_error_{share * 100:.0f}_{run.name}", 100 * errors["ours", share][-1], "percent")
    for (name, share), off in sorted(errors.items()):
        show(f"{prefix}_abs_error_{share * 100:.0f}_{name}", 100 * float(np.median(np.abs(off))), "percent")
    show(f"{prefix}_coverage", 100 * float(np.mean(inside)), "percent")


def alerts(judged: list[Judgement]) -> tuple[int | None, int, bool]:
    """Place of the first alert, how many episodes there were, whether one of them paged."""
    states = np.array([j.alert is not None for j in judged])
    begun = np.flatnonzero(np.diff(states.astype(int), prepend=0) == 1)
    return (int(begun[0]) if len(begun) else None), len(begun), any(j.alert == "page" for j in judged)


def case(name: str, pairs: list[tuple[Run, Run]], onset: float | None = None, schedule: bool = False) -> None:
    """Runs alerting of those in `pairs` (healthy, what became of it), the plan being the healthy one's duration."""
    fired, paged, episodes, delays = 0, 0, [], []
    for healthy, run in pairs:
        place, count, page = alerts(run.follow(healthy.end, run.schedule if schedule else None))
        fired += place is not None
        paged += page
        episodes.append(count)
        if place is not None and onset is not None:
            begin = int(np.searchsorted(run.steps, onset * run.total))
            delays.append((run.steps[place] - run.steps[begin]) / run.total)
    late = float(np.median([run.end / healthy.end - 1.0 for healthy, run in pairs]))
    show(f"{name}_truly_late", 100 * late, "percent")
    show(f"{name}_alerting", fired, f"of_{len(pairs)}_runs")
    show(f"{name}_paging", paged, f"of_{len(pairs)}_runs")
    show(f"{name}_episodes_most", max(episodes), "count")
    if delays:
        show(f"{name}_delay_median", 100 * float(np.median(delays)), "percent_of_steps")


def learned(name: str, runs: list[Run]) -> None:
    """Tickets of healthy runs against the plan that each learnt itself; such a plan never pages."""
    found = [alerts(run.follow(None)) for run in runs]
    show(f"{name}_learned_plan_tickets", sum(place is not None for place, _, _ in found), f"of_{len(runs)}_runs")
    show(f"{name}_learned_plan_pages", sum(page for _, _, page in found), f"of_{len(runs)}_runs")


def on_logs(folder: Path, each: bool) -> None:
    runs = list(logs(folder))
    show("runs", len(runs), "count")
    accuracy("runs", runs, each=each)
    scheduled = [run for run in runs if len(run.schedule.points) > 1]
    if scheduled:
        accuracy("runs_schedule_announced", scheduled, schedule=True, each=each)
    runs = [run.thinned() for run in runs]
    case("runs_healthy", [(run, run) for run in runs], schedule=True)
    learned("runs", runs)
    for factor in (1.1, 1.2, 1.5):
        for onset in (0.1, 0.4):
            slow = [(run, run.slowed(factor, onset)) for run in runs]
            case(f"runs_slow_{factor}_at_{onset:.0%}".replace("%", ""), slow, onset, schedule=True)


def on_generator(seeds: range) -> None:
    calm, noisy = [made(seed) for seed in seeds], [made(seed, 0.15) for seed in seeds]
    accuracy("made_cv4", calm)
    accuracy("made_cv15", noisy)
    learned("made_cv4", calm)
    learned("made_cv15", noisy)
    case("made_healthy", [(run, run) for run in calm])
    case("made_healthy_cv15", [(run, run) for run in noisy])
    heavy = [made(seed, checkpoint=600.0) for seed in seeds]
    case("made_checkpoint_600s", [(run, run) for run in heavy])
    case("made_restart", [(run, run.restarted(50, 600.0, 0.4)) for run in calm], 0.4)
    for hours in (2, 4):
        case(f"made_pause_{hours}h", [(run, run.paused(hours * 3600.0, 0.4)) for run in calm], 0.4)
    announced = Schedule(((0.0, 1.0), (0.3 * STEPS, 1.4)))
    grown = [replace(run.slowed(1.4, 0.3), schedule=announced) for run in calm]
    case("made_curriculum_1.4_announced", [(run, run) for run in grown], schedule=True)
    for factor in (1.1, 1.2, 1.5, 2.0):
        case(f"made_slow_{factor}_at_40", [(run, run.slowed(factor, 0.4)) for run in calm], 0.4)
    case("made_slow_1.2_at_10", [(run, run.slowed(1.2, 0.1)) for run in calm], 0.1)
    case("made_slow_1.5_at_90", [(run, run.slowed(1.5, 0.9)) for run in calm], 0.9)
    case("made_creep_to_1.4", [(run, run.slowed(1.4, 0.4, 0.2)) for run in calm], 0.4)
    case("made_slow_1.5_at_40_cv15", [(run, run.slowed(1.5, 0.4)) for run in noisy], 0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="directory of training logs with their end in them")
    parser.add_argument("--each", action="store_true", help="the error of each log as well")
    parser.add_argument("--seeds", type=int, default=20, help="made-up runs of a kind (%(default)s)")
    parser.add_argument("--first-seed", type=int, default=7000)
    args = parser.parse_args()
    one_thread()
    if args.data is not None:
        on_logs(args.data, args.each)
    on_generator(range(args.first_seed, args.first_seed + args.seeds))


if __name__ == "__main__":
    main()
