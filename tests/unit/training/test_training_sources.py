"""Sources beside the log: TensorBoard files by real writers, reports to the socket, ranks."""

from __future__ import annotations

import csv
import gc
import http.client
import itertools
import json
import math
import os
import shutil
import socket
import stat
import statistics
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.collector import Context, PartialFailure
from agent.base.trainlog.events import DamagedFrame, EventReader, _masked_crc32c
from agent.collectors.training import Training
from agent.training.settings import TrainingSettings

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests/data/training"
WORKERS = ROOT.parent / "shared/data/training/alibaba_minibatch/job_1_norm.csv"


def page(collector: Training) -> dict[tuple[str, ...], float]:
    return {
        (one.metric.name.removeprefix("gpuvigil_train_"), *one.labels[1:]): one.value for one in collector.collect()
    }


# TensorBoard


def scalar(step: int, loss: float, wall_time: float = 1_700_000_000.0, tag: str = "loss") -> bytes:
    """A frame with one scalar, as TensorBoard's writers lay it out."""
    value = b"\x0a" + bytes([len(tag)]) + tag.encode() + b"\x15" + struct.pack("<f", loss)
    summary = b"\x0a" + bytes([len(value)]) + value
    event = b"\x09" + struct.pack("<d", wall_time) + b"\x10" + bytes([step]) + b"\x2a" + bytes([len(summary)]) + summary
    length = struct.pack("<Q", len(event))
    return b"".join(part + struct.pack("<I", _masked_crc32c(part)) for part in (length, event))


def test_scalars_of_tensorboardx() -> None:
    reader = EventReader()
    records = reader.feed((DATA / "tensorboardX.tfevents").read_bytes()) + reader.flush()
    assert [record.step for record in records] == list(range(10, 110, 10))
    for record in records:
        assert record.step is not None
        assert record.loss == pytest.approx(10 / record.step)
        assert record.grad_norm == pytest.approx(record.step / 10)
        assert record.time == 1_700_000_000 + 2 * record.step
    assert [record.validation_loss for record in records if record.validation_loss is not None] == [0.5]


def test_scalars_written_as_tensors() -> None:
    reader = EventReader()
    records = reader.feed((DATA / "tensorboard_tensors.tfevents").read_bytes()) + reader.flush()
    assert [record.loss for record in records] == [pytest.approx(3 - step / 10) for step in range(1, 6)]
    assert {record.step_seconds for record in records} == {1.25}
    assert {record.batch_size for record in records} == {64}


@pytest.mark.parametrize(
    ("tag", "field"),
    [
        ("loss_metrics/global_avg_loss", "loss"),
        ("validation_metrics/loss", "validation_loss"),
        ("eval_wikitext/loss", "validation_loss"),
        ("train_loss_step", "loss"),
        ("value/loss", "loss"),
        ("mfu(%)", "mfu"),
        ("Train/Samples/train_loss", None),
        ("lm loss vs samples", None),
    ],
)
def test_what_a_tag_means(tag: str, field: str | None) -> None:
    """DeepSpeed's axis is samples, which are no steps."""
    reader = EventReader()
    records = reader.feed(scalar(7, 50.0, tag=tag)) + reader.flush()
    if field is None:
        assert records == []
    else:
        assert [getattr(record, field) for record in records] == [0.5 if field == "mfu" else 50.0]


@settings(deadline=None)
@given(st.lists(st.integers(0, 2300), max_size=6))
def test_however_the_bytes_come_the_records_are_the_same(cuts: list[int]) -> None:
    data = (DATA / "tensorboardX.tfevents").read_bytes()
    whole = EventReader()
    expected = whole.feed(data) + whole.flush()
    reader, records, at = EventReader(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        records += reader.feed(data[at:cut])
        at = max(at, cut)
    assert records + reader.flush() == expected


@settings(deadline=None)
@given(at=st.integers(0, 2230), flip=st.integers(1, 255))
def test_a_spoilt_byte_is_found_or_costs_at_most_its_frame(at: int, flip: int) -> None:
    data = bytearray((DATA / "tensorboardX.tfevents").read_bytes())
    data[at] ^= flip
    reader = EventReader()
    try:
        records = reader.feed(bytes(data)) + reader.flush()
    except DamagedFrame:
        return
    assert len(records) >= 9
    whole = EventReader()
    sound = {(one.step, one.loss, one.grad_norm) for one in whole.feed((DATA / "tensorboardX.tfevents").read_bytes())}
    for one in records[:-1]:
        assert any(
            one.step == step and one.loss in (None, loss) and one.grad_norm in (None, norm)
            for step, loss, norm in sound
        ), "a value that was never written"


def test_a_scalar_that_does_not_agree_with_its_checksum_is_counted(tmp_path: Path) -> None:
    data = (DATA / "tensorboardX.tfevents").read_bytes()
    written = struct.pack("<f", 10 / 40)  # the loss of step 40
    assert data.count(written) == 1
    data = data.replace(written, struct.pack("<f", 7.5))
    (tmp_path / "x.tfevents").write_bytes(data)
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j", "log": str(tmp_path / "x.tfevents")}]})
    assert page(Training(settings, Context(str(tmp_path), str(tmp_path))))["log_lines_unparsed_total",] == 1


def test_event_files_are_followed_into_the_next_one(tmp_path: Path) -> None:
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j", "log": str(tmp_path / "*tfevents*")}]})
    now = 1_700_000_300.0
    collector = Training(settings, Context(str(tmp_path), str(tmp_path)), clock=lambda: now)
    first = tmp_path / "a.tfevents.1"
    data = (DATA / "tensorboardX.tfevents").read_bytes()
    first.write_bytes(data[:1000])
    os.utime(first, (now - 200, now - 200))
    before = page(collector)["step",]
    first.write_bytes(data)
    os.utime(first, (now - 100, now - 100))
    seen = page(collector)
    assert before < seen["step",] == 100
    assert seen["started_timestamp_seconds",] == 1_700_000_020
    assert seen["last_step_timestamp_seconds",] == 1_700_000_200
    shutil.copy(DATA / "tensorboard_tensors.tfevents", tmp_path / "b.tfevents.2")
    os.utime(tmp_path / "b.tfevents.2", (now, now))
    assert page(collector)["step",] == 5


def test_event_files_go_on_over_a_restart_of_the_agent(tmp_path: Path) -> None:
    """A file read again would count its lost losses again."""
    log = tmp_path / "events.out.tfevents.1"
    log.write_bytes(scalar(1, 2.5) + scalar(2, math.nan))
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j", "log": str(log)}]})
    for _ in range(2):
        collector = Training(settings, Context(str(tmp_path), str(tmp_path)))
        seen = page(collector)
        collector.close()
        assert (seen["step",], seen["loss_nonfinite_total",], ("loss",) in seen) == (2, 1, False)
    with log.open("ab") as file:
        file.write(scalar(3, 1.5))
    seen = page(Training(settings, Context(str(tmp_path), str(tmp_path))))
    assert (seen["step",], seen["loss",], seen["loss_nonfinite_total",], seen["restarts_total",]) == (3, 1.5, 1, 0)


def test_a_file_whose_framing_is_lost_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "x.tfevents"
    file.write_bytes(b"this is no event file at all")
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j", "log": str(file)}]})
    collector = Training(settings, Context(str(tmp_path), str(tmp_path)))
    for _ in range(3):
        assert page(collector)["log_lines_unparsed_total",] == 1


# reports


class Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


def post(path: Path, body: bytes | str, method: str = "POST") -> tuple[int, str]:
    connection = Unix(path)
    try:
        connection.request(method, "/progress", body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def reporting(tmp_path: Path) -> Iterator[tuple[Training, Path]]:
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j"}], "socket": str(tmp_path / "s.sock")})
    collector = Training(settings, Context(str(tmp_path), str(tmp_path)))
    page(collector)
    yield collector, tmp_path / "s.sock"
    collector.close()
    gc.collect()  # anything left open warns here, and a warning is a failure


def test_a_report_is_progress(reporting: tuple[Training, Path]) -> None:
    collector, path = reporting
    assert page(collector) == {("log_readable",): 0}
    assert post(path, json.dumps({"job_id": "j", "step": 10, "total_steps": 100, "loss": 2.5}))[0] == 200
    seen = page(collector)
    assert seen["step",] == 10
    assert seen["running",] == 1
    assert seen["last_step_timestamp_seconds",] == pytest.approx(time.time(), abs=30)


def test_a_damaged_value_of_a_report_is_left_out_named_and_counted(reporting: tuple[Training, Path]) -> None:
    collector, path = reporting
    post(path, json.dumps({"job_id": "j", "step": 10, "loss": 2.5}))
    assert page(collector)["loss",] == 2.5
    status, answer = post(path, json.dumps({"job_id": "j", "step": 11, "loss": "1.2E"}))
    assert (status, answer) == (200, "1 taken\nno numbers, left out: loss\n")
    seen = page(collector)
    assert ("loss",) not in seen
    assert (seen["step",], seen["log_lines_unparsed_total",]) == (11, 1)


@pytest.mark.parametrize("loss", ["NaN", "-Infinity", '"nan"', '"inf"'])
def test_a_lost_loss_of_a_report_is_counted(reporting: tuple[Training, Path], loss: str) -> None:
    collector, path = reporting
    post(path, '{"job_id": "j", "step": 10, "loss": 2.5}')
    post(path, f'{{"job_id": "j", "step": 11, "loss": {loss}, "grad_norm": NaN}}')
    seen = page(collector)
    assert {("loss",), ("grad_norm",)}.isdisjoint(seen)
    assert (seen["loss_nonfinite_total",], seen["log_lines_unparsed_total",]) == (1, 0)


@pytest.mark.parametrize("time_given", ["1.9e18", "4102444800", "NaN", "-5e18"])
def test_a_report_whose_clock_cannot_be_is_dated_by_its_arrival(
    reporting: tuple[Training, Path], time_given: str
) -> None:
    """Nanoseconds, a clock years ahead: believed, the run would be running until then."""
    collector, path = reporting
    assert post(path, f'{{"job_id": "j", "step": 10, "time": {time_given}}}')[0] == 200
    assert page(collector)["last_step_timestamp_seconds",] == pytest.approx(time.time(), abs=30)


def test_numbers_beyond_all_measure_are_damage(reporting: tuple[Training, Path]) -> None:
    collector, path = reporting
    huge = "1" + 400 * "0"
    status, answer = post(path, f'{{"job_id": "j", "step": 5, "loss": {huge}, "total_steps": {huge}, "time": {huge}}}')
    assert (status, answer) == (200, "1 taken\nno numbers, left out: loss, time, total_steps\n")
    assert page(collector)["step",] == 5


def test_several_reports_in_one_post(reporting: tuple[Training, Path]) -> None:
    collector, path = reporting
    reports = [
        {"job_id": "j", "step": step, "rank": rank, "step_seconds": 1.0 + rank} for step in (1, 2) for rank in (0, 1)
    ]
    assert post(path, json.dumps(reports[:2])) == (200, "2 taken\n")
    assert post(path, "\n".join(map(json.dumps, reports[2:]))) == (200, "2 taken\n")
    seen = page(collector)
    assert seen["rank_step_seconds", "0"] == 1.0
    assert seen["rank_step_seconds", "1"] == 2.0
    assert seen["restarts_total",] == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("nonsense", 400),
        ("[" * 60_000, 400),
        ("3", 404),
        ('{"job_id": "unknown", "step": 1}', 404),
        ('{"job_id": "j"}', 400),
        ('{"job_id": "j", "step": -1}', 400),
        (f'{{"job_id": "j", "step": 1{400 * "0"}}}', 400),
        ("x" * 70_000, 413),
        (b"\xff\xfe", 400),
    ],
)
def test_a_bad_report_is_refused(reporting: tuple[Training, Path], body: Any, status: int) -> None:
    collector, path = reporting
    answer = post(path, body)
    assert answer[0] == status
    assert answer[1]
    assert "step" not in {name for name, *_ in page(collector)}


def test_other_methods_and_garbage_are_refused(reporting: tuple[Training, Path]) -> None:
    _, path = reporting
    assert post(path, "", method="GET")[0] == 405
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400")


def test_silent_clients_do_not_keep_others_out(reporting: tuple[Training, Path]) -> None:
    _, path = reporting
    silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    try:
        for client in silent:
            client.connect(str(path))
        assert post(path, '{"job_id": "j", "step": 1}')[0] == 200
    finally:
        for client in silent:
            client.close()


def test_closing_drops_clients_and_leaves_nothing_open(tmp_path: Path) -> None:
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j"}], "socket": str(tmp_path / "s.sock")})
    for waiting in (b"", b"POST /progress HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"):
        collector = Training(settings, Context(str(tmp_path), str(tmp_path)))
        page(collector)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(tmp_path / "s.sock"))
            client.sendall(waiting)
            assert post(tmp_path / "s.sock", '{"job_id": "j", "step": 1}')[0] == 200
            collector.close()
            gc.collect()
            assert client.recv(100) == b""


def test_permissions_and_leftovers_of_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j"}], "socket": str(path), "socket_mode": "0660"})
    collector = Training(settings, Context(str(tmp_path), str(tmp_path)))
    page(collector)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    second = Training(settings, Context(str(tmp_path), str(tmp_path)))
    assert page(second) == {("log_readable",): 0}, "the reports are the first agent's"
    second.close()
    assert post(path, '{"job_id": "j", "step": 1}')[0] == 200
    collector.close()
    assert not path.exists()


def test_a_file_in_the_sockets_place_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.write_text("precious")
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j"}], "socket": str(path)})
    collector = Training(settings, Context(str(tmp_path), str(tmp_path)))
    with pytest.raises(PartialFailure, match="is not a socket"):
        page(collector)
    assert path.read_text() == "precious"


# a status file that is replaced at each report, and ranks


def test_a_status_file_replaced_by_rename_is_one_run(tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j", "log": str(status)}]})
    collector = Training(settings, Context(str(tmp_path), str(tmp_path)))
    begun = None
    for step in (10, 20, 30):
        new = tmp_path / "new"
        new.write_text(json.dumps({"step": step, "time": time.time() - 100 + step}) + "\n")
        new.replace(status)
        seen = page(collector)
        begun = begun or seen["started_timestamp_seconds",]
        assert seen["step",] == step
        assert seen["started_timestamp_seconds",] == begun
        assert seen["restarts_total",] == 0


@pytest.mark.skipif(not WORKERS.is_file(), reason="the worker times are not beside this checkout")
def test_the_straggler_of_a_real_job_stands_out(tmp_path: Path) -> None:
    """Real times of ten workers; the data's own description names worker 6 as the straggler."""
    with WORKERS.open() as file:
        table = csv.DictReader(file)
        rows = sorted((int(row["time"]), int(row["worker"]), int(row["batch_time_norm"])) for row in table)
    log = tmp_path / "log"
    settings = TrainingSettings.model_validate({"jobs": [{"job_id": "j", "log": str(log)}]})
    collector = Training(settings, Context(str(tmp_path), str(tmp_path)))
    stragglers: dict[int, list[int]] = {}
    for at, group in itertools.groupby(rows, key=lambda row: row[0]):
        with log.open("a") as out:
            for _, worker, pace in group:
                report = {"step": at, "rank": worker, "step_seconds": pace / 1000, "time": time.time()}
                out.write(json.dumps(report) + "\n")
        paces = {int(key[1]): value for key, value in page(collector).items() if key[0] == "rank_step_seconds"}
        assert len(paces) == 10
        for worker, pace in paces.items():
            if pace > 1.5 * statistics.median(paces.values()):
                stragglers.setdefault(worker, []).append(at)
    assert list(stragglers) == [6]
    assert 1000 < stragglers[6][0] < 2000, "in the middle of the training"
