"""The checkpoint collector, and the ledger that the verification service keeps for it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.base.catalogue import Sample
from agent.base.collector import Context, PartialFailure
from agent.checkpoint.ledger import Ledger
from agent.checkpoint.service import Stopped, Verifier
from agent.checkpoint.settings import CheckpointSettings
from agent.collectors.checkpoint import Checkpoint, History
from agent.intake import Intake
from agent.node.lent import TRAIN_PROGRESS, Reached

T0 = 1_700_000_000.0
Build = Callable[..., Path]
Page = dict[tuple[str, ...], float]


class Bench:
    def __init__(self, folder: Path, **job: Any) -> None:
        self.root = folder / "ck"
        self.state = folder / "state"
        self.now = T0 + 1000
        self.progress: dict[str, Reached] = {}
        self.settings = CheckpointSettings.model_validate(
            {"jobs": [{"job_id": "j", "directory": str(self.root), **job}]}
        )
        self.collector = self.renew()

    def renew(self) -> Checkpoint:
        context = Context(str(self.state), str(self.state))
        context.shared[TRAIN_PROGRESS] = lambda: self.progress
        return Checkpoint(self.settings, context, clock=lambda: self.now)

    def page(self) -> Page:
        intake = Intake(strict=True)
        found: Page = {}
        for sample in self.collector.collect():
            assert isinstance(sample, Sample)
            intake.add(sample)
            found[(sample.metric.name.removeprefix("gpuvigil_checkpoint_"), *sample.labels[1:])] = sample.value
        return found

    def verifier(self, **more: Any) -> Verifier:
        return Verifier(self.settings, Ledger(self.state / "checkpoint"), clock=lambda: self.now, **more)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_job_that_has_not_begun_has_no_series(bench: Bench) -> None:
    assert bench.page() == {}


def test_age_size_step_interval(bench: Bench, build: Build) -> None:
    for step in (100, 200, 300):
        build(step, at=T0 + step)
    bench.now = T0 + 350
    page = bench.page()
    assert page["last_complete_timestamp_seconds",] == T0 + 300
    assert page["last_complete_step",] == 300
    assert page["size_bytes",] == 1503
    assert page["complete",] == 3
    assert page["interval_seconds",] == 100
    assert page["rpo_seconds", "complete"] == 50
    assert ("last_verified_timestamp_seconds",) not in page


def test_what_a_crash_would_lose_ends_with_the_last_step(bench: Bench, build: Build) -> None:
    build(100, at=T0 + 900)
    bench.progress = {"j": Reached(130, T0 + 960, True)}
    assert bench.page()["rpo_seconds", "complete"] == 60
    assert bench.page()["steps_since",] == 30
    bench.now = T0 + 9000
    bench.progress = {"j": Reached(130, T0 + 960, False)}
    assert bench.page()["rpo_seconds", "complete"] == 60, "a job that is over loses no more"
    assert ("steps_since",) not in bench.page()


def test_one_being_written_is_not_judged_and_the_last_complete_stands(bench: Bench, build: Build) -> None:
    build(100, at=T0)
    build(200, manifest=False, at=T0 + 95)
    bench.now = T0 + 100
    page = bench.page()
    assert page["last_complete_step",] == 100
    assert page["writing",] == 1
    assert page["incomplete",] == 0
    bench.now = T0 + 500
    page = bench.page()
    assert page["writing",] == 0
    assert page["incomplete",] == 1


def test_no_checkpoint_yet_is_zero_complete_and_no_age(bench: Bench) -> None:
    bench.root.mkdir()
    page = bench.page()
    assert page["complete",] == 0
    assert ("last_complete_timestamp_seconds",) not in page


def test_interval_is_learned_over_deletions_and_restarts_of_the_agent(bench: Bench, build: Build) -> None:
    for step in (100, 200, 300):
        folder = build(step, at=T0 + step)
        bench.now = T0 + step
        bench.page()
        shutil.rmtree(folder)
    bench.collector = bench.renew()
    build(400, at=T0 + 400)
    assert bench.page()["interval_seconds",] == 100


def test_configured_interval_counts_first(tmp_path: Path, build: Build) -> None:
    bench = Bench(tmp_path, interval="1h")
    build(100, at=T0)
    assert bench.page()["interval_seconds",] == 3600


def test_median_interval_bears_a_pause() -> None:
    history = History([0.0, 100.0, 200.0, 5000.0, 5100.0])
    assert history.interval == 100.0
    assert History([1.0]).interval is None


def test_verified_by_the_service(bench: Bench, build: Build) -> None:
    build(100, at=T0)
    build(200, at=T0 + 100)
    assert bench.verifier().turn() == 2
    page = bench.page()
    assert page["last_verified_timestamp_seconds",] == T0 + 100
    assert page["verified_bytes_total",] == 2 * 1503
    assert page["verify_failures_total",] == 0
    assert bench.verifier().turn() == 0, "nothing is hashed twice"


def test_corrupt_is_counted_and_is_not_the_last_complete(bench: Bench, build: Build) -> None:
    build(100, at=T0)
    bad = build(200)
    (bad / "weights.bin").write_bytes(b"W" * 1003)
    os.utime(bad / "manifest.json", (T0 + 100, T0 + 100))
    bench.now = time.time() + 1000
    assert bench.page()["last_complete_step",] == 200, "sizes agree: nobody can know yet"
    bench.verifier().turn()
    page = bench.page()
    assert page["corrupt",] == 1
    assert page["verify_failures_total",] == 1
    assert page["last_complete_step",] == 100
    shutil.rmtree(bad)
    page = bench.page()
    assert page["corrupt",] == 0
    assert page["verify_failures_total",] == 1, "a counter does not fall when the evidence is deleted"


def test_a_stopped_service_goes_on_with_the_next_file(bench: Bench, build: Build) -> None:
    build(100, at=T0)
    calls = 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 2  # asked before the checkpoint and after each piece: stops behind the second file's only piece

    with pytest.raises(Stopped):
        bench.verifier(stop=stop).turn()
    ledger = Ledger(bench.state / "checkpoint")
    (entry,) = ledger.entries.values()
    assert list(entry.done) == ["weights.bin"]
    assert entry.finished is None
    assert ("last_verified_timestamp_seconds",) not in bench.page()
    before = ledger.hashed["j"]
    bench.verifier().turn()
    again = Ledger(bench.state / "checkpoint")
    assert again.hashed["j"] - before == 500, "only the second file was read again"
    assert bench.page()["last_verified_timestamp_seconds",] == T0


def test_a_checkpoint_written_anew_is_verified_anew(bench: Bench, build: Build) -> None:
    folder = build(100, at=T0)
    bench.verifier().turn()
    shutil.rmtree(folder)
    build(100, at=T0 + 50)
    assert ("last_verified_timestamp_seconds",) not in bench.page()
    assert bench.verifier().turn() == 1
    assert bench.page()["last_verified_timestamp_seconds",] == T0 + 50


def test_one_deleted_while_it_is_hashed_is_no_failure(bench: Bench, build: Build) -> None:
    folder = build(100, at=T0)

    def vanish() -> bool:
        if folder.exists():
            shutil.rmtree(folder)
        return False

    verifier = bench.verifier()
    (work,) = verifier.pending()
    verifier._stop = vanish  # type: ignore[method-assign]
    assert verifier._verify(work) is False
    assert Ledger(bench.state / "checkpoint").failures == {}


def test_the_rate_is_kept_by_sleeping(bench: Bench, build: Build) -> None:
    build(100, at=T0)
    slept: list[float] = []
    settings = bench.settings.model_copy(update={"verify_bytes_per_second": 100.0})
    verifier = Verifier(
        settings, Ledger(bench.state / "checkpoint"), clock=lambda: T0, monotonic=lambda: 0.0, sleep=slept.append
    )
    verifier.turn()
    assert slept == [pytest.approx(10.03), pytest.approx(5.0)]


def test_a_damaged_ledger_counts_as_empty(bench: Bench, build: Build) -> None:
    build(100, at=T0)
    bench.verifier().turn()
    (bench.state / "checkpoint/verified.json").write_text('{"checkpoints": {"x": 3}}')
    assert ("last_verified_timestamp_seconds",) not in bench.page()
    assert bench.verifier().turn() == 1


def test_backup_is_as_old_as_its_original(tmp_path: Path, build: Build) -> None:
    bench = Bench(tmp_path, backup=str(tmp_path / "copies"))
    build(100, at=T0)
    build(200, at=T0 + 100)
    shutil.copytree(tmp_path / "ck/checkpoint-100", tmp_path / "copies/checkpoint-100")
    for path in (tmp_path / "copies").rglob("*"):
        os.utime(path, (T0 + 150, T0 + 150))  # copied without its times
    bench.now = T0 + 200
    page = bench.page()
    assert page["backup_timestamp_seconds",] == T0
    assert page["backup_step",] == 100
    assert page["rpo_seconds", "backup"] == 200


def test_a_checkpoint_that_may_not_be_read_is_named_and_nothing_is_claimed(unprivileged: Path, build: Build) -> None:
    """It may be the newest: an older one would look late."""
    bench = Bench(unprivileged)
    build(100, root=bench.root, at=T0)
    shut = build(200, root=bench.root, at=T0 + 100)
    (bench.root / "lost+found").mkdir(mode=0)
    assert bench.page()["last_complete_step",] == 200
    (shut / "sub").chmod(0)
    with pytest.raises(PartialFailure, match="checkpoint-200/sub: Permission denied"):
        bench.page()
    (shut / "sub").chmod(0o700)
    assert bench.page()["last_complete_step",] == 200


def test_a_folder_that_we_cannot_bear_costs_its_own_job_only(
    bench: Bench, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(100, at=T0)
    jobs = [{"job_id": name, "directory": str(bench.root)} for name in ("bad", "j")]
    bench.settings = CheckpointSettings.model_validate({"jobs": jobs})
    bench.collector = bench.renew()

    def fail(_: float) -> None:
        raise LookupError("a fault of ours")

    monkeypatch.setattr(bench.collector._jobs[0]._judge, "look", fail)
    found: list[Sample] = []
    with pytest.raises(PartialFailure, match="a fault of ours"):
        found.extend(bench.collector.collect())
    assert {s.labels: s.value for s in found if s.metric.name == "gpuvigil_checkpoint_last_complete_step"} == {
        ("j",): 100
    }


def test_a_file_written_since_is_verified_again(bench: Bench, build: Build) -> None:
    """Damaged after its verification it would stay verified, and repaired after it corrupt."""
    folder = build(100, at=T0)
    file = folder / "weights.bin"
    sound = file.read_bytes()
    ticks = iter(range(0, 10**6, 1000))
    verifier = bench.verifier(monotonic=lambda: next(ticks))
    assert verifier.turn() == 1
    file.write_bytes(b"W" * len(sound))
    assert verifier.turn() == 1
    assert bench.page()["corrupt",] == 1
    assert verifier.turn() == 0
    file.write_bytes(sound)
    os.utime(file, (T0 + 50, T0 + 50))
    assert verifier.turn() == 1
    page = bench.page()
    assert (page["corrupt",], page["verify_failures_total",], page["last_verified_timestamp_seconds",]) == (0, 1, T0)
    assert verifier.turn() == 0


def test_a_file_that_may_not_be_read_is_not_corrupt(unprivileged: Path, build: Build) -> None:
    bench = Bench(unprivileged)
    build(100, root=bench.root, at=T0)
    shut = build(200, root=bench.root, at=T0 + 100) / "weights.bin"
    shut.chmod(0)
    verifier = bench.verifier()
    assert verifier.turn() == 1, "the other one"
    page = bench.page()
    assert (page["corrupt",], page["verify_failures_total",], page["last_verified_timestamp_seconds",]) == (0, 0, T0)
    shut.chmod(0o600)
    assert verifier.turn() == 1
    assert bench.page()["last_verified_timestamp_seconds",] == T0 + 100


def test_without_hashes_nothing_is_verified(bench: Bench, build: Build) -> None:
    listed = build(100) / "manifest.json"
    content = json.loads(listed.read_text())
    del content["files"][1]["md5"]
    listed.write_text(json.dumps(content))
    bench.now = time.time() + 1000
    bench.verifier().turn()
    assert bench.verifier().turn() == 0, "it is not tried again"
    page = bench.page()
    assert (page["complete",], page["corrupt",]) == (1, 0)
    assert ("last_verified_timestamp_seconds",) not in page


def test_a_folder_that_cannot_be_listed_fails_by_name(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.root.write_text("a file, not a folder")
    with pytest.raises(PartialFailure, match="ck"):
        bench.page()
