"""A drill's promises, on a fault that is a file and witnesses that can be told to misbehave."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.base import drillfile
from agent.base.config import Model
from agent.base.errors import Exit, UndoFailed
from chaos import report
from chaos.engine import fault as faults
from chaos.engine import permit, stations, undo
from chaos.engine.drill import Drill
from chaos.engine.fault import NotInjected, Plan, Record, Touched
from chaos.engine.journal import Journal
from chaos.engine.result import Result
from chaos.engine.supervisor import Supervisor
from chaos.engine.target import Target

PAGE = {
    "labels": {"alertname": "GpuLost", "uuid": "U", "node": "n", "drill": "d"},
    "annotations": {"runbook_url": "https://runbook/x"},
}


class Node:
    """Agent, Prometheus and sink in one server: they see the fault file, as far as they are told to."""

    def __init__(self, folder: Path) -> None:
        self.fault, self.run_dir = folder / "fault", folder / "run"
        self.run_dir.mkdir()
        self.announces = True
        self.firing: list[dict[str, Any]] = []
        self.pages: list[dict[str, Any]] = []
        self.page_path, self.page = "/drill", PAGE
        self.was = False

    def drills(self) -> list[drillfile.Entry]:
        found = drillfile.read(self.run_dir, time.time(), drillfile.boot_id())
        return found if self.announces else []

    def look(self) -> bool:
        """Whether the fault is in force; its begin and end each make a delivery."""
        now = self.fault.exists()
        if now != self.was:
            self.was = now
            alert = {**self.page, "status": "firing" if now else "resolved"}
            self.pages.append(
                {
                    "id": len(self.pages) + 1,
                    "path": self.page_path,
                    "monotonic": time.monotonic(),
                    "body": {"alerts": [alert]},
                }
            )
        return now

    def answer(self, address: str) -> Any:
        lost, path = self.look(), urlsplit(address).path
        if path == "/metrics":
            lines = [f'gpuvigil_gpu_up{{gpu="3",uuid="U"}} {0 if lost else 1}', 'gpuvigil_gpu_up{uuid="V"} 1']
            lines += [f'gpuvigil_drill_active{{drill="{entry.drill}",uuid="U"}} 1' for entry in self.drills()]
            return "\n".join(lines) + "\n"
        if path == "/api/v1/query" and "ALERTS" in address:
            return {"data": {"result": [{"values": [[time.time(), "1"]]}] if lost else []}}
        if path == "/api/v1/query":
            return {"data": {"result": [{} for _ in self.drills()]}}
        if path == "/api/v1/alerts":
            lost_alert = {"state": "firing", "labels": {**PAGE["labels"], "severity": "page"}}
            return {"data": {"alerts": [*self.firing, *([lost_alert] if lost else [])]}}
        wanted = parse_qs(urlsplit(address).query).get("path")
        return {"pages": [page for page in self.pages if wanted in (None, [page["path"]])]}


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    fake = Node(tmp_path)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                found = fake.answer(self.path)
            data = (found if isinstance(found, str) else json.dumps(found)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"  # type: ignore[attr-defined]
    monkeypatch.setattr(stations, "ANNOUNCE", 0.5)
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


class Nothing(Model):
    pass


class FileFault:
    """In force while a file exists; can be told to fail."""

    parameters = Nothing
    summary = "a file is there"

    def __init__(self, path: Path, state_dir: Path) -> None:
        self.path, self.state_dir = path, state_dir
        self.fails: set[str] = set()
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)

    def plan(self, parameters: Any, target: Target, duration: float) -> Plan:
        self._called("plan")
        return Plan(("make a file",), (Touched("gpu", "U"),), {"uuid": "U"}, {"path": str(self.path)})

    def inject(self, plan: Plan) -> None:
        self._called("inject")
        entry = Journal(self.state_dir).unfinished()[0]
        assert (entry.state, entry.undo) == ("armed", plan.undo), "the undo must be on disk first"
        self.path.touch()
        if "inject" in self.fails:
            raise NotInjected("half done")

    def verify_injected(self, plan: Plan) -> str:
        self._called("verify_injected")
        return "the file is there"

    def undo(self, record: Record) -> None:
        self._called("undo")
        if "undo" not in self.fails:
            Path(record["path"]).unlink(missing_ok=True)

    def verify_undone(self, record: Record) -> str:
        self._called("verify_undone")
        if Path(record["path"]).exists():
            raise UndoFailed("the file is still there")
        return "the file is gone"


@pytest.fixture
def target(node: Node, tmp_path: Path) -> Target:
    url = node.url  # type: ignore[attr-defined]
    return Target(
        kind="simulator",
        node="n",
        sim_state=tmp_path / "s",
        sim_library=tmp_path,
        agent=url,
        prometheus=url,
        sink=url,
        run_dir=node.run_dir,
        state_dir=tmp_path / "state",
    )


@pytest.fixture
def fault(node: Node, target: Target, monkeypatch: pytest.MonkeyPatch) -> FileFault:
    made = FileFault(node.fault, target.state_dir)
    monkeypatch.setitem(faults.FAULTS, "file", made)
    return made


@pytest.fixture
def drill() -> Drill:
    expect = {
        "seen": {"metric": "gpuvigil_gpu_up", "value": 0, "healthy": 1},
        "alert": "GpuLost",
        "carries": ["node", "runbook_url"],
        "detected_within": "5s",
        "resolved_within": "5s",
    }
    return Drill.model_validate({"title": "t", "why": "w", "fault": "file", "parameters": Nothing(), "expect": expect})


def run(drill: Drill, target: Target, **more: Any) -> Result:
    return Supervisor("file", drill, target, lambda text: None, **more).run()


def states(target: Target) -> list[str]:
    return [entry.state for entry in Journal(target.state_dir).entries()]


def test_a_pass_has_every_mark_in_order_and_leaves_nothing(
    drill: Drill, target: Target, node: Node, fault: FileFault, tmp_path: Path
) -> None:
    result = run(drill, target)
    assert (result.verdict, result.reasons, result.code) == ("pass", [], Exit.GOOD)
    assert list(result.timeline) == ["injected", "seen", "firing", "paged", "undone", "resolved"]
    times = list(result.timeline.values())
    assert times[0] == 0
    assert min(times) == 0
    assert max(times[1:4]) <= times[4] <= times[5]
    assert result.page == PAGE
    assert result.received == {"/drill": 2}
    assert fault.calls == ["plan", "inject", "verify_injected", "undo", "verify_undone"]
    assert states(target) == ["planned", "armed", "injected", "undone", "verified"]
    assert not node.fault.exists()
    assert node.drills() == []
    page = report.write(result, tmp_path / "out")
    assert json.loads(page.with_suffix(".json").read_text())["timeline"] == result.timeline
    assert all(word in page.read_text() for word in ("<svg", "PASS", "simulated", "https://runbook/x"))


def test_a_page_without_its_runbook_fails_the_drill(drill: Drill, target: Target, node: Node, fault: FileFault) -> None:
    node.page = {**PAGE, "annotations": {}}
    result = run(drill, target)
    assert (result.verdict, result.reasons) == ("fail", ["the page lacks: runbook_url"])


def test_a_page_to_the_wrong_people_fails_the_drill(drill: Drill, target: Target, node: Node, fault: FileFault) -> None:
    node.page_path = "/page"
    drill = drill.model_copy(
        update={"expect": drill.expect.model_copy(update={"detected_within": 0.5, "resolved_within": 0.5})}
    )
    result = run(drill, target)
    assert result.verdict == "fail"
    assert "never paged" in result.reasons
    assert "2 deliveries at /page, which should have stayed silent" in result.reasons


def test_an_injection_that_fails_half_way_is_taken_back(
    drill: Drill, target: Target, node: Node, fault: FileFault
) -> None:
    fault.fails.add("inject")
    result = run(drill, target)
    assert result.verdict == "fail"
    assert "half done" in result.reasons
    assert not node.fault.exists()
    assert states(target)[-1] == "verified"


def test_a_failed_undo_is_loud_keeps_the_mute_and_blocks_the_next_drill(
    drill: Drill, target: Target, node: Node, fault: FileFault
) -> None:
    fault.fails.add("undo")
    short = drill.model_copy(update={"expect": drill.expect.model_copy(update={"resolved_within": 0.3})})
    result = run(short, target)
    assert (result.verdict, result.code) == ("undo_failed", Exit.UNDO_FAILED)
    assert "still there" in result.reasons[0]
    assert fault.calls.count("undo") == 3
    assert [entry.drill for entry in node.drills()] == [result.id]

    again = run(drill, target)
    assert again.verdict == "refused"
    assert "chaos recover" in again.reasons[0]

    journal = Journal(target.state_dir)
    with pytest.raises(UndoFailed, match=result.id):
        undo.recover(journal, lambda text: None)
    fault.fails.clear()
    assert undo.recover(journal, lambda text: None) == 1
    assert not node.fault.exists()
    assert undo.recover(journal, lambda text: None) == 0


def test_abort_takes_everything_back(drill: Drill, target: Target, node: Node, fault: FileFault) -> None:
    long = drill.model_copy(update={"hold": 30.0})
    results: list[Result] = []
    thread = threading.Thread(target=lambda: results.append(run(long, target)))
    thread.start()
    deadline = time.monotonic() + 20
    while "injected" not in states(target) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert permit.running(target.state_dir)
    second = run(drill, target)
    permit.ask_to_stop(target.state_dir, "enough")
    thread.join(20)
    assert second.verdict == "refused"
    assert "another drill is running" in second.reasons[0]
    assert results[0].id in second.reasons[0]
    assert (results[0].verdict, results[0].reasons) == ("aborted", ["enough"])
    assert not node.fault.exists()
    assert node.drills() == []
    assert not permit.running(target.state_dir)
    assert run(drill, target).verdict == "pass"


@pytest.mark.parametrize("case", ["page firing", "already lost", "not announced", "agent silent"])
def test_refused_before_anything_is_touched(
    drill: Drill, target: Target, node: Node, fault: FileFault, case: str
) -> None:
    if case == "page firing":
        node.firing = [{"state": "firing", "labels": {"alertname": "DiskFull14d", "severity": "page"}}]
        reason = "DiskFull14d"
    elif case == "already lost":
        node.fault.touch()
        reason = "not steady"
    elif case == "not announced":
        node.announces = False
        reason = "agent and prometheus did not show gpuvigil_drill_active"
    else:
        target = target.model_copy(update={"agent": "http://127.0.0.1:1"})
        reason = "127.0.0.1:1"
    result = run(drill, target)
    assert result.verdict == "refused"
    assert reason in result.reasons[0]
    assert "inject" not in fault.calls
    assert drillfile.read(node.run_dir, time.time(), drillfile.boot_id()) == []
    assert not Journal(target.state_dir).unfinished()


def test_a_drill_page_firing_does_not_block(drill: Drill, target: Target, node: Node, fault: FileFault) -> None:
    node.firing = [{"state": "firing", "labels": {"alertname": "X", "severity": "page", "drill": "other"}}]
    assert run(drill, target).verdict == "pass"
