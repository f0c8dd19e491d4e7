"""Detection: the batched fit beside Prophet, a fleet of 96,000 series, quality on labelled data, a real Prometheus.

Prints `name value unit` lines. CPU is the process' own and its children's, one BLAS thread on both sides. Prophet is
fitted to `--oracle` series of the same kinds (all of them with `--oracle 1000`); its time for more series is its mean
times their number, and the line `prophet_series_measured` says how many that was.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import sys
import time
import warnings
from pathlib import Path

if str(Path(__file__).parent) in sys.path:  # a script's folder comes first: `detect` would be this file
    sys.path.remove(str(Path(__file__).parent))
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy is loaded

import numpy as np  # noqa: E402

from alerts.detect.bands import Floors, anomaly_score  # noqa: E402
from alerts.detect.design import build, cycles  # noqa: E402
from alerts.detect.labelled import read_directory  # noqa: E402
from alerts.detect.model import Options, model  # noqa: E402
from alerts.detect.prophet_batched import ProphetBatched, recipe  # noqa: E402
from alerts.detect.quality import Quality, confidence, judge  # noqa: E402
from alerts.detect.samples import KINDS, sample  # noqa: E402
from alerts.detect.stream import How, score_series  # noqa: E402

STEP, POINTS, AHEAD = 300.0, 4032, 12
TIMES = 1_700_006_400.0 + STEP * np.arange(POINTS + AHEAD)
BOTH = Options(daily=True, weekly=True)


def note(name: str, value: float, unit: str) -> None:
    print(f"{name} {value:.4g} {unit}".rstrip(), flush=True)


def cpu() -> float:
    """Seconds of this process and the children that have ended, such as Prophet's CmdStan."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def kinds(number: int) -> np.ndarray:
    """`number` distinct series (POINTS + AHEAD, number): every kind in turn, another seed each time."""
    return np.stack([sample(KINDS[i % len(KINDS)], len(TIMES), STEP, seed=i) for i in range(number)], axis=1)


# --- against Prophet ------------------------------------------------------------------------------------------------


def beside_prophet(oracle: int) -> None:
    import pandas as pd

    logging.getLogger("prophet.plot").setLevel(logging.CRITICAL)
    from prophet import Prophet

    cmdstan = logging.getLogger("cmdstanpy")
    cmdstan.addHandler(logging.NullHandler())
    cmdstan.setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    series = kinds(max(oracle, 1000))
    ProphetBatched().fit(TIMES[:600], series[:600, :5], BOTH)  # what is made once is made now
    spent = {}
    for number in (1000, 50):
        tries = []
        for _ in range(3):
            begin = cpu()
            fitted = ProphetBatched().fit(TIMES[:POINTS], series[:POINTS, :number], BOTH)
            tries.append(cpu() - begin)
        spent[number] = sorted(tries)[1]  # the median of three: one takes milliseconds
    bands = fitted.forecast(TIMES[POINTS:])
    (group,) = fitted.groups
    dates = pd.to_datetime(TIMES, unit="s")
    gains, apart, total = [], [], 0.0
    for i in range(oracle):
        reference = Prophet(daily_seasonality=True, weekly_seasonality=True, yearly_seasonality=False)
        reference.uncertainty_samples = 0
        begin = cpu()
        reference.fit(pd.DataFrame({"ds": dates[:POINTS], "y": series[:POINTS, i]}), seed=1)
        total += cpu() - begin
        if i < 50:
            ours = group.theta[i].copy()
            ours[group.frame.constant] += group.mean[i]
            found = {name: np.ravel(reference.params[name]) for name in ("k", "m", "delta", "beta", "sigma_obs")}
            theirs = np.concatenate([found[name] for name in ("k", "m", "delta", "beta")])
            gains.append(
                height(series[:POINTS, i], ours, group.sigma[i])
                - height(series[:POINTS, i], theirs, found["sigma_obs"][0])
            )
            yhat = reference.predict(pd.DataFrame({"ds": dates[POINTS:]}))["yhat"].to_numpy()
            apart.append(np.median(np.abs(yhat - bands.yhat[:, i])) / np.ptp(series[:POINTS, i]))
    note("prophet_series_measured", oracle, "series")
    note("prophet_fit_cpu_s_per_series", total / oracle, "s")
    note("fit_cpu_s_50", spent[50], "s")
    note("fit_cpu_s_1000", spent[1000], "s")
    note("fit_ratio_50", total / oracle * 50 / spent[50], "x")
    note("fit_ratio_1000", total / oracle * 1000 / spent[1000], "x")
    note("agreement_worst_logpost", min(gains), "nats")
    note("agreement_median_logpost", float(np.median(gains)), "nats")
    note("agreement_median_range_percent", 100 * float(np.median(apart)), "%")
    note("agreement_worst_range_percent", 100 * float(np.max(apart)), "%")
    for kind in KINDS:
        mine = [i for i in range(min(oracle, 50)) if KINDS[i % len(KINDS)] == kind]
        if mine:
            best, far = min(gains[i] for i in mine), 100 * max(apart[i] for i in mine)
            print(
                f"#   {kind:12} log-posterior ours - Prophet >= {best:9.4f}   1 h ahead apart <= {far:.3f} % of range"
            )


def height(y: np.ndarray, theta: np.ndarray, sigma: float) -> float:
    """Prophet's log-posterior of one series from its points."""
    how = recipe(TIMES[:POINTS], BOTH)
    design = build(how, TIMES[:POINTS], cycles(how, TIMES[:POINTS]))
    rest = y / np.abs(y).max() - design.x @ theta
    prior = 0.5 * np.sum(theta**2 * design.precision) + np.abs(theta[design.frame.kinks]).sum() / how.tau
    return float(-len(y) * np.log(sigma) - rest @ rest / (2 * sigma**2) - prior - 2 * sigma**2)


# --- a fleet --------------------------------------------------------------------------------------------------------


def fleet(number: int, batch: int = 1000) -> None:
    """One pass over a simulated fleet: its ring in memory (float32), fitted, forecast and scored batch by batch."""
    base = kinds(250).astype(np.float32)
    spread = np.ptp(base[:POINTS], axis=0)
    rng = np.random.default_rng(3)
    ring = np.empty((number // batch, len(TIMES), batch), dtype=np.float32)
    for block in ring:
        picked = rng.integers(0, base.shape[1], batch)
        block[:] = base[:, picked] + 0.02 * spread[picked] * rng.standard_normal((len(TIMES), batch), dtype=np.float32)
    gaps = rng.integers(0, len(ring), max(len(ring) // 10, 1))
    for place in gaps:  # a tenth of the batches have nodes that were away for some hours
        for away in range(4):
            begin = int(rng.integers(200, POINTS - 400))
            ring[place, begin : begin + int(rng.integers(12, 120)), away * 100 : away * 100 + 80] = np.nan
    floors, flagged, unsolved = Floors(0.0, 0.05), 0, 0
    begin = cpu()
    for block in ring:
        values = block.astype(np.float64)
        fitted = ProphetBatched().fit(TIMES[:POINTS], values[:POINTS], BOTH)
        bands = fitted.forecast(TIMES[POINTS:])
        flagged += int(np.count_nonzero(anomaly_score(values[POINTS:], bands, floors) > 1))
        unsolved += sum(int(np.count_nonzero(~group.exact)) for group in fitted.groups)
    note("fleet_series", ring.shape[0] * batch, "series")
    note("fleet_cpu_s", cpu() - begin, "s")
    note("fleet_rss_gb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "GB")
    note("fleet_not_converged", unsolved, "series")
    note("fleet_flagged_share", flagged / (ring.shape[0] * batch * AHEAD), "of points")


def steady(number: int) -> None:
    """The steady state: each step the new points of every series are decoded, stored, scored and shown."""
    import json
    from concurrent.futures import Future

    from agent.base.exposition import TEXT, render
    from alerts.central.history import Bounds
    from alerts.central.monitor import Watch
    from alerts.central.promread import Reader
    from alerts.central.settings import Monitor, Prometheus

    each, steps = 1000, 4
    keys = [[{"cluster": "c", "node": f"n{m}-{n // 8}", "gpu": str(n % 8), "uuid": f"GPU-{m}-{n}"} for n in range(each)]
            for m in range(number // each)]  # fmt: skip
    rng = np.random.default_rng(4)

    class Canned(Reader):
        """Prometheus' answers as bytes, so that decoding is part of what is measured; asking is not."""

        def __init__(self, labels: list[dict[str, str]]) -> None:
            super().__init__(Prometheus())
            self.labels, self.bodies = labels, {}

        def prepare(self, first: int, last: int, step: float) -> None:
            result = [
                {
                    "metric": label,
                    "values": [[t * step, f"{50 + v:.6f}"] for t, v in zip(range(first, last + 1), row, strict=True)],
                }
                for label, row in zip(self.labels, rng.normal(size=(each, last - first + 1)), strict=True)
            ]
            document = {"status": "success", "data": {"resultType": "matrix", "result": result}}
            self.bodies[first, last] = json.dumps(document).encode()

        def _ask(self, path, fields, kind):  # type: ignore[no-untyped-def]
            if kind == "vector":
                return [{"metric": {}, "value": [0, str(each)]}]
            if "gpuvigil_" in fields["query"]:
                return []
            first, last = (round(float(fields[name]) / STEP) for name in ("start", "end"))
            return json.loads(self.bodies[first, last])["data"]["result"]

    def at_once(work, *args):  # type: ignore[no-untyped-def]
        future: Future = Future()
        future.set_result(work(*args))
        return future

    start = int(TIMES[0] // STEP)
    watches = []
    for m, labels in enumerate(keys):
        reader = Canned(labels)
        window = 60  # short: what is measured does not depend on the history's length
        reader.prepare(start - window + 1, start, STEP)
        for step in range(1, steps + 1):
            reader.prepare(start + step - 2, start + step, STEP)
        settings = Monitor.model_validate(
            {"name": f"m{m}", "query": "x", "model": "prophet_batched", "step": "5m", "fit_window": "5h",
             "fit_every": "6h", "min_history": "1h"}
        )  # fmt: skip
        now = [start * STEP]
        watch = Watch(settings, reader, at_once, Bounds(), clock=lambda now=now: now[0])
        watch.turn()
        watches.append((watch, now))
    for watch, now in watches:  # the first turn after the fit makes the lines' prefixes
        now[0] += STEP
        watch.turn()
    begin = cpu()
    for _ in range(steps - 1):
        for watch, now in watches:
            now[0] += STEP
            watch.turn()
            assert watch.view.state == "ok", watch.view.why
    turns = (cpu() - begin) / (steps - 1)
    begin = cpu()
    page = render([watch.view.found for watch, _ in watches], TEXT)
    shown = cpu() - begin
    note("steady_turn_cpu_s", turns, "s per 5 min")
    note("steady_page_cpu_s", shown, "s per scrape")
    note("steady_page_mb", len(page) / 1e6, "MB")
    note("steady_core_percent", 100 * (turns / STEP + shown / 15.0), "% of a core, scraped every 15 s")


# --- quality --------------------------------------------------------------------------------------------------------


def quality(folder: Path) -> None:
    """Every model on every labelled series. The settings were chosen on every other file; the rest was kept aside."""
    files = sorted((f for f in read_directory(folder) if f.labels is not None), key=lambda f: f.path.name)
    halves = {"development": files[::2], "held aside": files[1::2]}
    models = ("robust", "auto", "ewma", "prophet_batched")
    winners: dict[str, dict[str, float]] = {}
    for half, members in halves.items():
        for name in models:
            floors = Floors(0.0, 0.1 if name in ("ewma", "prophet_batched") else 0.0)
            each: list[Quality] = []
            begin = cpu()
            for file in members:
                scored = score_series(file.times, file.values, How(name, floors=floors))
                each.append(judge(file.times, scored.scores, file.labels))
                kind = file.path.parent.name
                winners.setdefault(f"{half}: {kind}", {}).setdefault(name, 0.0)
                winners[f"{half}: {kind}"][name] += each[-1].event_f1
            total = sum(each, Quality())
            low, high = confidence(each, "event_f1")
            print(
                f"# {half:12} {name:16} point F1 {total.f1:.3f} (P {total.precision:.3f} R {total.recall:.3f})  "
                f"event F1 {total.event_f1:.3f} [{low:.3f}, {high:.3f}]  false/day {total.false_per_day:.3f}  "
                f"CPU {cpu() - begin:.0f} s",
                flush=True,
            )
            key = half.replace(" ", "_")
            note(f"quality_{key}_{name}_event_f1", total.event_f1, "")
            note(f"quality_{key}_{name}_point_f1", total.f1, "")
    for kind, rows in winners.items():
        best = max(rows, key=lambda name: rows[name])
        print(f"# winner of {kind}: {best}")


def on_prometheus(series: int, points: int = 672, step: int = 1800) -> None:
    """A monitor of that many series on a real Prometheus: history read once and fitted, then one turn of new points."""
    import shutil
    import socket
    import subprocess
    import tempfile
    import urllib.request

    import psutil

    from alerts.central.history import Bounds
    from alerts.central.monitor import Watch
    from alerts.central.pool import Pool
    from alerts.central.promread import Reader
    from alerts.central.settings import Monitor, Prometheus

    if not shutil.which("promtool"):
        print("prometheus is not installed: its part is left out", file=sys.stderr)
        return
    base = [sample(kind, points, float(step), seed=seed) for kind in KINDS for seed in range(4)]
    end = int(time.time()) // step * step - step
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/load.om", "w", encoding="utf-8") as file:
            file.write("# TYPE load gauge\n")
            for number in range(series):
                row, head = base[number % len(base)], f'load{{node="n{number // 8}",gpu="{number % 8}"}}'
                file.writelines(
                    f"{head} {value:.4f} {end - step * (points - 1 - i)}\n" for i, value in enumerate(row.tolist())
                )
            file.write("# EOF\n")
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=720h"]
        subprocess.run([*command, f"{folder}/load.om", f"{folder}/tsdb"], check=True, capture_output=True)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        Path(folder, "p.yml").write_text("scrape_configs: []\n", encoding="utf-8")
        server = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/p.yml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=90d"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        pool = Pool(1)
        try:
            url = f"http://127.0.0.1:{port}"
            limit = time.monotonic() + 120
            while time.monotonic() < limit:
                try:
                    urllib.request.urlopen(f"{url}/-/ready", timeout=2).close()
                    break
                except OSError:
                    time.sleep(0.2)
            settings = Monitor.model_validate(
                {"name": "load", "query": "load", "model": "prophet_batched", "step": f"{step}s",
                 "fit_window": f"{points * step}s", "fit_every": "6h", "min_history": "2d"}
            )  # fmt: skip
            reader = Reader(Prometheus(url=url, timeout="120s"))
            now = [float(end - step)]
            watch = Watch(settings, reader, pool.submit, Bounds(series_limit=series), clock=lambda: now[0])
            process = psutil.Process(server.pid)
            for name in ("history", "new points"):
                begin, wall, theirs = cpu(), time.monotonic(), sum(process.cpu_times()[:2])
                before = reader.tally.samples
                watch.turn()
                while watch.fitting and time.monotonic() - wall < 300:
                    time.sleep(0.05)
                if watch.view.state != "ok":
                    watch.turn()  # takes the fit over
                key = "prometheus_" + name.replace(" ", "_")
                note(f"{key}_wall_s", time.monotonic() - wall, "s")
                note(f"{key}_central_cpu_s", cpu() - begin, "s, without the worker that fits")
                note(f"{key}_server_cpu_s", sum(process.cpu_times()[:2]) - theirs, "s")
                note(f"{key}_samples", reader.tally.samples - before, "samples")
                print(f"# {name}: {watch.view.state}, {watch.view.why}")
                now[0] += step
        finally:
            pool.close()
            server.terminate()
            server.wait(30)


def fits(name: str) -> None:
    """CPU of each model's fit on 50 series, for the record."""
    values = kinds(50)[:POINTS]
    begin = cpu()
    model(name).fit(TIMES[:POINTS], values, BOTH)
    note(f"fit_cpu_s_50_{name}", cpu() - begin, "s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", nargs="*", help="prophet, fleet, steady, fits, prometheus, quality (this needs --data)"
    )
    parser.add_argument("--oracle", type=int, default=50, help="series that Prophet itself is fitted to (%(default)s)")
    parser.add_argument("--series", type=int, default=96_000, help="size of the fleet (%(default)s)")
    parser.add_argument("--prometheus-series", type=int, default=5000, help="series on a real one (%(default)s)")
    parser.add_argument("--data", type=Path, help="directory of labelled series, for quality")
    args = parser.parse_args()
    parts = args.parts or ["prophet", "fleet", "steady", "fits", "prometheus", *(["quality"] if args.data else [])]
    if unknown := set(parts) - {"prophet", "fleet", "steady", "fits", "prometheus", "quality"}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if "steady" in parts:
        steady(args.series)
    if "prophet" in parts:
        beside_prophet(args.oracle)
    if "fits" in parts:
        for name in ("ewma", "robust", "prophet_batched"):
            fits(name)
    if "fleet" in parts:
        fleet(args.series)
    if "prometheus" in parts:
        on_prometheus(args.prometheus_series)
    if "quality" in parts:
        if args.data is None:
            parser.error("quality needs --data DIR")
        quality(args.data)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
