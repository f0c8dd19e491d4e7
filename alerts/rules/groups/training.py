"""Training: late against its plan, or too long without a checkpoint."""

from __future__ import annotations

from agent.base.catalogue import central, train
from alerts.rules.model import Alert, Case, Firing, Group, Recording, Runbook
from alerts.rules.promql import number, per
from alerts.rules.series import DRILLED, JOB, drill_on
from alerts.rules.thresholds import Thresholds, duration

GROUP = Group("gpuvigil-training", "Training that is late, and checkpoints that are old")

IDLE = "job:gpuvigil_train_idle_timestamp_seconds:last"
"""Recorded while a job stands still: the time of evaluation."""


@GROUP.alert
def training_eta_deviates(t: Thresholds) -> Alert:
    def bound(name: str) -> str:
        return central.TRAIN_DEVIATION(bound=name)

    def series(expected: str, low: str, high: str) -> dict[str, str]:
        values = {"expected": expected, "low": low, "high": high}
        return {central.TRAIN_DEVIATION(**JOB, bound=name): text for name, text in values.items()}

    limit = number(t.eta_deviation)
    late = "The expected duration of job j1 differs from its plan by 20% of it."
    return Alert(
        name="TrainingEtaDeviates",
        severity="ticket",
        fault="training_eta",
        scope="job",
        action="REVIEW_PLAN",
        condition=per("job", f"{bound('expected')} > {limit} and ignoring (bound) {bound('low')} > 0")
        + "\nor\n"
        + per("job", f"{bound('expected')} < -{limit} and ignoring (bound) {bound('high')} < 0", op="min"),
        timing=t.timings.training_eta_deviates,
        summary="Training job {{ $labels.job_id }} departs from its plan",
        description="The expected duration of job {{ $labels.job_id }} differs from its plan by"
        " {{ $value | humanizePercentage }} of it.",
        dashboard="training",
        runbook=Runbook(
            meaning="The forecast of the job's end departs from the plan by more than the limit, and the plan lies "
            "outside the forecast's interval: this is not noise of a job that has just begun.",
            impact="The job ends later than promised and holds its GPUs longer. Much too early is a sign as well: "
            "steps skipped, a wrong plan.",
            diagnosis="1. The training board: step time, and when it changed.\n2. A straggler: one node's clocks, "
            "temperatures or throttling against the others.\n3. GPUs idle between steps: input pipeline, storage, "
            "checkpoints.\n4. Restarts that lost steps.",
            mitigation="Swap the straggler, repair the input, or correct the plan and say so to whom it concerns.",
        ),
        cases=(
            Case(
                "late: fires after the hold, resolves",
                series("0.1x3 0.2x50 0.1x160", "0x3 0.12x50 0x160", "0.3x240"),
                {"10m45s": (), "11m": (Firing(JOB, late),), "50m": ()},
            ),
            Case("just under: 15 % exactly", series("0.15x60", "0.1x60", "0.2x60"), {"14m": ()}),
            Case(
                "late, but the interval still holds the plan: no alert", series("0.3x60", "0x60", "0.6x60"), {"14m": ()}
            ),
            Case(
                "much too early is told as well",
                series("-0.25x60", "-0.4x60", "-0.1x60"),
                {"14m": (Firing(JOB, "The expected duration of job j1 differs from its plan by -25% of it."),)},
            ),
            Case(
                "two members of the centre: each forecast is held against its own interval",
                {
                    central.TRAIN_DEVIATION(**JOB, bound=name, instance=at): f"{value}x60"
                    for at, values in {"a": (-0.25, -0.4, -0.1), "b": (0, -0.1, 0.1)}.items()
                    for name, value in zip(("expected", "low", "high"), values, strict=True)
                },
                {"14m": (Firing(JOB, "The expected duration of job j1 differs from its plan by -25% of it."),)},
            ),
            Case("no forecast yet (warming up): absent, no alert", {train.RUNNING(**JOB): "1x60"}, {"14m": ()}),
            Case(
                "a drill on the job labels it",
                {**series("0.2x60", "0.1x60", "0.3x60"), **drill_on("job", JOB)},
                {"14m": (Firing({**JOB, **DRILLED}, late),)},
            ),
        ),
    )


@GROUP.recordings
def idle(t: Thresholds) -> list[Recording]:
    running = per("job", train.RUNNING.name)
    return [Recording(IDLE, f"time() + 0 * ({running} == 0)")]


@GROUP.alert
def checkpoint_stale(t: Thresholds) -> Alert:
    """The age is of the work at risk: since the last complete checkpoint, the first step, or the last pause."""
    since = {
        "complete": per("job", train.CHECKPOINT_COMPLETE_TIME.name),
        "started": per("job", train.STARTED.name),
        "idle": f"last_over_time({IDLE}[{duration(t.job_memory)}])",
    }
    latest = "\n  or ".join(f'label_replace({expr}, "since", "{name}", "", "")' for name, expr in since.items())
    interval, running = per("job", train.CHECKPOINT_INTERVAL.name), per("job", train.RUNNING.name)
    done, first = train.CHECKPOINT_COMPLETE_TIME(**JOB), train.STARTED(**JOB)
    every, runs = train.CHECKPOINT_INTERVAL(**JOB), train.RUNNING(**JOB)

    def told(age: str) -> str:
        return f"Job j1 has no complete checkpoint of the last {age}."

    return Alert(
        name="CheckpointStale",
        severity="page",
        fault="checkpoint_stale",
        scope="job",
        action="SAVE_CHECKPOINT",
        condition=f"time() - {per('job', chr(10) + '  ' + latest + chr(10))}\n"
        f"> {number(t.checkpoint_intervals)} * {interval}\nand {running} == 1",
        timing=t.timings.checkpoint_stale,
        summary="Training job {{ $labels.job_id }} runs without a recent checkpoint",
        description="Job {{ $labels.job_id }} has no complete checkpoint of the last {{ $value | humanizeDuration }}.",
        dashboard="training",
        runbook=Runbook(
            meaning="The job makes steps, and its last complete checkpoint (manifest and sizes agree) is older than "
            "the job's own interval allows. A pause of the job does not count.",
            impact="A fault now loses all steps since then, on all of the job's GPUs.",
            diagnosis="1. The checkpoint folder: is one being written, does it stay incomplete?\n"
            "2. Is the storage full or slow? `df`, the job's log around its save.\n"
            "3. `gpuvigil_checkpoint_incomplete` above 0: saves that broke off.",
            mitigation="Make space or repair the storage, then have the job save at once. Do not stop the job before "
            "a checkpoint is complete.",
        ),
        cases=(
            Case(
                "fires past 1.5 intervals, resolves when one is complete",
                {done: "0x65 990x20", every: "600x90", runs: "1x90"},
                {"15m": (), "15m15s": (Firing(JOB, told("15m 15s")),), "18m": ()},
            ),
            Case("just under: exactly 1.5 intervals", {done: "0x60", every: "600x60", runs: "1x60"}, {"15m": ()}),
            Case(
                "no checkpoint ever: counted from the run's first step",
                {first: "0x80", every: "600x80", runs: "1x80"},
                {"15m": (), "16m": (Firing(JOB, told("16m 0s")),)},
            ),
            Case(
                "resumed after a pause: the old checkpoint is not held against it",
                {done: "0x160", first: "0x160", every: "600x160", runs: "1x39 0x40 1x80"},
                {"21m": (), "35m": (), "36m": (Firing(JOB, told("16m 0s")),)},
            ),
            Case(
                "ended: no alert",
                {done: "0x90", every: "600x90", runs: "0x90"},
                {"20m": ()},
            ),
            Case(
                "interval not known yet: absent, no alert",
                {done: "0x90", runs: "1x90"},
                {"20m": ()},
            ),
        ),
    )
