"""The checks of `gpuvigil doctor`: what may be wrong on this node, each with its fix."""

from __future__ import annotations

import ctypes
import glob
import json
import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.base.drillfile import boot_id
from agent.base.web import holder, parse_address
from agent.health.kernel_log import JOURNAL_FIX, KMSG_FIX, choose, open_log
from agent.settings import AgentConfig

Level = Literal["good", "note", "bad", "unknown"]
_NVML_SECONDS = 15.0
_HTTP_SECONDS = 4.0
_JOURNAL_SECONDS = 10.0
_NVIDIA = "0x10de"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer. `fix` says what to do and is empty when nothing is."""

    check: str
    level: Level
    text: str
    fix: str = ""


Check = Callable[[AgentConfig], Iterator[Finding]]


def examine(config: AgentConfig) -> list[Finding]:
    """Every check, at the same time; none can hang for longer than about 15 s."""
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        return [finding for found in pool.map(lambda check: list(check(config)), CHECKS) for finding in found]


# GPUs


def ask_nvml(seconds: float = _NVML_SECONDS) -> dict[str, Any] | None:
    """What the driver says, asked in another process; None if it did not answer in time."""
    # -I: neither the folder we stand in nor PYTHON* variables decide what is imported
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", "agent.doctor_nvml"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()  # a process in an uninterruptible call stays; it is not waited for
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        return None
    if process.returncode != 0:
        return {
            "library": None,
            "error": f"the check itself ended with {process.returncode}: {err.decode()[-300:]}",
            "gpus": [],
        }
    found: dict[str, Any] = json.loads(out)
    return found


def pci_gpus(sys_root: str = "/sys") -> int:
    """NVIDIA display and 3D controllers on the PCI bus."""
    count = 0
    for folder in glob.glob(f"{sys_root}/bus/pci/devices/*"):
        try:
            vendor = Path(folder, "vendor").read_text().strip()
            kind = Path(folder, "class").read_text().strip()
        except OSError:
            continue
        count += vendor == _NVIDIA and kind.startswith(("0x0300", "0x0302"))
    return count


def check_gpus(config: AgentConfig) -> Iterator[Finding]:
    on_bus = pci_gpus()
    expected = getattr(getattr(config.collectors, "gpu", None), "expected", None) or on_bus
    found = ask_nvml()
    if found is None:
        yield Finding(
            "driver", "bad", f"NVML did not answer in {_NVML_SECONDS:.0f} s: the driver hangs",
            "look for Xid lines in `dmesg`; drain the node and reboot it",
        )  # fmt: skip
        return
    if found["error"] is not None:
        fix = (
            "install the NVIDIA driver, or if it is there: `modprobe nvidia`, then `nvidia-smi`"
            if found["library"] is None
            else "`nvidia-smi` and `dmesg | grep -i nvrm`: kernel module and library must be of one version"
        )
        level: Level = "bad" if expected else "note"
        yield Finding(
            "driver",
            level,
            f"NVML does not start: {found['error']}" + ("" if on_bus else " (and the PCI bus shows no NVIDIA GPU)"),
            fix,
        )
        return
    library = found["library"]
    yield Finding("driver", "good", f"driver {found['driver']}, library {library}")
    if found["simulated"]:
        yield Finding(
            "simulated",
            "note",
            f"SIMULATED: {library} is gpuvigil's simulator, not a driver",
            "unset LD_LIBRARY_PATH for a real node",
        )
    broken = [gpu for gpu in found["gpus"] if gpu["error"]]
    for gpu in broken:
        yield Finding(
            "gpus",
            "bad",
            f"GPU {gpu['index']} does not answer: {gpu['error']}",
            "`dmesg | grep -i xid` tells why; reset or reboot as the Xid says",
        )
    seen = len(found["gpus"]) - len(broken)
    if seen < expected:
        why = "configured" if getattr(getattr(config.collectors, "gpu", None), "expected", None) else "on the PCI bus"
        yield Finding(
            "gpus",
            "bad",
            f"{seen} GPUs answer, {expected} are {why}",
            "reseat or power-cycle; check `lspci -d 10de:` and the BMC's log",
        )
    else:
        told = f"{expected} expected" if expected else "no number is expected (collectors.gpu.expected)"
        yield Finding("gpus", "good", f"{seen} GPUs answer, {told}")


# permissions


def check_permissions(config: AgentConfig) -> Iterator[Finding]:
    nodes = [path for path in glob.glob("/dev/nvidia*") if not os.path.isdir(path)]
    if shut := [path for path in nodes if not os.access(path, os.R_OK | os.W_OK)]:
        yield Finding(
            "permissions",
            "bad",
            f"may not open {', '.join(shut)}",
            "add the agent's user to the group that owns them (usually video)",
        )
    elif nodes:
        yield Finding("permissions", "good", f"may open {len(nodes)} nvidia device nodes")
    yield _kernel_log(getattr(config.collectors, "xid", None))
    for name, folder in (("state_dir", config.state_dir), ("run_dir", config.run_dir)):
        place = next(p for p in (Path(folder), *Path(folder).parents) if p.exists())
        if os.access(place, os.W_OK | os.X_OK):
            yield Finding(name, "good", f"{folder} is or can be made")
        else:
            yield Finding(
                name,
                "bad",
                f"{folder} cannot be written by this user",
                f"create it for the agent's user, or set {name}",
            )


def _kernel_log(settings: Any) -> Finding:
    """The source in force for this user, tried: a first read of it."""
    kmsg = Path(getattr(settings, "kmsg", "/dev/kmsg"))
    source, why = choose(getattr(settings, "source", "auto"), kmsg)
    where = str(kmsg) if source == "kmsg" else "the journal"
    log = open_log(source, kmsg, boot_id(), None)
    end = time.monotonic() + _JOURNAL_SECONDS
    try:
        while not log.read(1) and source == "journal" and time.monotonic() < end:
            time.sleep(0.05)
    except OSError as error:
        fix = JOURNAL_FIX if source == "journal" else KMSG_FIX
        return Finding("kernel log", "bad", f"may not read {where}: {error.strerror or error}", fix)
    finally:
        log.close()
    if source == "journal" and not log.records:
        return Finding("kernel log", "unknown", f"journalctl said nothing in {_JOURNAL_SECONDS:.0f} s", JOURNAL_FIX)
    return Finding("kernel log", "good", f"reads {where}" + (f" ({why})" if why else ""))


# clock


class _Timex(ctypes.Structure):
    """The head of struct timex (adjtimex(2)); the tail is only there so that the kernel may fill it."""

    _fields_ = [("modes", ctypes.c_uint), ("offset", ctypes.c_long), ("freq", ctypes.c_long),
                ("maxerror", ctypes.c_long), ("esterror", ctypes.c_long), ("status", ctypes.c_int),
                ("tail", ctypes.c_byte * 256)]  # fmt: skip


_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


def check_clock(config: AgentConfig) -> Iterator[Finding]:
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        yield Finding("clock", "unknown", f"adjtimex: {os.strerror(ctypes.get_errno())}")
    elif state == _TIME_ERROR or timex.status & _STA_UNSYNC:
        yield Finding(
            "clock",
            "bad",
            "the clock is not synchronised",
            "run chrony or systemd-timesyncd: ages and ETAs depend on it",
        )
    else:
        yield Finding("clock", "good", f"synchronised, error at most {timex.maxerror / 1000:.0f} ms")


# network


def check_port(config: AgentConfig) -> Iterator[Finding]:
    host, port = parse_address(config.listen)
    if port == 0:
        return
    where = f"{host or '*'}:{port}"
    try:
        with socket.create_connection((host or "127.0.0.1", port), timeout=_HTTP_SECONDS):
            pass
    except OSError:
        yield Finding("port", "good", f"{where} is free: no agent runs")
        return
    who = holder(port)
    if config.web_config_file is not None:
        yield Finding("port", "good", f"{where} is held by {who}")
        return
    status, text = _get(f"http://{host or '127.0.0.1'}:{port}/")
    if status == 200 and "gpuvigil agent" in text:
        yield Finding("port", "good", f"the agent answers on {where} ({who})")
    else:
        yield Finding(
            "port", "bad", f"{where} is taken by {who}, which is no gpuvigil agent", "stop it, or set `listen`"
        )


def check_servers(config: AgentConfig) -> Iterator[Finding]:
    if config.prometheus_url:
        yield _reach("prometheus", config.prometheus_url, "prometheus_url")
    else:
        yield Finding("prometheus", "note", "prometheus_url is not set: nothing to ask")
    for url in config.alertmanager_urls:
        yield _reach("alertmanager", url, "alertmanager_urls")
    if not config.alertmanager_urls:
        yield Finding("alertmanager", "note", "alertmanager_urls is not set: hard faults page through Prometheus only")


def _reach(name: str, url: str, setting: str) -> Finding:
    status, text = _get(url.rstrip("/") + "/-/ready")
    if status == 200:
        return Finding(name, "good", f"{url} is ready")
    return Finding(
        name,
        "bad",
        f"{url}: {text}" if status == 0 else f"{url}: not ready, HTTP {status}",
        f"start it, open the way to it, or correct {setting}",
    )


def _get(url: str) -> tuple[int, str]:
    """Status and text; status 0 and the reason if there was no answer."""
    try:
        with urllib.request.urlopen(url, timeout=_HTTP_SECONDS) as answer:
            return answer.status, answer.read(65536).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, str(error.reason)
    except (OSError, ssl.SSLError, ValueError) as error:
        return 0, str(getattr(error, "reason", error))


def check_install(config: AgentConfig) -> Iterator[Finding]:
    import agent

    place = os.path.dirname(os.path.abspath(agent.__file__))
    in_prefix = place.startswith(os.path.abspath(sys.prefix) + os.sep)
    ours = os.path.exists(os.path.join(place, "base", "catalogue", "metric.py"))
    if not ours:
        yield Finding(
            "install",
            "bad",
            f"the package `agent` in {place} is not gpuvigil's",
            "give gpuvigil a virtual environment of its own",
        )
    else:
        yield Finding("install", "good", f"runs from {place}" + ("" if in_prefix else " (a source tree)"))


CHECKS: tuple[Check, ...] = (check_install, check_gpus, check_permissions, check_clock, check_port, check_servers)
