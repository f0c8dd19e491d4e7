"""Training: the loss beside the hardware that makes it, and whether the run ends in time."""

from __future__ import annotations

from agent.base.catalogue import central, gpu, train
from dashboards.lib import SCOPE, Board, Query, at, paint, right_axis, select, series, stat, variable

JOB = {"job_id": "=~$job_id"}
CENTRAL = {key: value for key, value in SCOPE.items() if key != "job"}
"""Central's series keep the job's own cluster and node, but are scraped under central's job."""

YOUNG = "central is warming up, or the job has no plan"


def build() -> Board:
    board = Board(
        uid="gpuvigil-training",
        title="gpuvigil / Training",
        description="Loss and learning beside GPU use, pace, checkpoints and the expected end of each training job.",
        variables=[variable("job_id", "Job id", f"label_values({train.STEP}, job_id)")],
    )
    _is_it_late(board)
    _loss(board)
    _pace(board)
    _hardware(board)
    return board


def _is_it_late(board: Board) -> None:
    deviation = central.TRAIN_DEVIATION(**CENTRAL, **JOB, bound="expected")
    stat(
        board, 1, "Progress",
        f"Steps made of those planned (metrics {train.STEP}, {train.STEPS_PLANNED}).",
        at(0, 0, 4, 4), Query(f"min({select(train.STEP, **JOB)} / {select(train.STEPS_PLANNED, **JOB)})"),
        unit="percentunit", colours=((None, "blue"),), decimals=1,
    )  # fmt: skip
    stat(
        board, 2, "Running",
        f"1 while steps come (metric {train.RUNNING}).",
        at(4, 0, 4, 4), Query(f"min({select(train.RUNNING, **JOB)})"),
        words={"0": ("ended or stalled", "orange"), "1": ("running", "green")},
    )  # fmt: skip
    stat(
        board, 3, "Time left",
        f"Expected by the central service (metric {central.TRAIN_ETA}).",
        at(8, 0, 4, 4), Query(f"max({central.TRAIN_ETA(**CENTRAL, **JOB)})", empty=YOUNG), unit="dtdurations",
        colours=((None, "blue"),),
    )  # fmt: skip
    stat(
        board, 4, "Late against the plan",
        f"Expected total time against the plan; above 15 % it alerts (metric {central.TRAIN_DEVIATION}).",
        at(12, 0, 4, 4), Query(f"max({deviation})", empty=YOUNG), unit="percentunit",
        colours=((None, "green"), (0.1, "yellow"), (0.15, "red")), decimals=1,
    )  # fmt: skip
    stat(
        board, 5, "Work at risk",
        f"Age of the last complete checkpoint: what a crash now would lose (metric {train.CHECKPOINT_COMPLETE_TIME}).",
        at(16, 0, 4, 4), Query(f"max(time() - {select(train.CHECKPOINT_COMPLETE_TIME, **JOB)})"), unit="dtdurations",
        colours=((None, "green"), (900, "yellow"), (3600, "red")),
    )  # fmt: skip
    stat(
        board, 6, "NaN or infinite losses, 1 h",
        f"Losses that are no number (metric {train.LOSS_NONFINITE}). Do: roll back to the last good checkpoint.",
        at(20, 0, 4, 4), Query(f"round(sum(increase({select(train.LOSS_NONFINITE, **JOB)}[1h])))"),
        colours=((None, "green"), (1, "red")),
    )  # fmt: skip


def _loss(board: Board) -> None:
    series(
        board, 10, "Loss and GPU utilisation",
        f"Left: training loss (metric {train.LOSS}). Right: utilisation of the node's GPUs, mean and lowest (metric {gpu.UTILIZATION}). "
        "A loss that stops falling while the GPUs work is the model's trouble; one that stops with idle GPUs is the machine's.",
        at(0, 4, 24, 10),
        [
            Query(f"{select(train.LOSS, **JOB)}", "loss {{job_id}}"),
            Query(f"avg by (node) ({select(gpu.UTILIZATION)})", "GPU util mean {{node}}"),
            Query(f"min by (node) ({select(gpu.UTILIZATION)})", "GPU util min {{node}}"),
        ],
        label="loss", legend="table",
        overrides=[
            right_axis("/util/", "GPU utilisation", "percentunit", low=0, high=1),
            paint("/util mean/", "green"),
            paint("/util min/", "orange", dash=True),
        ],
    )  # fmt: skip


def _pace(board: Board) -> None:
    deviation = {**CENTRAL, **JOB}
    series(
        board, 20, "Pace",
        f"Left: time per step (metric {train.STEP_SECONDS}). Right: steps per second over the last minutes (metric {train.STEP}).",
        at(0, 14, 12, 8),
        [
            Query(f"{select(train.STEP_SECONDS, **JOB)}", "step time {{job_id}}"),
            Query(f"deriv({select(train.STEP, **JOB)}[$__rate_interval])", "steps per second {{job_id}}"),
        ],
        unit="s", label="time per step", low=0,
        overrides=[right_axis("/per second/", "steps per second", "none", low=0)],
    )  # fmt: skip
    series(
        board, 21, "Late against the plan",
        f"Expected total time against the plan with its interval; the dashed line is 15 % (metric {central.TRAIN_DEVIATION}).",
        at(12, 14, 12, 8),
        [
            Query(central.TRAIN_DEVIATION(**deviation, bound="expected"), "expected {{job_id}}", empty=YOUNG),
            Query(central.TRAIN_DEVIATION(**deviation, bound="low"), "low {{job_id}}", empty=YOUNG),
            Query(central.TRAIN_DEVIATION(**deviation, bound="high"), "high {{job_id}}", empty=YOUNG),
        ],
        unit="percentunit", label="deviation", limit=0.15,
        overrides=[paint("/low|high/", "blue", dash=True)],
    )  # fmt: skip
    series(
        board, 22, "Learning rate and gradient norm",
        f"Left: learning rate (metric {train.LEARNING_RATE}). Right: gradient norm (metric {train.GRAD_NORM}).",
        at(0, 22, 12, 7),
        [
            Query(f"{select(train.LEARNING_RATE, **JOB)}", "learning rate {{job_id}}"),
            Query(f"{select(train.GRAD_NORM, **JOB)}", "gradient norm {{job_id}}", empty="not every framework logs it"),
        ],
        label="learning rate", low=0,
        overrides=[right_axis("/norm/", "gradient norm", "none", low=0)],
    )  # fmt: skip
    series(
        board, 23, "Checkpoints: age against the job's interval",
        f"Age of the last complete checkpoint (metric {train.CHECKPOINT_COMPLETE_TIME}) and the interval the job keeps "
        f"(metric {train.CHECKPOINT_INTERVAL}). Above 1.5 intervals it pages.",
        at(12, 22, 12, 7),
        [
            Query(f"time() - {select(train.CHECKPOINT_COMPLETE_TIME, **JOB)}", "age {{job_id}}"),
            Query(f"{select(train.CHECKPOINT_INTERVAL, **JOB)}", "interval {{job_id}}"),
        ],
        unit="s", label="seconds", low=0,
        overrides=[paint("/interval/", "text", dash=True)],
    )  # fmt: skip


def _hardware(board: Board) -> None:
    series(
        board, 30, "Arithmetic and memory",
        f"SM, tensor and DRAM activity, mean over the GPUs (metrics {gpu.SM_ACTIVITY}, {gpu.TENSOR_ACTIVITY}, {gpu.DRAM_BANDWIDTH_RATIO}).",
        at(0, 29, 12, 8),
        [
            Query(f"avg by (node) ({select(gpu.SM_ACTIVITY)})", "SM {{node}}", empty="no GPU with GPM"),
            Query(f"avg by (node) ({select(gpu.TENSOR_ACTIVITY)})", "tensor {{node}}", empty="no GPU with GPM"),
            Query(f"avg by (node) ({select(gpu.DRAM_BANDWIDTH_RATIO)})", "DRAM {{node}}", empty="no GPU with GPM"),
        ],
        unit="percentunit", label="activity", low=0, high=1,
    )  # fmt: skip
    series(
        board, 31, "SM clock and power",
        f"Left: lowest and highest SM clock (metric {gpu.CLOCK}): one slow GPU holds back the whole job. Right: power (metric {gpu.POWER}).",
        at(12, 29, 12, 8),
        [
            Query(f"min by (node) ({select(gpu.CLOCK, clock='sm')})", "SM clock min {{node}}"),
            Query(f"max by (node) ({select(gpu.CLOCK, clock='sm')})", "SM clock max {{node}}"),
            Query(f"sum by (node) ({select(gpu.POWER)})", "power {{node}}"),
        ],
        unit="hertz", label="SM clock",
        overrides=[right_axis("/power/", "power", "watt", low=0)],
    )  # fmt: skip
