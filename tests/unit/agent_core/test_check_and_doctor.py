"""`agent check` and `doctor`: what they say of pages and nodes, and their exit codes."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time

import pytest

from agent import doctor
from agent.base.catalogue import gpu, health, node
from agent.base.catalogue import self as own
from agent.base.exposition import TEXT, render
from agent.check import Level, Page, judge, worst
from agent.cli import main
from agent.intake import gather
from agent.settings import loads_config

NOW = 1_000_000.0
GPU = ("0", "GPU-1", "true")


def page(*samples, taken=NOW, driver=1):
    every = [own.TICK_TIME.sample(taken), *samples]
    if driver is not None:
        every.append(gpu.DRIVER_UP.sample(driver, "true"))
    return Page(render([gather(every)], TEXT).decode())


def found(*samples, **options):
    findings = judge(page(*samples, **options), NOW)
    return worst(findings), [f"{each.what}: {each.text}" for each in findings]


def test_a_good_page_has_no_finding():
    assert found(gpu.UP.sample(1, *GPU), own.SUCCESS.sample(1, "gpu")) == (Level.NOTE, [])


@pytest.mark.parametrize(
    ("samples", "options", "level", "words"),
    [
        ([gpu.UP.sample(0, *GPU)], {}, Level.CRIT, "GPU 0: is lost (GPU-1)"),
        ([], {"driver": 0}, Level.CRIT, "NVML is not there"),
        ([], {"driver": None}, Level.UNKNOWN, "nothing is known"),
        ([], {"taken": NOW - 100}, Level.UNKNOWN, "100 s old"),
        ([gpu.EXPECTED.sample(8, "true"), gpu.KNOWN.sample(7, "true")], {}, Level.CRIT, "1 of 8 GPUs are missing"),
        ([gpu.DRIVER_STUCK.sample(42, *GPU, "power")], {}, Level.CRIT, "GPU 0: power has not returned for 42 s"),
        ([gpu.RECOVERY_ACTION.sample(1, *GPU)], {}, Level.CRIT, "GPU reset"),
        ([gpu.RECOVERY_ACTION.sample(99, *GPU)], {}, Level.CRIT, "action 99"),
        ([gpu.ROW_REMAP_FAILURE.sample(1, *GPU)], {}, Level.CRIT, "replace the board"),
        ([gpu.ROW_REMAP_PENDING.sample(1, *GPU)], {}, Level.WARN, "waits for a GPU reset"),
        ([gpu.XID_LAST.sample(NOW - 60, *GPU, "79"), gpu.XID_CODES.sample(1, *GPU, "79", "RESTART_BM")], {},
         Level.CRIT, "Xid 79 1 min ago, action RESTART_BM"),
        ([gpu.XID_LAST.sample(NOW - 60, *GPU, "31"), gpu.XID_CODES.sample(1, *GPU, "31", "RESTART_APP")], {},
         Level.WARN, "Xid 31"),
        ([own.SUCCESS.sample(0, "host")], {}, Level.WARN, "collector host"),
        ([own.RELOAD_OK.sample(0)], {}, Level.WARN, "reload was refused"),
        ([node.MAINTENANCE_UNTIL.sample(NOW + 120)], {}, Level.NOTE, "2 more minutes"),
        ([own.SIMULATED.sample(1)], {}, Level.NOTE, "SIMULATED"),
    ],
)  # fmt: skip
def test_each_trouble_is_found(samples, options, level, words):
    seen, texts = found(*samples, **options)
    assert seen == level
    assert any(words in text for text in texts), texts


def test_old_or_harmless_xids_are_no_finding():
    old = [gpu.XID_LAST.sample(NOW - 7200, *GPU, "79"), gpu.XID_CODES.sample(1, *GPU, "79", "RESTART_BM")]
    assert found(*old)[0] == Level.NOTE
    ignored = [gpu.XID_LAST.sample(NOW - 5, *GPU, "43"), gpu.XID_CODES.sample(1, *GPU, "43", "IGNORE")]
    assert found(*ignored)[0] == Level.NOTE


def test_verdicts_decide_where_there_are_some():
    """What somebody declared healthy, a cured Xid or an application's is no finding, however young."""
    xids = [
        *(gpu.XID_LAST.sample(NOW - 60, *GPU, code) for code in ("48", "31")),
        gpu.XID_CODES.sample(1, *GPU, "48", "RESET_GPU"),
        gpu.XID_CODES.sample(1, *GPU, "31", "RESTART_APP"),
    ]
    assert found(*xids)[0] == Level.CRIT
    assert found(*xids, health.STATE.sample(0, "xid", *GPU)) == (Level.NOTE, [])
    bad = health.VERDICT.sample(1, "xid", *GPU, "unhealthy", "RESET_GPU")
    assert found(*xids, health.STATE.sample(2, "xid", *GPU), bad) == (
        Level.CRIT,
        ["GPU 0: xid is unhealthy, action RESET_GPU"],
    )


@pytest.mark.parametrize(
    ("component", "who", "state", "action", "level", "words"),
    [
        ("nvlink", GPU, "unhealthy", "WORKFLOW_NVLINK", Level.CRIT, "nvlink is unhealthy, action WORKFLOW_NVLINK"),
        ("thermal", GPU, "degraded", "CHECK_COOLING", Level.WARN, "GPU 0: thermal is degraded, action CHECK_COOLING"),
        ("baseline", ("", "", "true"), "degraded", "CHECK_INVENTORY", Level.WARN, "baseline is degraded"),
        ("power", GPU, "degraded", "", Level.WARN, "GPU 0: power is degraded"),
    ],
)  # fmt: skip
def test_a_verdict_is_a_finding(component, who, state, action, level, words):
    seen, (text,) = found(health.VERDICT.sample(1, component, *who, state, action))
    assert seen == level
    assert words in text


def test_what_is_told_in_words_is_not_told_twice():
    lost = [gpu.UP.sample(0, *GPU), health.VERDICT.sample(1, "presence", *GPU, "unhealthy", "RESTART_BM")]
    assert found(*lost)[1] == ["GPU 0: is lost (GPU-1)"]
    pending = [gpu.ROW_REMAP_PENDING.sample(1, *GPU), health.VERDICT.sample(1, "memory", *GPU, "degraded", "RESET_GPU")]
    assert found(*pending)[1] == ["GPU 0: a row remapping waits for a GPU reset"]


@pytest.mark.parametrize(
    ("component", "who", "text"),
    [
        ("kernel_log", ("", "", "true"), "node: kernel_log is unknown"),
        ("drives", ("", "", "true"), "node: drives is unknown"),
        ("presence", GPU, "GPU 0: presence is unknown"),  # the driver lets nobody look, or tells nothing of it
    ],
)
def test_an_unknown_verdict_is_not_good(component, who, text):
    assert found(health.VERDICT.sample(1, component, *who, "unknown", "")) == (Level.UNKNOWN, [text])


def test_of_a_driver_that_is_down_no_gpu_is_unknown_besides():
    unknown = [health.VERDICT.sample(1, name, *who, "unknown", "") for name, who in (("driver", ("", "", "")),
               ("presence", GPU))]  # fmt: skip
    assert found(*unknown, driver=0)[1] == ["driver: NVML is not there or does not answer"]


def test_a_driver_let_go_on_request_is_unknown():
    assert found(gpu.DRIVER_RELEASED.sample(1, "true"), driver=None) == (
        Level.UNKNOWN,
        ["driver: let go on request; gpuvigil agent gpu take ends that"],
    )


def test_a_strange_page_is_unknown_never_good():
    assert worst(judge(Page("up 1\n"), NOW)) == Level.UNKNOWN
    assert worst(judge(Page(""), NOW)) == Level.UNKNOWN


@pytest.fixture
def answering(serve):
    """A server whose /metrics is this page; its URL."""
    from agent.base.web import App, text

    def start(*samples, **options):
        every = [own.TICK_TIME.sample(time.time()), gpu.DRIVER_UP.sample(options.get("driver", 1), "")]
        app = App()
        app.route("/metrics", lambda request: text(render([gather([*every, *samples])], TEXT).decode()))
        return f"http://127.0.0.1:{serve(app).port}/metrics"

    return start


@pytest.mark.parametrize(
    ("samples", "words", "code", "nagios"),
    [
        ([], [], 0, 0),
        ([gpu.ROW_REMAP_PENDING.sample(1, *GPU)], [], 1, 1),
        ([gpu.ROW_REMAP_PENDING.sample(1, *GPU)], ["--fail-on", "crit"], 0, 1),
        ([gpu.UP.sample(0, *GPU)], [], 1, 2),
    ],
)
def test_exit_codes(answering, capsys, samples, words, code, nagios):
    url = answering(*samples)
    assert main(["agent", "check", "--url", url, *words]) == code
    capsys.readouterr()
    assert main(["agent", "check", "--url", url, "--nagios"]) == nagios
    assert capsys.readouterr().out.startswith(
        "GPUVIGIL " + {0: "OK", 1: "WARNING", 2: "CRITICAL", 3: "UNKNOWN"}[nagios]
    )
    main(["agent", "check", "--url", url, "-o", "json"])
    assert json.loads(capsys.readouterr().out)["source"] == url


def test_an_agent_that_does_not_answer_is_unknown(capsys):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert main(["agent", "check", "--url", f"http://127.0.0.1:{port}/metrics"]) == 3
    assert main(["agent", "check", "--url", f"http://127.0.0.1:{port}/metrics", "--nagios"]) == 3
    assert "refused" in capsys.readouterr().out


def test_without_an_agent_it_looks_itself(tmp_path, capsys):
    config = tmp_path / "agent.yaml"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    from agent.settings import kinds

    off = "".join(f"  {name}: {{enabled: false}}\n" for name in kinds())
    config.write_text(f"listen: 127.0.0.1:{port}\nstate_dir: {tmp_path}\nrun_dir: {tmp_path}\ncollectors:\n{off}")
    assert main(["agent", "check", "--config", str(config)]) == 3
    assert "one collection" in capsys.readouterr().out


VERDICT = {**{"component": "nvlink", "gpu": "2", "uuid": "GPU-2", "state": "unhealthy", "reason": "1 of 18 is down"},
           **{"action": "WORKFLOW_NVLINK", "since": 1.0, "evidence": {}}}  # fmt: skip
GOOD = {**VERDICT, "component": "power", "state": "healthy", "reason": "", "action": ""}


def told(tmp_path, *verdicts, age=5.0):
    """The agent's last verdicts on disk, and the configuration of one that keeps its page to itself."""
    document = {"node": "n", "taken": time.time() - age, "simulated": True, "state": "?", "verdicts": verdicts,
                "gpus": [], "inventory": {}}  # fmt: skip
    (tmp_path / "health-simulator.json").write_text(json.dumps({"document": document}))


def locked(serve, tmp_path, answer):
    """The configuration of an agent that answers so, as far as this user is concerned."""
    from agent.base.web import App, HttpError

    def refuse(request):
        raise HttpError(answer, "not you")

    app = App()
    app.route("/metrics", refuse)
    config = tmp_path / "agent.yaml"
    from agent.settings import kinds

    off = "".join(f"  {name}: {{enabled: false}}\n" for name in kinds())
    listen = f"listen: 127.0.0.1:{serve(app).port}\n"
    config.write_text(f"{listen}state_dir: {tmp_path}\nrun_dir: {tmp_path}\ncollectors:\n{off}")
    return str(config)


@pytest.mark.parametrize("answer", [401, 403, 429])
@pytest.mark.parametrize(
    ("verdicts", "nagios", "words"),
    [
        ([VERDICT, GOOD], 2, "GPU 2: nvlink: 1 of 18 is down, action WORKFLOW_NVLINK"),
        ([GOOD, {**VERDICT, "state": "degraded", "uuid": "", "gpu": ""}], 1, "node: nvlink: 1 of 18 is down"),
        ([GOOD, {**VERDICT, "state": "unknown"}], 3, "GPU 2: nvlink: 1 of 18 is down"),
        ([GOOD], 0, "SIMULATED"),
    ],
)
def test_a_page_kept_from_us_is_judged_by_the_agents_last_verdicts(
    serve, tmp_path, capsys, answer, verdicts, nagios, words
):
    told(tmp_path, *verdicts)
    assert main(["agent", "check", "--config", locked(serve, tmp_path, answer), "--nagios"]) == nagios
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("content", ['{"document": {"taken": 2e9}}', '{"document": 5}', "{half", "[]"])
@pytest.mark.parametrize(
    "words", [["health"], ["baseline", "write"], ["health", "set-healthy", "--gpu", "0", "--why", "x"]]
)
def test_verdicts_that_are_none_are_no_answer(serve, tmp_path, capsys, content, words):
    (tmp_path / "health-nvml.json").write_text(content)
    assert main(["agent", *words, "--config", locked(serve, tmp_path, 401)]) == 3
    assert "no agent has judged this node yet" in capsys.readouterr().err


def test_nagios_gets_one_line_and_no_performance_data_that_is_none(serve, tmp_path, capsys):
    told(tmp_path, {**VERDICT, "reason": "journalctl: a | b\nand more"})
    assert main(["agent", "check", "--config", locked(serve, tmp_path, 401), "--nagios"]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert "journalctl: a / b and more" in line
    assert "|" not in line


def test_a_page_kept_from_us_and_old_verdicts_make_us_look(serve, tmp_path, capsys):
    told(tmp_path, GOOD, age=1000.0)
    assert main(["agent", "check", "--config", locked(serve, tmp_path, 401)]) == 3
    assert "one collection" in capsys.readouterr().out


def test_an_agent_in_trouble_is_not_judged_by_its_last_verdicts(serve, tmp_path, capsys):
    told(tmp_path, GOOD)
    assert main(["agent", "check", "--config", locked(serve, tmp_path, 500)]) == 3
    assert "Internal Server Error" in capsys.readouterr().out


def test_a_page_of_somebody_else_is_unknown(serve, capsys):
    from agent.base.web import App, text

    app = App()
    app.route("/metrics", lambda request: text("<html><body class='x'>hello {you}</body>\n"))
    assert main(["agent", "check", "--url", f"http://127.0.0.1:{serve(app).port}/metrics", "--nagios"]) == 3
    assert capsys.readouterr().out.startswith("GPUVIGIL UNKNOWN - ")


# doctor


def config_of(tmp_path, **more):
    lines = {"state_dir": tmp_path, "run_dir": tmp_path, "listen": "127.0.0.1:0"} | more
    return loads_config("".join(f"{key}: {value}\n" for key, value in lines.items()), environ={})


def nvml(**answer):
    return {"library": "/lib/x.so", "error": None, "simulated": False, "driver": "580", "gpus": []} | answer


def of(findings, check):
    return [(each.level, each.text) for each in findings if each.check == check]


def test_a_driver_that_hangs_does_not_hang_the_doctor(tmp_path, monkeypatch):
    began = time.monotonic()
    monkeypatch.setattr(doctor.subprocess, "Popen", hanging_popen := HangingPopen)
    assert doctor.ask_nvml(0.3) is None
    assert time.monotonic() - began < 20
    assert hanging_popen.killed
    monkeypatch.setattr(doctor, "ask_nvml", lambda: None)
    (finding,) = doctor.check_gpus(config_of(tmp_path))
    assert finding.level == "bad"
    assert "hangs" in finding.text
    assert finding.fix


class HangingPopen(doctor.subprocess.Popen):
    """The real thing, with a child that never answers."""

    killed = False

    def __init__(self, command, **options):
        super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], **options)

    def kill(self):
        type(self).killed = True
        super().kill()
        self.wait(20)


@pytest.mark.parametrize(
    ("answer", "on_bus", "check", "level", "words"),
    [
        (nvml(error="Driver Not Loaded"), 8, "driver", "bad", "Driver Not Loaded"),
        (nvml(error="Library Not Found", library=None), 0, "driver", "note", "shows no NVIDIA GPU"),
        (
            nvml(gpus=[{"index": 0, "uuid": "GPU-1", "error": None}]),
            2,
            "gpus",
            "bad",
            "1 GPUs answer, 2 are on the PCI bus",
        ),
        (nvml(gpus=[{"index": 0, "uuid": None, "error": "GPU is lost"}]), 1, "gpus", "bad", "GPU 0 does not answer"),
        (nvml(gpus=[{"index": 0, "uuid": "GPU-1", "error": None}]), 1, "gpus", "good", "1 GPUs answer"),
        (nvml(simulated=True), 0, "simulated", "note", "SIMULATED"),
    ],
)
def test_gpus_seen_against_expected(tmp_path, monkeypatch, answer, on_bus, check, level, words):
    monkeypatch.setattr(doctor, "ask_nvml", lambda: answer)
    monkeypatch.setattr(doctor, "pci_gpus", lambda: on_bus)
    findings = list(doctor.check_gpus(config_of(tmp_path)))
    assert any(said == level and words in text for said, text in of(findings, check)), findings


def test_the_real_examination_answers():
    found = doctor.ask_nvml()
    assert found is not None
    assert set(found) >= {"library", "error", "gpus"}


def test_gpus_on_a_recorded_pci_bus(tmp_path):
    for name, vendor, kind in (("0", "0x10de", "0x030200"), ("1", "0x10de", "0x068000"), ("2", "0x8086", "0x030000")):
        folder = tmp_path / "bus/pci/devices" / name
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "class").write_text(kind + "\n")
    assert doctor.pci_gpus(str(tmp_path)) == 1


def test_a_port_that_something_else_holds(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        thread = threading.Thread(target=lambda: [taken.accept()[0].close() for _ in range(2)])
        thread.start()
        (finding,) = doctor.check_port(config_of(tmp_path, listen=f"127.0.0.1:{port}"))
        thread.join(20)
    assert finding.level == "bad"
    assert f"pid {os.getpid()}" in finding.text


def test_servers_that_answer_and_do_not(tmp_path, serve):
    from agent.base.web import App, text

    app = App()
    app.route("/-/ready", lambda request: text("ready"))
    port = serve(app).port
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = closed.getsockname()[1]
    config = config_of(
        tmp_path, prometheus_url=f"http://127.0.0.1:{port}/", alertmanager_urls=f"[http://127.0.0.1:{gone}]"
    )
    findings = list(doctor.check_servers(config))
    assert of(findings, "prometheus")[0][0] == "good"
    assert of(findings, "alertmanager")[0][0] == "bad"
    assert "refused" in of(findings, "alertmanager")[0][1]
    assert findings[1].fix


def test_the_clock_is_asked(tmp_path):
    (finding,) = doctor.check_clock(config_of(tmp_path))
    assert finding.level in ("good", "bad")


def test_the_command_speaks_json_and_says_bad_by_its_code(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", (lambda config: iter([doctor.Finding("x", "bad", "broken", "mend it")]),))
    assert main(["doctor", "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == [{"check": "x", "level": "bad", "text": "broken", "fix": "mend it"}]
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out == "BAD   x: broken\n      fix: mend it\n"
    monkeypatch.setattr(doctor, "CHECKS", (lambda config: iter([doctor.Finding("x", "unknown", "?")]),))
    assert main(["doctor"]) == 3
