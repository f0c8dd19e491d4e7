"""Quality: every model on made-up series with known anomalies and on labelled ones, by kind of series.

Prints `name value unit` lines and tables as comments. Nothing is tuned here: every model has its default settings. The
made-up series and a directory of real ones (`--data`) are two independent sets; what helps one alone is no gain.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

if str(Path(__file__).parent) in sys.path:  # a script's folder comes first: `quality` would be this file
    sys.path.remove(str(Path(__file__).parent))
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before numpy is loaded

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from alerts.detect.bands import Array, Floors  # noqa: E402
from alerts.detect.labelled import read_directory  # noqa: E402
from alerts.detect.quality import Quality, confidence, judge  # noqa: E402
from alerts.detect.sample_anomalies import every  # noqa: E402
from alerts.detect.stream import How, score_series  # noqa: E402

MODELS = ("auto", "robust", "ewma", "rolling_quantile", "seasonal_quantile", "prophet_batched", "z_score")
FLOOR = Floors(relative=0.1)
"""What a monitor would give the models that have no floor of their own."""
PLAIN_Z = 4.0

Series = tuple[str, Array, Array, npt.NDArray[np.int64]]
"""Kind, times, values, labels."""


def z_score(times: Array, values: Array) -> Array:
    """The plain baseline: distance from the mean of all that came before, in its standard deviations."""
    order = np.argsort(times, kind="stable")
    known = np.nan_to_num(values[order])
    count = np.arange(1, len(known) + 1)
    mean = np.cumsum(known) / count
    deviation = np.sqrt(np.maximum(np.cumsum(known**2) / count - mean**2, 1e-12))
    scores = np.full(len(known), np.nan)
    scores[order[1:]] = np.abs(known[1:] - mean[:-1]) / (PLAIN_Z * deviation[:-1])
    scores[order[:100]] = np.nan
    return scores


def score(name: str, times: Array, values: Array) -> Array:
    if name == "z_score":
        return z_score(times, values)
    floors = Floors() if name in ("auto", "robust") else FLOOR
    return score_series(times, values, How(name, floors=floors)).scores


def measure(title: str, series: list[Series], models: list[str]) -> None:
    """A row a model, and the winner of each kind of series by event-based F1."""
    by_kind: dict[str, dict[str, Quality]] = defaultdict(dict)
    for name in models:
        each: list[Quality] = []
        begin = time.process_time()
        for kind, times, values, labels in series:
            each.append(judge(times, score(name, times, values), labels))
            by_kind[kind][name] = by_kind[kind].get(name, Quality()) + each[-1]
        spent = 1e6 * (time.process_time() - begin) / sum(len(times) for _, times, _, _ in series)
        total = sum(each, Quality())
        for wanted, value in (("event_f1", total.event_f1), ("point_f1", total.f1)):
            low, high = confidence(each, wanted if wanted == "event_f1" else "f1")
            print(f"quality_{title}_{name}_{wanted} {value:.3f} [{low:.3f}, {high:.3f}]", flush=True)
        print(
            f"# {title} {name}: point P {total.precision:.3f} R {total.recall:.3f}, "
            f"event P {total.event_precision:.3f} "
            f"R {total.event_recall:.3f}, false a day {total.false_per_day:.3f}, {spent:.0f} us a point",
            flush=True,
        )
    for kind, rows in sorted(by_kind.items()):
        best = max(rows, key=lambda name: rows[name].event_f1)
        print(f"# {title} {kind}: {best} {rows[best].event_f1:.3f}, auto {rows.get('auto', Quality()).event_f1:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="directory of labelled series")
    parser.add_argument("--seeds", type=int, default=1, help="made-up series of each shape and grid (%(default)s)")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, metavar="MODEL")
    args = parser.parse_args()
    # Other seeds than those on which the model was made.
    made_up = [(one.shape, one.times, one.values, one.labels) for one in every(range(100, 100 + args.seeds))]
    measure("made_up", made_up, args.models)
    if args.data is not None:
        files = [file for file in read_directory(args.data) if file.labels is not None]
        labelled = [(file.path.parent.name, file.times, file.values, file.labels) for file in files]
        measure("labelled", [one for one in labelled if one[3] is not None], args.models)  # type: ignore[misc]
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
