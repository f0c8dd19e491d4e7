"""`gpuvigil checkpoint`: what is printed, and the exit codes that a resume script goes by."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.checkpoint.ledger import Ledger
from agent.checkpoint.progress import Progress
from agent.checkpoint.service import Verifier
from agent.checkpoint.settings import CheckpointSettings
from agent.cli import main
from agent.settings import loads_config

Build = Callable[..., Path]


def test_verify_good(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "verify", str(build(100)), "-o", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "good"
    assert report["hashed"] is True
    assert report["step"] == 100


def test_verify_corrupt_names_the_file(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build(100)
    (folder / "weights.bin").write_bytes(b"W" * 1003)
    assert main(["checkpoint", "verify", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "weights.bin: md5 is" in err
    assert main(["checkpoint", "verify", "--sizes-only", str(folder)]) == 0


def test_verify_incomplete_names_every_file(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build(100)
    (folder / "weights.bin").unlink()
    os.truncate(folder / "sub/optimizer.bin", 3)
    assert main(["checkpoint", "verify", str(folder), "-o", "json"]) == 1
    faults = {one["path"]: one["fault"] for one in json.loads(capsys.readouterr().out)["findings"]}
    assert faults == {"weights.bin": "missing", "sub/optimizer.bin": "size"}


def test_verify_without_manifest_cannot_tell(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoint", "verify", str(build(100, manifest=False))]) == 3
    assert "has no manifest" in capsys.readouterr().err


def test_verify_of_nothing_is_a_usage_error(tmp_path: Path) -> None:
    assert main(["checkpoint", "verify", str(tmp_path / "none")]) == 2


def test_verify_damaged_manifest_is_bad(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    folder = build(100)
    (folder / "manifest.json").write_text("{")
    assert main(["checkpoint", "verify", str(folder)]) == 1
    assert "is not JSON" in capsys.readouterr().err


def test_latest_passes_over_what_is_not_whole(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    build(100)
    build(200)
    (build(300) / "weights.bin").write_bytes(b"W" * 1003)
    build(400, manifest=False)
    root = build(50).parent
    assert main(["checkpoint", "latest", str(root)]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(root / "checkpoint-200")
    assert "checkpoint-300: weights.bin: md5 is" in err


def test_latest_exit_codes(build: Build, tmp_path: Path) -> None:
    folder = build(100)
    (folder / "weights.bin").write_bytes(b"W" * 1003)
    assert main(["checkpoint", "latest", str(folder.parent)]) == 1
    shutil.rmtree(folder)
    assert main(["checkpoint", "latest", str(folder.parent)]) == 3
    assert main(["checkpoint", "latest", str(tmp_path / "none")]) == 2


def test_latest_believes_the_service_only_of_files_that_are_still_those(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, state = build(100), tmp_path / "state"
    settings = CheckpointSettings.model_validate({"jobs": [{"job_id": "j", "directory": str(folder.parent)}]})
    Verifier(settings, Ledger(state / "checkpoint")).turn()
    command = ["checkpoint", "latest", str(folder.parent), "--state-dir", str(state), "-o", "json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["basis"] == "verified before"
    (folder / "weights.bin").write_bytes(b"W" * 1003)
    assert main(command) == 1
    assert "weights.bin: md5 is" in capsys.readouterr().err


def test_what_may_not_be_read_cannot_be_told(
    unprivileged: Path, build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1 would call a sound checkpoint corrupt."""
    good, shut = build(100, root=unprivileged), build(200, root=unprivileged)
    (shut / "weights.bin").chmod(0)
    assert main(["checkpoint", "verify", str(shut)]) == 3
    assert f"{shut}/weights.bin: cannot be read: Permission denied" in capsys.readouterr().err
    assert main(["checkpoint", "latest", str(unprivileged)]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(good)
    assert "weights.bin: cannot be read" in err
    shut.chmod(0)
    for path in (shut, shut / "weights.bin"):
        assert main(["checkpoint", "verify", str(path)]) == 3
        assert "Permission denied" in capsys.readouterr().err
    assert main(["checkpoint", "latest", str(unprivileged)]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(good)
    assert f"{shut}: cannot be read" in err
    shut.chmod(0o700)


def test_without_hashes_sizes_are_compared_and_nothing_is_verified(
    build: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build(100)
    content = json.loads((folder / "manifest.json").read_text())
    for one in content["files"]:
        del one["md5"]
    (folder / "manifest.json").write_text(json.dumps(content))
    assert main(["checkpoint", "verify", str(folder)]) == 0
    assert "compared by size" in capsys.readouterr().out
    assert main(["checkpoint", "latest", str(folder.parent)]) == 3
    assert "cannot be verified" in capsys.readouterr().err
    assert main(["checkpoint", "latest", "--sizes-only", str(folder.parent)]) == 0


def test_service_verifies_what_comes_and_ends_on_sigterm(build: Build, tmp_path: Path) -> None:
    """The real process: it verifies, keeps its ledger, and `latest` believes it."""
    folder = build(100)
    config = tmp_path / "agent.yaml"
    config.write_text(
        f"state_dir: {tmp_path / 'state'}\nrun_dir: {tmp_path / 'run'}\n"
        f"collectors: {{checkpoint: {{jobs: [{{job_id: j, directory: {folder.parent}}}]}}}}\n"
    )
    command = [sys.executable, "-m", "agent.cli", "checkpoint", "verify-service", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    ledger = tmp_path / "state/checkpoint/verified.json"
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and not (ledger.exists() and '"finished": 1' in ledger.read_text()):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        assert '"finished": 1' in ledger.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
    assert main(["checkpoint", "latest", str(folder.parent), "--state-dir", str(tmp_path / "state")]) == 0


def test_service_once_is_bad_where_something_is_corrupt(
    build: Build, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = build(100)
    (folder / "weights.bin").write_bytes(b"W" * 1003)
    config = tmp_path / "agent.yaml"
    config.write_text(
        f"state_dir: {tmp_path / 'state'}\nrun_dir: {tmp_path / 'run'}\n"
        f"collectors: {{checkpoint: {{jobs: [{{job_id: j, directory: {folder.parent}}}]}}}}\n"
    )
    command = [sys.executable, "-m", "agent.cli", "checkpoint", "verify-service", "--once", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "weights.bin: md5 is" in done.stderr


def test_service_without_jobs_says_what_to_configure(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text("{}\n")
    assert main(["checkpoint", "verify-service", "--config", str(config)]) == 2
    assert "collectors.checkpoint.jobs" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_drawn_on_a_terminal_only_and_wiped() -> None:
    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        times = iter((0.0, 1.0))
        with Progress(1000, stream, clock=lambda times=times: next(times)) as progress:
            progress(250)
        assert (" 25.0 %" in stream.getvalue()) is drawn
        assert stream.getvalue().endswith("\r\x1b[K") is drawn


def test_what_the_documentation_shows_is_accepted() -> None:
    """The configuration in docs/training.md."""
    text = (Path(__file__).parents[3] / "docs/training.md").read_text()
    example = text.split("```yaml\n")[1].split("```")[0]
    jobs = loads_config(example, environ={}).collectors.checkpoint.jobs
    assert jobs[0].interval == 4 * 3600
