"""The shipped units under a real systemd: a Debian tree booted by systemd-nspawn, the wheel in /opt/gpuvigil.

What a container cannot show: MemoryMax= and CPUWeight= (on a host with cgroup v1), DeviceAllow= and real NVIDIA
devices, and the kernel's own messages. /dev/kmsg is a pipe here, into which the test writes records as a kernel
would; journald, journalctl, the units and the agent are the real ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CACHE = ROOT / "build" / "nspawn"
PACKAGES = "systemd,systemd-sysv,dbus,procps,python3,python3-venv"
PYTHON = "3.11"
AGENT = "gpuvigil-agent"
CENTRAL = "gpuvigil-central"
CONFIG = "node: n1\ncluster: c1\n"
TOOLS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
# nspawn lays a boot id of its own over /proc, which ProtectKernelTunables= of the unit takes away again: journald
# and the agent would not agree on which boot this is
ONE_BOOT_ID = """[Unit]
DefaultDependencies=no
Before=systemd-journald.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c "while umount /proc/sys/kernel/random/boot_id; do :; done; true"
[Install]
WantedBy=sysinit.target
"""

# All of Prometheus that central asks for: two series of a day and a half, seen through HTTP.
PROMETHEUS = """
import http.server, json, math, urllib.parse
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        ask, result = {key: value[0] for key, value in form.items()}, []
        if ask["query"] == "count(load)":
            result = [{"metric": {}, "value": [0, "2"]}]
        elif ask["query"] == "load":
            start, end, step = (float(ask[key]) for key in ("start", "end", "step"))
            times = [start + n * step for n in range(int((end - start) / step + 1.5))]
            result = [{"metric": {"n": n}, "values": [[t, str(math.sin(t / 13751) + t * k % 7)] for t in times]}
                      for k, n in enumerate("ab", 3)]
        kind = "matrix" if "start" in ask else "vector"
        body = json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", 9090), Handler).serve_forever()
"""
MONITORS = "".join(
    f"- {{name: {model}, query: load, model: {model}, step: 1m, fit_window: 36h, min_history: 1d, infer_every: 2s}}\n"
    for model in ("ewma", "prophet_batched", "prophet")
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.root]


def run(*command: object, patience: float = 600, **options: object) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=patience, check=False, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return str(done.stdout)


def need(there: bool, what: str) -> None:
    if there:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def mirror() -> str:
    """The Debian mirror that this machine's apt uses."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(file.read_text() for file in files if file.is_file())
    found = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+/debian/?)(?=\s)", text, re.M)
    need(found is not None, "apt's sources name no Debian mirror")
    assert found is not None
    return found[1]


def debian() -> Path:
    """A bookworm tree with central's locked dependencies, which hold the agent's, in /opt/gpuvigil; made once."""
    pins = ROOT / "requirements" / "central.txt"
    key = hashlib.sha256((PACKAGES + pins.read_text()).encode()).hexdigest()[:12]
    tree = CACHE / f"bookworm-{key}"
    if tree.exists():
        return tree
    partial = CACHE / f"{tree.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    run("debootstrap", "--variant=minbase", "--merged-usr", f"--include={PACKAGES}",
        "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg", "bookworm", partial, mirror(),
        patience=1800)  # fmt: skip
    wheels = partial / "wheels"
    run(sys.executable, "-m", "venv", CACHE / "pip")
    run(CACHE / "pip" / "bin" / "pip", "download", "--quiet", "--require-hashes", "--no-deps",
        "--only-binary=:all:", f"--python-version={PYTHON}", "-r", pins, "-d", wheels)  # fmt: skip
    shutil.copy(pins, wheels)
    inside(partial, "python3 -m venv /opt/gpuvigil")
    pip(partial, "--require-hashes -r /wheels/central.txt")
    shutil.rmtree(wheels)
    partial.rename(tree)
    return tree


def inside(tree: Path, script: str) -> str:
    return run("chroot", tree, "/bin/sh", "-ec", script, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"})


def pip(tree: Path, what: str) -> None:
    inside(tree, f"/opt/gpuvigil/bin/pip install --quiet --no-index --find-links /wheels {what}")


def install(tree: Path) -> None:
    """What an operator does: the wheel, the units, users, the run directory, the configuration."""
    wheels = tree / "wheels"
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", wheels, cwd=ROOT)
    pip(tree, "--no-deps /wheels/gpuvigil-*.whl")
    shutil.rmtree(wheels)
    for unit in (DEPLOY / "systemd").glob("*.service"):
        shutil.copy(unit, tree / "etc/systemd/system")
    shutil.copy(DEPLOY / "systemd/sysusers.conf", tree / "usr/lib/sysusers.d/gpuvigil.conf")
    shutil.copy(DEPLOY / "systemd/tmpfiles.conf", tree / "usr/lib/tmpfiles.d/gpuvigil.conf")
    (tree / "etc/gpuvigil").mkdir()
    (tree / "etc/gpuvigil/agent.yaml").write_text(CONFIG)
    shipped = (DEPLOY / "central.yaml").read_text()
    (tree / "etc/gpuvigil/central.yaml").write_text(f"{shipped}\nmonitors:\n{MONITORS}")
    (tree / "root/prometheus.py").write_text(PROMETHEUS)
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/systemd/system/one-boot-id.service").write_text(ONE_BOOT_ID)
    inside(tree, "systemctl enable one-boot-id")


class Machine:
    """A booted tree. Commands go in by nsenter, kernel records by the pipe that is its /dev/kmsg."""

    def __init__(self, tree: Path, log: Path) -> None:
        self.tree, self.config = tree, tree / "etc/gpuvigil/agent.yaml"
        kmsg = tree.with_name(f"{tree.name}.kmsg")
        os.mkfifo(kmsg)
        self._kmsg = os.open(kmsg, os.O_RDWR | os.O_NONBLOCK)
        self._seq = 0
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                ["systemd-nspawn", "-q", "-D", tree, "--boot", "--register=no", "--keep-unit", "--private-network",
                 "--console=pipe", f"--bind={kmsg}:/dev/kmsg"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.leader = 0
        try:
            until(self._born, "nspawn started nothing")
            until(self._up, "it did not boot", 120)
        except BaseException:
            self.close()
            raise

    def _born(self) -> bool:
        assert self._process.poll() is None, "systemd-nspawn ended"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self.leader = int(children[0]) if children else 0
        return self.leader != 0

    def _up(self) -> bool:
        assert self._process.poll() is None, "systemd-nspawn ended"
        return self.try_("systemctl", "is-system-running")[1].strip() in ("running", "degraded")

    def try_(self, *command: str) -> tuple[int, str]:
        """Exit status and output of a command within."""
        done = subprocess.run(
            ["nsenter", "-t", str(self.leader), "-a", *command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def do(self, *command: str) -> str:
        status, text = self.try_(*command)
        assert status == 0, f"{command}: {status}\n{text}\n{self.journal()}"
        return text

    def show(self, name: str, unit: str = AGENT) -> str:
        return self.do("systemctl", "show", "--property", name, "--value", unit).strip()

    def main(self, unit: str = AGENT) -> int:
        """The unit's process, by the number it has out here."""
        inner = self.show("MainPID", unit)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                numbers = re.search(r"^NSpid:\s+(.*)$", (process / "status").read_text(), re.M)
                if numbers and numbers[1].split()[-1] == inner and self._ours(process):
                    return int(process.name)
        raise AssertionError(f"no process {inner}")

    def _ours(self, process: Path) -> bool:
        return os.readlink(process / "ns/pid") == os.readlink(f"/proc/{self.leader}/ns/pid")

    def journal(self, unit: str = AGENT) -> str:
        return self.try_("journalctl", "-u", unit, "--no-pager", "-o", "cat")[1]

    def page(self, port: int = 9840) -> dict[str, float]:
        """The page as it is served within; empty while nothing answers."""
        url = f"http://127.0.0.1:{port}/metrics"
        ask = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=20).read().decode())"
        status, text = self.try_("python3", "-c", ask)
        lines = (line.rpartition(" ") for line in text.splitlines() if line and line[0] != "#")
        return {name: float(value) for name, _, value in lines} if status == 0 else {}

    def kernel(self, text: str, facility: int = 0, skip: int = 0) -> None:
        """One record of the kernel, taken by journald before the next is written. `skip` records are lost before it."""
        self._seq += 1 + skip
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        os.write(self._kmsg, f"{8 * facility + 3},{self._seq},{usec},-;{text}\n".encode())
        until(
            lambda: text[-20:] in self.do("journalctl", "-k", "-o", "cat", "--no-pager"), f"not in the journal: {text}"
        )

    def reset(self) -> None:
        """The agent runs with the good configuration, and no restart is counted."""
        self.config.write_text(CONFIG)
        self.do("systemctl", "reset-failed", AGENT)
        self.do("systemctl", "restart", AGENT)

    def close(self) -> None:
        """Power off; what does not go by itself is killed."""
        if self.leader and self._process.poll() is None:
            os.kill(self.leader, signal.SIGRTMIN + 4)
        end = time.monotonic() + 30
        while self._process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):  # a full pipe would hold up the last words of PID 1
                os.read(self._kmsg, 1 << 16)
            time.sleep(0.1)
        if self._process.poll() is None:
            if self.leader:
                os.kill(self.leader, signal.SIGKILL)
            self._process.kill()
            self._process.wait(30)
        os.close(self._kmsg)


def until(seen: Callable[[], object], what: str, patience: float = 60) -> None:
    end = time.monotonic() + patience
    while not seen():
        assert time.monotonic() < end, what
        time.sleep(0.2)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    need(os.geteuid() == 0, "needs root")
    for tool, package in TOOLS.items():
        need(shutil.which(tool) is not None, f"{tool} is not here (apt: {package})")
    folder = tmp_path_factory.mktemp("nspawn")
    tree = folder / "tree"
    try:
        run("cp", "-a", "--reflink=auto", debian(), tree)
        install(tree)
        made = Machine(tree, folder / "nspawn.log")
        try:
            yield made
        finally:
            made.close()
    finally:
        run("rm", "-rf", "--one-file-system", tree)


@pytest.fixture
def agent(machine: Machine) -> Machine:
    machine.reset()
    return machine


def test_it_starts_by_enable_now(machine: Machine) -> None:
    machine.do("systemctl", "enable", "--now", AGENT)
    assert machine.show("ActiveState") == "active"
    assert machine.show("Type") == "notify"
    assert machine.do("systemctl", "is-enabled", AGENT).strip() == "enabled"
    page = machine.page()
    assert any(name.startswith("gpuvigil_build_info") for name in page)
    assert page["gpuvigil_config_last_reload_successful"] == 1
    assert machine.do("stat", "-c", "%U %a", "/var/lib/gpuvigil-agent").split() == [AGENT, "750"]
    assert machine.do("stat", "-c", "%U %a", "/run/gpuvigil").split() == ["root", "755"]
    status = Path(f"/proc/{machine.main()}/status").read_text()
    assert re.search(r"^CapEff:\s+0+$", status, re.M), "no capability"
    assert re.search(r"^Seccomp:\s+2$", status, re.M), "system calls are filtered"


def test_xids_come_through_the_journal_and_once(agent: Machine) -> None:
    """A driver's line and an injected one, over a restart, with records missed by journald."""
    agent.kernel("Linux version 6.1.0")
    agent.kernel("NVRM: Xid (PCI:0000:41:00): 79, pid=1, name=python, GPU has fallen off the bus.")
    agent.kernel("NVRM: Xid (PCI:0000:42:00): 31, pid=1, name=python, MMU Fault", facility=1)

    def codes() -> dict[tuple[str, str], float]:
        rows = {}
        for name, value in agent.page().items():
            if name.startswith("gpuvigil_gpu_xid_codes_total"):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', name))
                rows[labels["xid"], labels.get("synthetic", "")] = value
        return rows

    both = {("79", ""): 1.0, ("31", "true"): 1.0}
    until(lambda: codes() == both, "the Xids were not counted")
    assert agent.page()['gpuvigil_kernel_log_info{source="journal"}'] == 1
    assert agent.page()['gpuvigil_collector_success{collector="xid"}'] == 1
    assert 'msg="kernel log" source=journal because="/dev/kmsg: Permission denied"' in agent.journal()
    agent.do("systemctl", "restart", AGENT)
    agent.kernel("NVRM: Xid (PCI:0000:41:00): 48, DBE", skip=5)
    until(lambda: codes() == {**both, ("48", ""): 1.0}, "not read on from where it stopped")
    assert agent.page()["gpuvigil_kernel_log_lost_records_total"] == 5


def test_the_agents_own_words_are_in_the_journal(agent: Machine) -> None:
    entries = agent.do("journalctl", "-u", AGENT, "-o", "json", "--output-fields=PRIORITY,MESSAGE", "--no-pager")
    assert re.search(r'"PRIORITY":"6".*msg=listening|msg=listening.*"PRIORITY":"6"', entries)
    assert "<6>" not in entries


def test_a_reload_with_a_bad_file_keeps_the_old_one(agent: Machine) -> None:
    pid = agent.show("MainPID")
    agent.config.write_text(CONFIG + "no_such_key: 1\n")
    agent.do("systemctl", "reload", AGENT)
    until(lambda: agent.page().get("gpuvigil_config_last_reload_successful") == 0, "the failure is not on the page")
    assert "/etc/gpuvigil/agent.yaml:3: no_such_key" in agent.journal()
    assert (agent.show("ActiveState"), agent.show("MainPID")) == ("active", pid)
    agent.config.write_text(CONFIG)
    agent.do("systemctl", "reload", AGENT)
    until(lambda: agent.page().get("gpuvigil_config_last_reload_successful") == 1, "the good file is not taken")
    assert agent.show("MainPID") == pid


def test_killed_it_comes_back(agent: Machine) -> None:
    os.kill(agent.main(), signal.SIGKILL)
    until(lambda: agent.show("NRestarts") == "1" and agent.show("ActiveState") == "active", "not started again")
    until(agent.page, "it does not answer")


def test_stopped_it_is_restarted_by_the_watchdog(agent: Machine) -> None:
    pid = agent.show("MainPID")
    os.kill(agent.main(), signal.SIGSTOP)
    until(lambda: agent.show("NRestarts") == "1" and agent.show("ActiveState") == "active", "no watchdog", 120)
    assert agent.show("MainPID") != pid
    assert "Watchdog timeout" in agent.journal()
    until(agent.page, "it does not answer")


def test_a_wrong_file_stops_the_start_once_and_for_all(agent: Machine) -> None:
    agent.do("systemctl", "stop", AGENT)
    agent.config.write_text(CONFIG + "collectors: {xid: {source: dmesg}}\n")
    status, _ = agent.try_("systemctl", "start", AGENT)
    assert status != 0
    time.sleep(8)  # longer than RestartSec
    assert (agent.show("ActiveState"), agent.show("NRestarts")) == ("failed", "0")
    assert (agent.show("Result"), agent.show("ExecMainStatus")) == ("exit-code", "2")
    assert "/etc/gpuvigil/agent.yaml:3: collectors.xid.source" in agent.journal()


def test_stop_is_quick_and_clean(agent: Machine) -> None:
    agent.do("systemctl", "stop", AGENT)
    assert (agent.show("ActiveState"), agent.show("Result")) == ("inactive", "success")


def test_the_drop_in_for_the_kernel_log(agent: Machine) -> None:
    """With kmsg.conf the device itself is read; here it is a pipe, so only the choice shows."""
    folder = agent.tree / f"etc/systemd/system/{AGENT}.service.d"
    folder.mkdir()
    shutil.copy(DEPLOY / "systemd/drop-ins/kmsg.conf", folder)
    try:
        agent.do("systemctl", "daemon-reload")
        agent.do("systemctl", "restart", AGENT)
        assert agent.show("ProtectKernelLogs") == "no"
        until(lambda: 'msg="kernel log" source=kmsg' in agent.journal(), "the device is not chosen")
    finally:
        shutil.rmtree(folder)
        agent.do("systemctl", "daemon-reload")


# --- central ----------------------------------------------------------------------------------------------------


@pytest.fixture
def central(machine: Machine) -> Machine:
    machine.do("systemctl", "reset-failed", CENTRAL)
    machine.do("systemctl", "restart", CENTRAL)
    return machine


def states(machine: Machine) -> dict[str, str]:
    """The state of each of central's monitors."""
    rows = (line for line, value in machine.page(9841).items() if "monitor_state{" in line and value == 1)
    return {found["monitor"]: found["state"] for row in rows for found in [dict(re.findall(r'(\w+)="([^"]*)"', row))]}


def test_central_starts_as_shipped_though_there_is_no_prometheus(machine: Machine) -> None:
    machine.do("systemctl", "enable", "--now", CENTRAL)
    assert (machine.show("ActiveState", CENTRAL), machine.show("NRestarts", CENTRAL)) == ("active", "0")
    assert machine.do("stat", "-c", "%U %a", f"/var/lib/{CENTRAL}").split() == [CENTRAL, "700"]
    status = Path(f"/proc/{machine.main(CENTRAL)}/status").read_text()
    assert re.search(r"^CapEff:\s+0+$", status, re.M), "no capability"
    assert re.search(r"^Seccomp:\s+2$", status, re.M), "system calls are filtered"
    until(lambda: states(machine).get("ewma") == "stale", "a Prometheus that is away is not named")
    assert "Connection refused" in machine.journal(CENTRAL)
    page = machine.page(9841)
    assert page["gpuvigil_central_scheduler_alive"] == 1
    assert page["gpuvigil_central_memory_limit_bytes"] > 0


def test_central_fits_every_kind_of_model_within_its_unit(central: Machine) -> None:
    """Workers, numpy and Prophet's compiled model under the unit's system calls, users and file system."""
    central.do("systemd-run", "--unit=prometheus-double", "python3", "/root/prometheus.py")
    wanted = {"ewma": "ok", "prophet_batched": "ok", "prophet": "ok"}
    until(lambda: {name: states(central).get(name) for name in wanted} == wanted, "no fit", 240)
    until(lambda: sum("anomaly_score{" in line for line in central.page(9841)) == 6, "new points have no score", 120)
    assert "Traceback" not in central.journal(CENTRAL)


def test_central_killed_goes_on_from_what_it_kept(central: Machine) -> None:
    until(lambda: states(central).get("prophet") == "ok", "no fit", 240)
    until(lambda: central.page(9841).get("gpuvigil_central_state_saved_timestamp_seconds"), "nothing is kept", 90)
    os.kill(central.main(CENTRAL), signal.SIGKILL)
    until(lambda: central.show("NRestarts", CENTRAL) == "1" and states(central).get("prophet") == "ok", "not restored")
    page = central.page(9841)
    assert page["gpuvigil_central_fits_pending"] == 0, "nothing is being fitted again"
    assert not any("monitor_fits_total" in line for line in page), "nothing was fitted again"
    assert "state restored" in central.journal(CENTRAL)


def test_central_stopped_is_restarted_by_the_watchdog(central: Machine) -> None:
    pid = central.show("MainPID", CENTRAL)
    os.kill(central.main(CENTRAL), signal.SIGSTOP)
    until(lambda: central.show("NRestarts", CENTRAL) == "1" and states(central), "no watchdog", 180)
    assert central.show("MainPID", CENTRAL) != pid


def test_a_wrong_file_stops_centrals_start_once_and_for_all(central: Machine) -> None:
    path = central.tree / "etc/gpuvigil/central.yaml"
    good = path.read_text()
    central.do("systemctl", "stop", CENTRAL)
    assert (central.show("ActiveState", CENTRAL), central.show("Result", CENTRAL)) == ("inactive", "success")
    try:
        path.write_text("colour: red\n")
        assert central.try_("systemctl", "start", CENTRAL)[0] != 0
        time.sleep(8)  # longer than RestartSec
        assert (central.show("ActiveState", CENTRAL), central.show("NRestarts", CENTRAL)) == ("failed", "0")
        assert "/etc/gpuvigil/central.yaml:1: colour" in central.journal(CENTRAL)
    finally:
        path.write_text(good)


def test_every_shipped_unit_is_taken_by_this_systemd(machine: Machine) -> None:
    for unit in sorted((DEPLOY / "systemd").glob("*.service")):
        assert machine.show("LoadState", unit.name) == "loaded"
    said = machine.do("journalctl", "-b", "--no-pager", "-o", "cat", "_PID=1")
    assert not re.search(r"gpuvigil.*(Unknown key|Failed to parse|unsupported)", said, re.I)
