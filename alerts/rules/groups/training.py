"""Training: late against its plan, or too long without a checkpoint."""

from __future__ import annotations

from agent.base.catalogue import central, train
from alerts.rules.model import Alert, Case, Firing, Group, Recording, Runbook, Severity
from alerts.rules.promql import number, per
from alerts.rules.series import DRILLED, JOB, drill_on
from alerts.rules.thresholds import Thresholds, duration

GROUP = Group("gpuvigil-training", "Training that is late, and checkpoints that are old")

IDLE = "job:gpuvigil_train_idle_timestamp_seconds:last"
"""Recorded while a job stands still: the time of evaluation."""


def _deviates(t: Thresholds, severity: Severity, runbook: Runbook | None = None, cases: tuple[Case, ...] = ()) -> Alert:
    """Only lateness alerts; a page wants a plan that somebody configured, and an interval that lies beyond it."""
    limit = number(t.eta_deviation)
    expected, low = (central.TRAIN_DEVIATION(bound=name) for name in ("expected", "low"))
    if severity == "page":
        expected, low = (central.TRAIN_DEVIATION(bound=name, plan="configured") for name in ("expected", "low"))
    late = f"{expected} > {limit}"
    return Alert(
        name="TrainingEtaDeviates",
        severity=severity,
        fault="training_eta",
        scope="job",
        action="REVIEW_PLAN",
        condition=per("job", f"{late} and ignoring (bound) {low} > 0" if severity == "page" else late),
        timing=t.timings.training_eta_deviates,
        summary="Training job {{ $labels.job_id }} will be late",
        description="Job {{ $labels.job_id }} is expected to take {{ $value | humanizePercentage }} longer than its"
        " plan.",
        dashboard="training",
        runbook=runbook,
        cases=cases,
    )


@GROUP.alert
def training_eta_ticket(t: Thresholds) -> Alert:
    def series(expected: str, low: str, plan: str = "configured") -> dict[str, str]:
        values = {"expected": expected, "low": low, "high": "0.4x240"}
        return {central.TRAIN_DEVIATION(**JOB, bound=name, plan=plan): text for name, text in values.items()}

    told = "Job j1 is expected to take 20% longer than its plan."
    ticket, page = Firing(JOB, told, "ticket"), Firing(JOB, told, "page")
    return _deviates(
        t,
        "ticket",
        Runbook(
            meaning="The forecast of the job's end is later than planned by more than the limit. It pages where the "
            "plan was configured and the forecast's whole interval lies beyond it; a plan that was learnt from the "
            "job itself is nobody's promise and stays a ticket.",
            impact="The job ends later than promised and holds its GPUs longer.",
            diagnosis="1. The training board: step time, and when it changed. A change at a planned step is a "
            "schedule that nobody announced: write it into `training.jobs`.\n2. A straggler: one node's clocks, "
            "temperatures or throttling against the others.\n3. GPUs idle between steps: input pipeline, storage, "
            "checkpoints.\n4. Restarts that lost steps.",
            mitigation="Swap the straggler, repair the input, or correct the plan and say so to whom it concerns.",
        ),
        (
            Case(
                "late: fires after the hold, resolves; pages while the interval excludes the plan",
                series("0.1x3 0.2x50 0.1x160", "-0.1x3 0.12x50 -0.1x160"),
                {"10m45s": (), "11m": (ticket, page), "50m": ()},
            ),
            Case("just under: 15 % exactly", series("0.15x60", "0.1x60"), {"14m": ()}),
            Case("late, but the interval still holds the plan: a ticket", series("0.2x60", "0x60"), {"14m": (ticket,)}),
            Case("a learnt plan never pages", series("0.2x60", "0.1x60", "learned"), {"14m": (ticket,)}),
            Case("much too early is no alert", series("-0.25x60", "-0.4x60"), {"14m": ()}),
            Case(
                "two members of the centre: each forecast is held against its own interval",
                {
                    central.TRAIN_DEVIATION(**JOB, bound=name, plan="configured", instance=at): f"{value}x60"
                    for at, values in {"a": (0.2, -0.1), "b": (0.1, 0.05)}.items()
                    for name, value in zip(("expected", "low"), values, strict=True)
                },
                {"14m": (ticket,)},
            ),
            Case("no forecast yet (warming up): absent, no alert", {train.RUNNING(**JOB): "1x60"}, {"14m": ()}),
            Case(
                "a drill on the job labels it",
                {**series("0.2x60", "0x60"), **drill_on("job", JOB)},
                {"14m": (Firing({**JOB, **DRILLED}, told, "ticket"),)},
            ),
        ),
    )


@GROUP.alert
def training_eta_page(t: Thresholds) -> Alert:
    return _deviates(t, "page")


@GROUP.alert
def training_pace_drops(t: Thresholds) -> Alert:
    pace = central.TRAIN_PACE(**JOB)
    slow = Firing(JOB, "Steps of job j1 take 30% longer than when it had settled.")
    return Alert(
        name="TrainingPaceDrops",
        severity="ticket",
        fault="training_pace",
        scope="job",
        action="REVIEW_PLAN",
        condition=per("job", f"{central.TRAIN_PACE} > {number(t.eta_deviation)}"),
        timing=t.timings.training_pace_drops,
        summary="Training job {{ $labels.job_id }} has become slower",
        description="Steps of job {{ $labels.job_id }} take {{ $value | humanizePercentage }} longer than when it had"
        " settled.",
        dashboard="training",
        runbook=Runbook(
            meaning="The present time per step is above that of the settled job by more than the limit, checkpoints "
            "and evaluations left out. It tells of a slowdown long before the end of the job suffers much.",
            impact="GPUs are paid for and not used; the job may become late.",
            diagnosis="1. The training board: a sudden change, or a creep?\n2. At a planned step (longer sequences, "
            "larger batches)? Then it is a schedule that nobody announced: write it into `training.jobs`.\n"
            "3. A straggler, throttling, the input pipeline, storage.",
            mitigation="Swap the straggler or repair the input; announce what was planned.",
        ),
        cases=(
            Case(
                "fires after the hold, resolves", {pace: "0x3 0.3x50 0x160"}, {"10m45s": (), "11m": (slow,), "50m": ()}
            ),
            Case("just under: 15 % exactly", {pace: "0.15x60"}, {"14m": ()}),
            Case("faster is no alert", {pace: "-0.3x60"}, {"14m": ()}),
            Case(
                "a drill on the job labels it",
                {pace: "0.3x60", **drill_on("job", JOB)},
                {"14m": (Firing({**JOB, **DRILLED}, slow.description),)},
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
