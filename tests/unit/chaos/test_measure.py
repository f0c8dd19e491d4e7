"""Witnesses are asked again when they are silent, and a mark is never later than it was seen."""

import math
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.errors import CannotTell
from chaos import measure, report
from chaos.engine.result import Result
from chaos.report_timeline import draw

PAGE = """# HELP gpuvigil_gpu_up x
# TYPE gpuvigil_gpu_up gauge
gpuvigil_gpu_up{gpu="0",uuid="A"} 1.0
gpuvigil_gpu_up{gpu="3",uuid="B \\"x\\" , c"} 0.0
gpuvigil_gpu_up_other{uuid="A"} 7
gpuvigil_agent_snapshot_timestamp_seconds 12.5
gpuvigil_gpu_up{gpu="4",uu"""


def test_a_value_by_its_labels_even_on_half_a_page() -> None:
    agent = measure.Agent("http://unused")
    whole = PAGE.rpartition("\n")[0]
    assert agent.value("gpuvigil_gpu_up", {"uuid": "A"}, whole) == 1
    assert agent.value("gpuvigil_gpu_up", {"uuid": 'B "x" , c'}, whole) == 0
    assert agent.value("gpuvigil_gpu_up", {"uuid": "C"}, whole) is None
    assert agent.value("gpuvigil_agent_snapshot_timestamp_seconds", {}, whole) == 12.5
    assert agent.value("gpuvigil_nothing", {}, whole) is None
    with pytest.raises(CannotTell, match="cannot be read"):
        agent.value("gpuvigil_gpu_up", {"uuid": "A"}, PAGE)


def test_a_silent_witness_is_asked_again_and_marks_are_told_at_once() -> None:
    asked, told = [0], []

    def slow() -> bool:
        asked[0] += 1
        if asked[0] < 3:
            raise CannotTell("not yet")
        return True

    before = time.monotonic()
    marks = measure.watch(
        {"exact": lambda: before - 1, "slow": slow, "never": lambda: math.nan},
        0.5,
        lambda: None,
        lambda name, at: told.append((name, at)),
    )
    assert marks["exact"] == before - 1
    assert before < marks["slow"] <= time.monotonic()
    assert marks.keys() == {"exact", "slow"}
    assert told == [("exact", marks["exact"]), ("slow", marks["slow"])]


def test_a_watch_ends_early_with_the_reason() -> None:
    with pytest.raises(measure.Stopped, match="enough"):
        measure.watch({"never": lambda: False}, 60, lambda: "enough")


@given(st.floats(min_value=-1e6, max_value=1e6))
def test_a_wall_time_is_never_later_than_now(offset: float) -> None:
    assert measure.on_monotonic(time.time() + offset) <= time.monotonic()


def test_nobody_there_is_cannot_tell() -> None:
    with pytest.raises(CannotTell, match=r"http://127\.0\.0\.1:1/metrics"):
        measure.Agent("http://127.0.0.1:1").page()


def test_the_right_alert_is_found_among_deliveries() -> None:
    def delivery(at: float, name: str, uuid: str, status: str) -> dict[str, object]:
        alert = {"status": status, "labels": {"alertname": name, "uuid": uuid}}
        return {"monotonic": at, "body": {"alerts": [alert]}}

    pages = [
        delivery(1, "GpuXid", "A", "firing"),
        delivery(2, "GpuLost", "B", "firing"),
        delivery(3, "GpuLost", "A", "resolved"),
        delivery(4, "GpuLost", "A", "firing"),
        delivery(5, "GpuLost", "A", "firing"),
    ]
    found = measure.find_alert(pages, "GpuLost", {"uuid": "A"}, "firing")
    assert found
    assert found[0] == 4
    assert measure.find_alert(pages, "GpuLost", {"uuid": "C"}, "firing") is None


def test_a_report_escapes_what_it_was_given_and_shows_what_was_not_seen(tmp_path: Path) -> None:
    result = Result("x", "x", "<b>title</b>", "why", "<node>", 0.0, verdict="fail", reasons=["<script>"])
    result.timeline = {"injected": 0.0, "seen": 1.0, "undone": 2.0}
    page = report.write(result, tmp_path).read_text()
    assert "<b>title" not in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("not seen") == 2
    assert "stroke-dasharray" in page
    assert "FAIL" in report.text(result)


@given(st.dictionaries(st.sampled_from(["seen", "firing", "paged", "undone", "resolved"]), st.floats(0, 1e5)))
def test_a_timeline_stays_on_its_canvas(marks: dict[str, float]) -> None:
    result = Result("x", "x", "t", "w", "n", 0.0, timeline={"injected": 0.0, **marks})
    drawn = draw(result)
    assert drawn.count("<svg") == 1
    assert "nan" not in drawn
    xs = [float(piece.split('"')[0]) for piece in drawn.split('<rect x="')[1:]]
    assert all(0 <= x <= 900 for x in xs)
