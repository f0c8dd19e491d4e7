"""The bad days of a node, each as it is provoked, by what the agent names it, and what may not be on its page.

for failure in FAILURES:
    with failure.provoke(node):
        node.see(failure.cause)          # the evidence on the page
        failure.untrue(node.page())      # series that nobody can know now: none
    node.see(failure.over)               # all is known again, by the same process
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.harness.mounts import silent_mount
from bench.harness.node import Node, Page
from chaos.simulator.world import World

POWER = "gpuvigil_gpu_power_watts"
ENERGY = "gpuvigil_gpu_energy_joules_total"
"""It grows with every sweep; the power of a GPU at its limit may stand still."""
SUCCESS = "gpuvigil_collector_success"
ERRORS = "gpuvigil_collector_errors_total"
HOUR = 3600.0


def says(page: Page, name: str, least: float = 0.0, **labels: str) -> str:
    """The first series of that name above `least`, as it stands on the page; empty if there is none."""
    for found, value in page.all(name, **labels):
        if value > least:
            return f"{name}{{{','.join(f'{key}={text}' for key, text in found.items() if text)}}} {value:g}"
    return ""


class Failure:
    """One thing that goes wrong. `first` is set where it is there before the agent starts."""

    name = ""
    first = False
    needs_root = False
    lasts = 0.0
    """Seconds it needs to show all it does."""

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        """It is there inside the block, and lifted at its end."""
        raise NotImplementedError

    def cause(self, page: Page) -> str:
        """What on the page names it; empty while nothing does."""
        raise NotImplementedError

    def settled(self, page: Page) -> bool:
        """It has got as far as it goes: what is held from here on does not change."""
        return bool(self.cause(page))

    def untrue(self, page: Page) -> list[str]:
        """Series on the page that cannot be known while it lasts."""
        return []

    def over(self, page: Page) -> bool:
        """Everything is known again."""
        return healthy(page)


def healthy(page: Page, gpus: int = 8) -> bool:
    up = page.gpus("gpuvigil_gpu_up")
    return (
        list(up.values()) == [1.0] * gpus
        and len(page.gpus(POWER)) == gpus
        and all(value == 1 for _, value in page.all(SUCCESS))
        and page.value("gpuvigil_llm_engine_up") == 1
    )


def of_gpu(page: Page, gpu: str) -> list[str]:
    """Readings on the page of a GPU that does not answer."""
    names = (
        POWER,
        "gpuvigil_gpu_utilization_ratio",
        "gpuvigil_gpu_temperature_celsius",
        ENERGY,
    )
    return [f"{name} of GPU {gpu}" for name in names if page.all(name, gpu=gpu)]


class HungDriver(Failure):
    """A driver call on one GPU never returns."""

    name = "hung_driver"

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        node.world.set("hang", gpu=3, forever=1)
        yield
        node.world.clear()

    def cause(self, page: Page) -> str:
        return says(page, "gpuvigil_gpu_driver_stuck_seconds", gpu="3")

    def settled(self, page: Page) -> bool:
        return len(page.gpus(POWER)) == 7

    def untrue(self, page: Page) -> list[str]:
        return of_gpu(page, "3") + (["gpuvigil_gpu_up of GPU 3"] if "3" in page.gpus("gpuvigil_gpu_up") else [])


class LostGpu(Failure):
    """A GPU falls off the bus, or only some of its calls fail."""

    def __init__(self, name: str, **how: object) -> None:
        self.name, self._how = name, how

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        node.world.set("gpu_lost", gpu=5, **self._how)
        yield
        node.world.clear()

    def cause(self, page: Page) -> str:
        return "gpuvigil_gpu_up{gpu=5} 0" if page.gpus("gpuvigil_gpu_up").get("5") == 0 else ""

    def untrue(self, page: Page) -> list[str]:
        return of_gpu(page, "5")


class ReloadedDriver(Failure):
    """The driver is unloaded, and comes back in another version with counters that begin again."""

    name = "driver_reloaded"
    version = "590.10.01"

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        node.world.set("driver_unloaded")
        yield
        old = node.world
        node.world = World.create(old.path, gpus=node.gpus, driver=self.version, replace=True)
        old.close()

    def cause(self, page: Page) -> str:
        down = page.value("gpuvigil_gpu_driver_up") == 0
        return says(page, ERRORS, collector="gpu", reason="driver_not_loaded") if down else ""

    def untrue(self, page: Page) -> list[str]:
        return [name for name in (POWER, "gpuvigil_gpu_up", "gpuvigil_gpu_driver_info") if page.all(name)]

    def over(self, page: Page) -> bool:
        return healthy(page) and bool(page.all("gpuvigil_gpu_driver_info", driver=self.version))


class LateDriver(Failure):
    """The agent starts before the driver is loaded."""

    name = "agent_before_driver"
    first = True

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        node.world.set("driver_unloaded")
        yield
        node.world.clear()

    def cause(self, page: Page) -> str:
        down = page.value("gpuvigil_gpu_driver_up") == 0
        return says(page, ERRORS, collector="gpu", reason="driver_not_loaded") if down else ""

    def untrue(self, page: Page) -> list[str]:
        return [name for name in (POWER, "gpuvigil_gpu_up") if page.all(name)]


class ShuffledGpus(Failure):
    """The driver comes back with its GPUs in another order: each keeps its number, for its UUID is its name."""

    name = "gpu_order_changed"

    def __init__(self) -> None:
        self._before: dict[str, str] = {}
        self._restarts = 0.0

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        page = node.page()
        self._before, self._restarts = _places(page), page.value("gpuvigil_gpu_child_restarts_total") or 0.0
        shuffled = node.world.set("order_shuffled")
        unloaded = node.world.set("driver_unloaded")  # an order is found anew when NVML is initialised
        node.see(lambda page: page.value("gpuvigil_gpu_driver_up") == 0)
        node.world.clear(unloaded)
        yield
        node.world.clear(shuffled)

    def cause(self, page: Page) -> str:
        same = healthy(page) and _places(page) == self._before
        return says(page, "gpuvigil_gpu_child_restarts_total", self._restarts) if same else ""


def _places(page: Page) -> dict[str, str]:
    """Number, UUID and bus id of each GPU."""
    return {one["gpu"]: f"{one['uuid']} {one['pci_bus_id']}" for one, _ in page.all("gpuvigil_gpu_info")}


class FloodedKernelLog(Failure):
    """100,000 kernel messages at once, ten Xids among them."""

    name = "kernel_log_flood"
    lines, xids = 100_000, 10

    def __init__(self) -> None:
        self._records = self._events = 0.0

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        page = node.page()
        self._records = page.value("gpuvigil_kernel_log_records_total") or 0.0
        self._events = self._seen(page)
        bus = node.world.gpus[2].bus_id.lower().rpartition(".")[0]
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000  # the last of them; the same Xid twice in 5 s is one
        every = self.lines // self.xids
        with node.kmsg.open("a") as log:
            for number in range(self.lines):
                text = f"usb 1-1: device number {number} is not attached"
                if number % every == 0:
                    text = f"NVRM: Xid (PCI:{bus}): 43, pid=1, name=python, Ch {number:08x}"
                log.write(f"6,{number},{now - (self.lines - number) * 1000},-;{text}\n")
        yield

    def _seen(self, page: Page) -> float:
        return sum(value for _, value in page.all("gpuvigil_gpu_xid_codes_total", gpu="2", xid="43"))

    def cause(self, page: Page) -> str:
        whole = self._seen(page) == self._events + self.xids
        return says(page, "gpuvigil_kernel_log_records_total", self._records + self.lines - 1) if whole else ""

    def over(self, page: Page) -> bool:
        return healthy(page) and page.value("gpuvigil_kernel_log_lost_records_total") == 0


class HugePage(Failure):
    """An engine's page of 20 MB: thousands of models, each with all its series."""

    name = "engine_page_20mb"
    lasts = 12.0

    def __init__(self) -> None:
        self._failures = 0.0

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        usual = node.page_file.read_bytes()
        model = usual.partition(b'model_name="')[2].partition(b'"')[0]
        page = bytearray(usual)
        while len(page) < 20_000_000:
            page += usual.replace(b'model_name="' + model, b'model_name="%d of %s' % (len(page), model))
        _replace(node.page_file, bytes(page))
        yield
        _replace(node.page_file, usual)

    def cause(self, page: Page) -> str:
        return says(page, "gpuvigil_agent_parse_errors_total", collector="inference")


def _replace(file: Path, content: bytes) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)


class FullDisk(Failure):
    """No byte is left on the disk that holds the agent's state and log."""

    name = "disk_full"
    needs_root = True

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        ballast = node.state / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(1 << 16)):
                pass
        node.world.set("xid", gpu=1, code=43)  # gives it something to write
        yield
        ballast.unlink()

    def cause(self, page: Page) -> str:
        return "gpuvigil_agent_state_writable 0" if page.value("gpuvigil_agent_state_writable") == 0 else ""

    def over(self, page: Page) -> bool:
        return healthy(page) and page.value("gpuvigil_agent_state_writable") == 1


class SteppedClock(Failure):
    """The wall clock jumps by an hour; nothing that is known becomes stale or jumps with it."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self._seconds = name, seconds

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        self._now = node.warp.now
        node.warp.step(self._seconds)
        yield
        node.warp.step(0.0)

    def cause(self, page: Page) -> str:
        now = page.value("gpuvigil_agent_snapshot_timestamp_seconds") or 0.0
        ahead = now - self._now()
        return f"gpuvigil_agent_snapshot_timestamp_seconds {ahead:+.0f} s" if abs(ahead - self._seconds) < 60 else ""

    def over(self, page: Page) -> bool:
        now = page.value("gpuvigil_agent_snapshot_timestamp_seconds") or 0.0
        return healthy(page) and abs(now - self._now()) < 60


class IdleClients(Failure):
    """300 clients that connect and say nothing, and 20 that send a byte a second."""

    name = "idle_clients"
    idle, slow = 300, 20
    lasts = 15.0

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        # a process of its own: those who measure may not wait for it
        crowd = subprocess.Popen(
            [sys.executable, "-m", "bench.harness.crowd", *map(str, (node.port, self.idle, self.slow))],
            stdin=subprocess.PIPE,
        )
        try:
            yield
        finally:
            crowd.communicate()

    def cause(self, page: Page) -> str:
        crowded = says(page, "gpuvigil_agent_http_connections", self.idle + self.slow - 1)
        return crowded and says(page, "gpuvigil_agent_http_connections_dropped_total", reason="deadline")

    def over(self, page: Page) -> bool:
        return healthy(page) and (page.value("gpuvigil_agent_http_connections") or 0) < 10


class DeadNfs(Failure):
    """A network mount with a training log and checkpoints on it answers no more."""

    name = "nfs_dead"
    needs_root = True
    lasts = 25.0

    @contextlib.contextmanager
    def provoke(self, node: Node) -> Iterator[None]:
        self._point = str(node.far)
        with silent_mount(node.far):
            yield

    def cause(self, page: Page) -> str:
        return says(page, "gpuvigil_node_filesystem_stuck_seconds", mountpoint=self._point)

    def settled(self, page: Page) -> bool:
        """Everybody who looks there waits by now."""
        return bool(says(page, "gpuvigil_node_filesystem_stuck_seconds", 12.0, mountpoint=self._point))

    def untrue(self, page: Page) -> list[str]:
        names = ("gpuvigil_node_filesystem_size_bytes", "gpuvigil_node_filesystem_probe_ok")
        of_mount = [name for name in names if page.all(name, mountpoint=self._point)]
        return of_mount + [name for name in ("gpuvigil_train_step", "gpuvigil_train_loss") if page.all(name)]

    def over(self, page: Page) -> bool:
        gone = not page.all("gpuvigil_node_filesystem_stuck_seconds", mountpoint=self._point)
        return healthy(page) and gone and bool(page.all("gpuvigil_train_step"))


FAILURES: tuple[Failure, ...] = (
    LateDriver(),
    HungDriver(),
    LostGpu("gpu_lost"),
    LostGpu("gpu_partly_lost", partial=1),
    ReloadedDriver(),
    ShuffledGpus(),
    FloodedKernelLog(),
    HugePage(),
    FullDisk(),
    SteppedClock("clock_forward_1h", HOUR),
    SteppedClock("clock_back_1h", -HOUR),
    IdleClients(),
    DeadNfs(),
)
