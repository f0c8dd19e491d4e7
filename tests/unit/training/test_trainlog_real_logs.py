"""Every progress line of every real log is read: counted by plain text search, not by our own patterns."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from agent.base.trainlog import Auto, Progress, detect

ROOT = Path(__file__).parents[3]
EXCERPTS = ROOT / "tests/data/training"
WHOLE = ROOT.parent / "shared/data/training"
RAW = WHOLE / "modded_nanogpt/raw"

needs_whole = pytest.mark.skipif(not WHOLE.is_dir(), reason="the whole logs are not beside this checkout")


def lines_of(path: Path) -> list[str]:
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        return file.read().split("\n")


def progress_lines(path: Path) -> int:
    """Lines that report a step, found by what a person would search for."""
    text = "\n".join(lines_of(path)).replace("\r", "\n")
    if path.name.startswith("hf_") or path.name.startswith("huggingface"):
        return sum("%|" in line and "/16 [" in line for line in text.split("\n"))
    if path.name.startswith("meg"):
        return text.count("elapsed time per iteration (ms)")
    if path.suffix == ".csv":
        return sum(line[:1].isdigit() for line in text.split("\n"))
    if path.name.startswith("llmc"):
        return sum(line.startswith("s:") for line in text.split("\n"))
    return sum(line.startswith("step:") for line in text.split("\n"))


def read(path: Path) -> tuple[Auto, list[Progress]]:
    parser = Auto()
    return parser, list(parser.feed_all(lines_of(path)))


LOGS = [pytest.param(path, id=path.name) for path in sorted(EXCERPTS.glob("*.log"))] + [
    pytest.param(path, id=f"whole-{path.name}", marks=needs_whole)
    for path in (
        *sorted((WHOLE / "bigscience").glob("*.out")),
        *sorted(RAW.glob("*.log")),
    )
]
TABLES = [pytest.param(path, id=f"whole-{path.name}") for path in sorted((WHOLE / "modded_nanogpt").glob("*.csv"))]
FORMAT = {"meg": "megatron", "hf_": "huggingface", "hug": "huggingface", "llm": "llm.c", "tra": "csv"}


@pytest.mark.parametrize("path", [*LOGS, *TABLES])
def test_every_progress_line_is_read(path: Path) -> None:
    parser, records = read(path)
    counted = progress_lines(path)
    assert counted > 0
    assert sum(record.step is not None for record in records) == counted
    assert parser.unparsed == 0
    assert parser.chosen is not None
    assert parser.chosen.name == FORMAT.get(path.name[:3], "nanogpt")


@pytest.mark.parametrize("path", LOGS)
def test_no_restart_is_seen_where_none_was(path: Path) -> None:
    assert not any(record.restart for record in read(path)[1])


@pytest.mark.parametrize("path", LOGS)
def test_the_named_format_reads_what_auto_reads(path: Path) -> None:
    parser = detect(lines_of(path))
    assert parser is not None
    by_name = [record for record in parser.feed_all(lines_of(path)) if record.step is not None]
    by_auto = [record for record in read(path)[1] if record.step is not None]
    assert by_name == by_auto


def test_cancelled_run_says_that_it_ended() -> None:
    records = read(EXCERPTS / "megatron_cancelled.log")[1]
    assert records[-1].ended
    assert not any(record.ended for record in records if record.step is not None)
    last = [record for record in records if record.step is not None][-1]
    assert (last.step, last.total_steps, last.loss) == (200, 1000, pytest.approx(7.365868))


def test_communication_share_comes_from_the_timers() -> None:
    """Iteration 200: recv 126.34, send 0.65, send-recv 4.75, all-reduces 23.24 and 419.47 ms of 1382.2 ms."""
    records = read(EXCERPTS / "megatron_cancelled.log")[1]
    shares = [record.communication_ratio for record in records if record.communication_ratio is not None]
    assert shares[-1] == pytest.approx((126.34 + 0.65 + 4.75 + 23.24 + 419.47) / 1382.2, rel=0.01)


def test_clock_reset_is_given_as_logged() -> None:
    records = read(EXCERPTS / "nanogpt_clock_reset.log")[1]
    elapsed = {record.step: record.elapsed for record in records}
    assert elapsed[10] == pytest.approx(25.678)
    assert elapsed[11] == pytest.approx(0.110)
    after = next(record for record in records if record.step == 11)
    assert after.step_seconds is None, "no pace across a reset"


def test_main_log_counts_steps_made() -> None:
    records = read(EXCERPTS / "llmc_main.log")[1]
    assert records[0].step == 0
    assert records[0].validation_loss == pytest.approx(10.968871)
    assert records[1].step == 1
    assert records[1].loss == pytest.approx(10.965596)


@needs_whole
@pytest.mark.parametrize(
    ("log", "table"),
    [
        ("WindowWarmup.log", "track_1_short__2024-11-24_WindowWarmup__3151f69a-f89e-452c-ac80-b85118007583.csv"),
        (
            "BatchSizeSchedule.log",
            "track_1_short__2025-11-29_BatchSizeSchedule__10e8f7c6-7175-4467-bdb0-a5de25d771a6.csv",
        ),
    ],
)
def test_records_agree_with_the_published_table(log: str, table: str) -> None:
    """The table was made from the same log by other people's code."""
    records = read(RAW / log)[1]
    with (WHOLE / "modded_nanogpt" / table).open() as file:
        rows = list(csv.DictReader(file))
    assert len(records) == len(rows)
    for record, row in zip(records, rows, strict=True):
        assert record.step == int(row["step"])
        assert record.total_steps == int(row["total_steps"])
        assert record.elapsed == pytest.approx(float(row["train_time_ms"]) / 1000)
        loss = record.validation_loss if row["kind"] == "val_loss" else record.loss
        assert loss == (pytest.approx(float(row["loss"])) if row["loss"] else None)
