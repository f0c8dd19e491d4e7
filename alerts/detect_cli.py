"""`gpuvigil detect eta|loss|score|backtest|explain|tune`: detection without a service."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.base.config import parse_duration
from agent.base.errors import CannotTell, ConfigError, Exit
from alerts import log_lines, past_cli

if TYPE_CHECKING:
    from alerts.detect.bands import Array
    from alerts.detect.eta import Schedule
    from alerts.detect.labelled import Labelled, Windows
    from alerts.detect.quality import Quality
    from alerts.detect.replay import Moment
    from alerts.detect.stream import How

    Scored = tuple[str, Quality | None, str]
    """A file's name, its quality where labels are, and why its model was used."""

DEFINITIONS = {
    "anomaly": "a row whose score is above 1",
    "precision, recall, f1": "point-wise: each row counts once, no adjustment; a row without a score is not flagged",
    "events": "runs of labelled rows, each window of windows.json one, unless it touches another",
    "event_recall": "share of the events with a flagged row inside",
    "event_precision": "events found / (events found + runs of flagged rows that touch no event)",
    "event_f1": "harmonic mean of event_precision and event_recall",
    "delay_seconds": "median from an event's first row to its first flagged one, of the events found",
    "false_alerts_per_day": "runs of flagged rows that touch no event, a day of the series' time",
}
"""What the figures of `detect score -o json` mean."""

SMALL = 200_000
"""Bytes in all for which workers are not worth their start."""


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    eta = verbs.add_parser("eta", help="replay a training log: when was it expected to end, and was it late?")
    eta.add_argument("log", metavar="LOG", help="training log, or a CSV of progress; - is standard input")
    eta.add_argument("--plan", type=_seconds, metavar="SECONDS", help="what the run was to take (90m and 2h are fine)")
    eta.add_argument("--total-steps", type=int, metavar="N", help="steps it was to make, if the log does not say")
    eta.add_argument(
        "--schedule",
        metavar="STEP:COST,...",
        help="known costs of steps: 720:1.8 means 1.8 times as long from step 720",
    )
    eta.add_argument("--format", default="auto", help="format of the log (%(default)s)")
    eta.add_argument("-o", "--output", default="text", choices=("text", "json"))
    eta.set_defaults(run=_eta)
    loss = verbs.add_parser("loss", help="what a training log's losses say: NaN, spikes, divergence, a plateau")
    loss.add_argument("log", metavar="LOG", help="training log; - is standard input")
    loss.add_argument("--format", default="auto", help="format of the log (%(default)s)")
    loss.add_argument("-o", "--output", default="text", choices=("text", "json"))
    loss.set_defaults(run=_loss)
    score = verbs.add_parser("score", help="score a directory of series, and how good the scores are where labels are")
    score.add_argument("folder", metavar="DIR", type=Path, help="CSV files below it, and windows.json if there")
    score.add_argument("--scores", metavar="OUTDIR", type=Path, help="write timestamp,value,anomaly_score of each file")
    score.add_argument("--model", default="auto", help="a model's name (%(default)s)")
    score.add_argument("--direction", default="both", choices=("above", "below", "both"))
    score.add_argument(
        "--min-dev-abs", type=float, default=0.0, help="least deviation that counts, in the value's unit"
    )
    score.add_argument("--min-dev-rel", type=float, default=0.0, help="least deviation that counts, as a share of yhat")
    score.add_argument("--time-format", help="strptime layout of the times, where they can be read in two ways")
    score.add_argument("-o", "--output", default="text", choices=("text", "json"))
    score.set_defaults(run=_score)
    past_cli.configure(verbs)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _schedule(text: str | None) -> Schedule | None:
    from alerts.detect.eta import Schedule

    if not text:
        return None
    try:
        points = sorted(
            (float(step), float(cost)) for step, _, cost in (part.partition(":") for part in text.split(","))
        )
    except ValueError:
        raise ConfigError(f"--schedule {text!r}: must be STEP:COST,STEP:COST,..., such as 0:1,720:1.8") from None
    if any(cost <= 0 for _, cost in points):
        raise ConfigError(f"--schedule {text!r}: a cost must be above 0")
    if points[0][0] > 0:
        points.insert(0, (0.0, 1.0))
    return Schedule(tuple(points))


def _eta(args: argparse.Namespace) -> int:
    from alerts.detect.replay import replay

    for option, given in (("--plan", args.plan), ("--total-steps", args.total_steps)):
        if given is not None and not 0 < given < math.inf:
            raise ConfigError(f"{option} {given:g}: must be a number above 0")
    moments = replay(
        log_lines.read(args.log),
        plan=args.plan,
        total_steps=args.total_steps,
        schedule=_schedule(args.schedule),
        log_format=args.format,
    )
    if args.output == "json":
        for moment in moments:
            print(json.dumps(_as_json(moment)))
        return Exit.GOOD
    _table(moments)
    return Exit.GOOD


def _loss(args: argparse.Namespace) -> int:
    from alerts.detect.loss import LossWatch, Signal
    from alerts.detect.records import read

    watch, told = LossWatch(), False
    before: set[Signal] = set()
    step, seen = 0, 0
    for record in read(log_lines.read(args.log), args.format):
        step = record.step if record.step is not None else step
        if record.loss is None and not record.nonfinite:
            continue
        seen += 1
        now = set(watch.add(record.loss if record.loss is not None else float("nan")))
        for signal in sorted(now ^ before):
            told = told or signal in now
            if args.output == "json":
                print(json.dumps({"step": step, "signal": signal, "began": signal in now}))
            else:
                print(f"step {step:9d}  {signal:10} {'began' if signal in now else 'ended'}")
        before = now
    if not seen:
        raise CannotTell("no line of the log tells a loss")
    return Exit.BAD if told else Exit.GOOD


def _as_json(moment: Moment) -> dict[str, Any]:
    eta = moment.judgement.eta
    return {
        "elapsed": round(moment.elapsed, 3),
        "step": moment.step,
        "eta_total": round(eta.total, 3) if eta else None,
        "low": round(eta.low, 3) if eta else None,
        "high": round(eta.high, 3) if eta else None,
        "deviation": _rounded(moment.judgement.deviation),
        "alert": moment.judgement.alert,
        "plan": "learned" if moment.judgement.learned else "configured",
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def _table(moments: Iterator[Moment]) -> None:
    """A row every twentieth of what the log holds, and one wherever the alert changes."""
    known = list(moments)
    every = max(len(known) // 20, 1)
    print(f"{'elapsed':>10} {'step':>9} {'expected':>10} {'80 % interval':>21} {'deviation':>9}  alert")
    before = None
    for number, moment in enumerate(known):
        changed = moment.judgement.alert != before
        before = moment.judgement.alert
        if not changed and number % every and number != len(known) - 1:
            continue
        eta, off = moment.judgement.eta, moment.judgement.deviation
        expected = f"{eta.total:10.0f} {eta.low:10.0f} {eta.high:10.0f}" if eta else f"{'warming up':>10} {'':21}"
        print(
            f"{moment.elapsed:10.0f} {moment.step:9d} {expected} "
            f"{'' if off is None else f'{off:+.1%}':>9}  {moment.judgement.alert or ''}"
        )


def _score(args: argparse.Namespace) -> int:
    from alerts.central.pool import one_thread

    one_thread()
    from alerts.detect.bands import Floors
    from alerts.detect.labelled import read_windows
    from alerts.detect.model import model
    from alerts.detect.stream import How

    if not args.folder.is_dir():
        raise ConfigError(f"{args.folder}: is no directory")
    model(args.model)
    paths = _inputs(args.folder, args.scores)
    windows, strange = read_windows(args.folder)
    if strange:
        names = ", ".join(strange[:5]) + (", ..." if len(strange) > 5 else "")
        print(f"gpuvigil: windows.json: {len(strange)} names fit no file here, or several: {names}", file=sys.stderr)
    how = How(args.model, floors=Floors(args.min_dev_abs, args.min_dev_rel), direction=args.direction)
    tasks = [_Task(path, args.folder, windows.get(path), args.time_format, how, args.scores) for path in paths]
    found: list[Scored] = []
    problems: list[ConfigError] = []
    for outcome in _in_parallel(tasks):
        if isinstance(outcome, ConfigError):
            problems.append(outcome)
        else:
            found.append(outcome)
    if not found:
        raise problems[0]
    found.sort(key=lambda one: one[0])
    _show_quality(found, args)
    for problem in problems:
        print(f"gpuvigil: {problem}", file=sys.stderr)
    return Exit.BAD if problems else Exit.GOOD


def _inputs(folder: Path, out: Path | None) -> list[Path]:
    """The series of a directory, without the scores that an earlier run wrote below it."""
    from alerts.detect.labelled import find

    if out is None:
        return find(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(f"--scores {out}: is no directory") from None
    except OSError as error:
        raise ConfigError(f"--scores {out}: cannot be made: {error.strerror}") from None
    if out.resolve() == folder.resolve():
        raise ConfigError(f"--scores {out}: would write over the series; give another directory")
    paths = [path for path in find(folder) if out.resolve() not in path.resolve().parents]
    if not paths:
        raise ConfigError(f"{folder}: no .csv file below it but those in --scores {out}")
    return paths


class _Task(NamedTuple):
    """One file to score."""

    path: Path
    folder: Path
    windows: Windows | None
    time_format: str | None
    how: How
    out: Path | None


def _score_file(task: _Task) -> Scored | ConfigError:
    """Read, score and write one file; what is wrong with it is told, not raised: others go on."""
    from alerts.detect.labelled import read_file
    from alerts.detect.quality import judge
    from alerts.detect.stream import score_series

    try:
        file = read_file(task.path, task.folder, task.windows, task.time_format)
    except ConfigError as problem:
        return ConfigError(str(problem))
    scored = score_series(file.times, file.values, task.how)
    if task.out is not None:
        try:
            _write_scores(task.out / file.path, file, scored.scores)
        except OSError as error:
            return ConfigError(f"--scores {task.out / file.path}: cannot be written: {error.strerror}")
    labels = file.labels if len(file.times) else None
    return str(file.path), None if labels is None else judge(file.times, scored.scores, labels), scored.why


def _in_parallel(tasks: list[_Task]) -> Iterator[Scored | ConfigError]:
    """The outcomes as they come, one worker a core; the largest files begin."""
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    tasks = sorted(tasks, key=lambda task: task.path.stat().st_size, reverse=True)
    workers = min(len(os.sched_getaffinity(0)), len(tasks))
    rows = sum(task.path.stat().st_size for task in tasks)
    if workers == 1 or rows < SMALL:
        for number, task in enumerate(tasks, 1):
            _progress(number, len(tasks), task.path.name)
            yield _score_file(task)
        _progress(0, 0, "")
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(_score_file, task): task for task in tasks}
        try:
            for number, done in enumerate(as_completed(running), 1):
                _progress(number, len(tasks), running[done].path.name)
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            _progress(0, 0, "")


def _progress(number: int, of: int, name: str) -> None:
    if sys.stderr.isatty():
        bar = "#" * round(30 * number / of) if of else ""
        text = f"[{bar:.<30}] {number}/{of} {name}" if of else ""
        print(f"\r{text:78.78}", end="" if of else "\r", file=sys.stderr, flush=True)


def _write_scores(path: Path, file: Labelled, scores: Array) -> None:
    import csv

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(("timestamp", "value", "anomaly_score"))
        for stamp, text, score in zip(file.stamps, file.texts, scores.tolist(), strict=True):
            writer.writerow((stamp, text, "" if score != score else f"{score:.6g}"))


def _show_quality(found: list[Scored], args: argparse.Namespace) -> None:
    from alerts.detect.quality import Quality

    judged = [(name, quality) for name, quality, _ in found if quality is not None]
    total = sum((quality for _, quality in judged), Quality())
    if args.output == "json":
        document = {
            "model": args.model,
            "definitions": DEFINITIONS,
            "total": _quality_json(total) if judged else None,
            "files": [
                {"file": name, "why": why} | (_quality_json(quality) if quality is not None else {})
                for name, quality, why in found
            ],
        }
        print(json.dumps(document))
        return
    print(f"{'':44} {'point-wise':>20} {'by event':>20} {'delay':>8} {'false':>8}")
    names = ("precision", "recall", "F1") * 2
    print(f"{'file':44} " + " ".join(f"{name[:6]:>6}" for name in names) + f" {'s':>8} {'a day':>8}")
    rows = [*judged, ("all", total)] if judged else []
    for name, q in rows:
        numbers = (q.precision, q.recall, q.f1, q.event_precision, q.event_recall, q.event_f1)
        delay = "" if q.delay is None else f"{q.delay:.0f}"
        print(f"{name[-44:]:44} " + " ".join(f"{n:6.3f}" for n in numbers) + f" {delay:>8} {q.false_per_day:8.3f}")
    if len(judged) < len(found):
        print(f"{len(found) - len(judged)} of {len(found)} files have neither a label column nor windows")


def _quality_json(quality: Quality) -> dict[str, Any]:
    return {
        "precision": round(quality.precision, 4),
        "recall": round(quality.recall, 4),
        "f1": round(quality.f1, 4),
        "event_precision": round(quality.event_precision, 4),
        "event_recall": round(quality.event_recall, 4),
        "event_f1": round(quality.event_f1, 4),
        "events": quality.events,
        "delay_seconds": quality.delay,
        "false_alerts_per_day": round(quality.false_per_day, 4),
        "days": round(quality.days, 3),
    }
