"""Parts come up, are seen to die, and are stopped whole; the demo's directory has one owner."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from agent.base.errors import ConfigError
from chaos.demo.layout import occupied
from chaos.demo.process import Part, PartFailed, stop


def part(tmp_path: Path, code: str, **more: object) -> Part:
    return Part("it", [sys.executable, "-c", code], tmp_path / "it.log", **more)  # type: ignore[arg-type]


def never() -> None:
    return None


def until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_part_that_dies_shows_its_last_words(tmp_path: Path) -> None:
    one = part(tmp_path, "print('cannot open the moon'); raise SystemExit(7)", ready_url="http://127.0.0.1:1/")
    one.start()
    with pytest.raises(PartFailed, match=r"it exited with 7\n(.*\n)*.*cannot open the moon"):
        one.wait_ready(30, never)
    assert one.told


def test_a_part_that_never_answers_is_named_with_the_reason(tmp_path: Path) -> None:
    one = part(tmp_path, "import time; time.sleep(60)", ready_url="http://127.0.0.1:1/")
    one.start()
    try:
        with pytest.raises(PartFailed, match=r"not ready after 0.3 s \(http://127.0.0.1:1/"):
            one.wait_ready(0.3, never)
    finally:
        stop([one])


def test_a_program_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    one = Part("it", ["/nowhere/it"], tmp_path / "it.log")
    with pytest.raises(PartFailed, match="/nowhere/it"):
        one.start()


CHILDREN = """
import subprocess, sys, signal
{before}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.parametrize(("before", "killed"), [("", []), ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", ["it"])])
def test_stop_ends_the_whole_group(tmp_path: Path, before: str, killed: list[str]) -> None:
    one = part(tmp_path, CHILDREN.format(before=before))
    one.start()
    assert until(lambda: one.log.read_text().endswith("\n"))
    child = int(one.log.read_text())
    assert psutil.pid_exists(child)
    assert stop([one], patience=1.0) == killed
    assert not one.alive
    assert until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_parts_end_when_the_demo_itself_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from chaos.demo.process import Part\n"
        f"p = Part('it', [sys.executable, '-c', 'import time; time.sleep(600)'], Path({str(tmp_path / 'l')!r}))\n"
        "p.start(); print(p.process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        process = psutil.Process(pid)
        assert until(lambda: "sleep" in " ".join(process.cmdline()) and "setpriv" not in process.name())
        time.sleep(0.2)
        os.kill(owner.pid, signal.SIGKILL)
    assert until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def test_one_demo_at_a_time_and_only_in_a_directory_of_its_own(tmp_path: Path) -> None:
    with occupied(tmp_path / "demo", keep=False) as layout:
        (layout.root / "kept").touch()
        with pytest.raises(ConfigError, match=f"process {os.getpid()}"), occupied(tmp_path / "demo", keep=False):
            pass
    with occupied(tmp_path / "demo", keep=True) as layout:
        assert (layout.root / "kept").exists()
    with occupied(tmp_path / "demo", keep=False) as layout:
        assert not (layout.root / "kept").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").touch()
    with pytest.raises(ConfigError, match="not emptied"), occupied(tmp_path / "mine", keep=False):
        pass
    assert (tmp_path / "mine" / "thesis").exists()
