"""Detection: the batched fit beside Prophet, a fleet of 96,000 series, quality on labelled data, a real Prometheus.

Prints `name value unit` lines; progress goes to stderr. CPU is the process' own and its children's, one BLAS thread on
both sides. Prophet is fitted to all of the 50 series and, as that alone would take a quarter of an hour, to 60 of the
1,000, drawn at random: its mean time for those, times 1,000, is what the ratio divides, and the lines beside it are its
95 % interval. `--full` fits all 1,000. `--quick` is a look in a minute or two.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

if str(Path(__file__).parent) in sys.path:  # not so in a worker that is spawned
    sys.path.remove(str(Path(__file__).parent))  # a script's folder comes first: bench/agent.py would be `agent`
sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness.detection import BOTH, HOUR, POINTS, STEP, TIMES, blas, cpu, kinds, note, progress  # isort: skip

import numpy as np

from alerts.detect.bands import Floors, anomaly_score
from alerts.detect.model import model
from alerts.detect.prophet_batched import ProphetBatched
from alerts.detect.samples import HARD, KINDS, sample
from bench.harness.beside_prophet import beside_prophet, intervals, masks, multiplicative
from bench.quality import MODELS, quality

# --- a fleet --------------------------------------------------------------------------------------------------------


def fleet(number: int, batch: int = 1000) -> None:
    """One pass over a simulated fleet: its ring in memory (float32), fitted, forecast and scored batch by batch."""
    seen = POINTS + HOUR
    base = kinds(250)[:seen].astype(np.float32)
    spread = np.ptp(base[:POINTS], axis=0)
    rng = np.random.default_rng(3)
    ring = np.empty((number // batch, seen, batch), dtype=np.float32)
    for block in ring:
        picked = rng.integers(0, base.shape[1], batch)
        block[:] = base[:, picked] + 0.02 * spread[picked] * rng.standard_normal((seen, batch), dtype=np.float32)
    gaps = rng.integers(0, len(ring), max(len(ring) // 10, 1))
    for place in gaps:  # a tenth of the batches have nodes that were away for some hours, and one has lost packets
        for away in range(4):
            begin = int(rng.integers(200, POINTS - 400))
            ring[place, begin : begin + int(rng.integers(12, 120)), away * 100 : away * 100 + 80] = np.nan
    ring[0][rng.random(ring[0].shape) < 0.02] = np.nan
    floors, flagged, unsolved = Floors(0.0, 0.05), 0, 0
    begin = cpu()
    for place, block in enumerate(ring):
        if place % 10 == 0:
            progress(f"fleet: {place * batch} of {number} series")
        values = block.astype(np.float64)
        fitted = ProphetBatched().fit(TIMES[:POINTS], values[:POINTS], BOTH)
        bands = fitted.forecast(TIMES[POINTS:seen])
        flagged += int(np.count_nonzero(anomaly_score(values[POINTS:], bands, floors) > 1))
        unsolved += sum(int(np.count_nonzero(~group.exact)) for group in fitted.groups)
    note("fleet_series", ring.shape[0] * batch, "series")
    note("fleet_cpu_s", cpu() - begin, "s")
    note("fleet_rss_gb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, "GB")
    note("fleet_not_converged", unsolved, "series")
    note("fleet_flagged_share", flagged / (ring.shape[0] * batch * HOUR), "of points")


def steady(number: int) -> None:
    """The steady state: each step the new points of every series are decoded, stored, scored and shown."""
    import json
    from concurrent.futures import Future

    from agent.base.exposition import TEXT, render
    from alerts.central.fitting import Fits, Forecast
    from alerts.central.history import Bounds
    from alerts.central.monitor import Watch
    from alerts.central.promread import Reader
    from alerts.central.settings import Monitor, Prometheus

    each, steps = 1000, 4
    labels = [{"cluster": "c", "node": f"n@-{n // 8}", "gpu": str(n % 8), "uuid": f"GPU-@-{n}"} for n in range(each)]
    rng = np.random.default_rng(4)

    def answer(first: int, last: int) -> bytes:
        """Prometheus' answer for these rows; @ stands for the monitor."""
        rows = range(first, last + 1)
        result = [
            {"metric": label, "values": [[t * STEP, f"{50 + v:.6f}"] for t, v in zip(rows, row, strict=True)]}
            for label, row in zip(labels, rng.normal(size=(each, len(rows))), strict=True)
        ]
        document = {"status": "success", "data": {"resultType": "matrix", "result": result}}
        return json.dumps(document).encode()

    class Canned(Reader):
        """Prometheus' answers as bytes, so that decoding is part of what is measured; asking is not."""

        def __init__(self, name: bytes, answers: dict[tuple[int, int], bytes]) -> None:
            super().__init__(Prometheus())
            self.bodies = {rows: body.replace(b"@", name) for rows, body in answers.items()}

        def _ask(self, path, fields, kind):  # type: ignore[no-untyped-def]
            if kind == "vector":
                return [{"metric": {}, "value": [0, str(each)]}]
            if "gpuvigil_" in fields["query"]:
                return []
            first, last = (round(float(fields[name]) / STEP) for name in ("start", "end"))
            return json.loads(self.bodies.pop((first, last)))["data"]["result"]

    class AtOnce:
        """One fit for all: the monitors differ in their labels alone, and fits are not what is measured."""

        replaced = 0
        known: Forecast | None = None

        def submit(self, work, settings, events, points):  # type: ignore[no-untyped-def]
            self.known = self.known or work(settings, events, points)
            future: Future = Future()
            future.set_result(replace(self.known, keys=points.keys))
            return future

    start = int(TIMES[0] // STEP)
    window = 60  # short: what is measured does not depend on the history's length
    spans = [(start - window + 1, start), *((start + step - 2, start + step) for step in range(1, steps + 1))]
    answers = {span: answer(*span) for span in spans}
    watches, worker = [], AtOnce()
    for m in range(number // each):
        reader = Canned(str(m).encode(), answers)
        settings = Monitor.model_validate(
            {"name": f"m{m}", "query": "x", "model": "prophet_batched", "step": "5m", "fit_window": "5h",
             "fit_every": "6h", "min_history": "1h"}
        )  # fmt: skip
        now = [start * STEP]
        watch = Watch(settings, reader, Fits(settings, worker), Bounds(), clock=lambda now=now: now[0])
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


# --- a real Prometheus -------------------------------------------------------------------------------------------


def on_prometheus(series: int, points: int = 672, step: int = 1800) -> None:
    """A monitor of that many series on a real Prometheus: history read once and fitted, then one turn of new points."""
    import shutil
    import socket
    import subprocess
    import tempfile
    import urllib.request

    import psutil

    from alerts.central.fitting import Fits
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
            watch = Watch(settings, reader, Fits(settings, pool), Bounds(series_limit=series), clock=lambda: now[0])
            process = psutil.Process(server.pid)
            for name in ("history", "new points"):
                begin, wall, theirs = cpu(), time.monotonic(), sum(process.cpu_times()[:2])
                before = reader.tally.samples
                watch.turn()
                while watch.fits.under_way and time.monotonic() - wall < 300:
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


PARTS = ("steady", "prophet", "intervals", "multiplicative", "masks", "fits", "fleet", "prometheus", "quality")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)} (the last needs --data); all if none is named")
    parser.add_argument("--only", action="append", default=[], metavar="PART", help="the same, by option")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="few series and a small fleet: a look, not a figure")
    size.add_argument("--full", action="store_true", help="Prophet itself on all 1,000 series: about half an hour")
    parser.add_argument("--series", type=int, help="size of the fleet (96000; 4000 with --quick)")
    parser.add_argument("--prometheus-series", type=int, default=5000, help="series on a real one (%(default)s)")
    parser.add_argument(
        "--data", type=Path, help="directory of labelled series: for quality, and real ones for Prophet"
    )
    args = parser.parse_args()
    asked = [*args.parts, *args.only]
    if unknown := set(asked) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if "quality" in asked and args.data is None:
        parser.error("quality needs --data DIR")
    parts = asked or [part for part in PARTS if part != "quality" or args.data]
    number = args.series or (4000 if args.quick else 96_000)
    whole, picked, hard = (8, 8, 4) if args.quick else (50, 1000 if args.full else 60, len(HARD))
    few = 3 if args.quick else 8
    print(f"# {blas()}")
    run = {
        "steady": lambda: steady(number),
        "prophet": lambda: beside_prophet(whole, picked, hard, 0 if args.quick else 4, args.data),
        "intervals": lambda: intervals(few),
        "multiplicative": lambda: multiplicative(few),
        "masks": lambda: masks(200 if args.quick else 1000),
        "fits": lambda: [fits(name) for name in ("ewma", "robust", "prophet_batched")],
        "fleet": lambda: fleet(number),
        "prometheus": lambda: on_prometheus(args.prometheus_series),
        "quality": lambda: quality(args.data, MODELS[:2] if args.quick else MODELS, cross=not args.quick),
    }
    for part in PARTS:
        if part in parts:
            progress(f"part {part}")
            run[part]()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
