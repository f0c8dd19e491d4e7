"""The agent's side of the NVML child: starts it, listens, notices when a driver call never returns.

One thread owns all of this. Whoever asks for the state gets an immutable view and never waits for
a driver. A child whose call is stuck is named and killed; a replacement leaves the suspect GPU out.
A child that even SIGKILL does not end is abandoned, and while it lives there is one replacement at
most. A suspect comes back when a child of its own has swept it, or when the abandoned call ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from agent.gpu import codes, wire
from agent.gpu.process import ChildProcess
from agent.gpu.readings import CALLS, EVENT_WAIT_S, OPENING
from agent.gpu.view import Process, Settings, Stuck, View

LOG = logging.getLogger("gpuvigil.gpu")

POLL_S: Final = 0.25
"""How soon a call past its deadline is noticed."""
POLL_MOST_S: Final = 1.2
"""The same where deadlines are long: a little more than the child's own pace, so that its word alone wakes us."""
AWAY_S: Final = 2.0
"""A turn that takes longer is none of ours: the whole machine stood still (a virtual machine moved, a frozen cgroup),
and the child with it.
"""
KILL_GRACE_S: Final = 2.0
"""A process that lives this long after SIGKILL sits in the kernel."""
BACKOFF_S: Final = (1.0, 30.0)
PROBATION_MOST_S: Final = 600.0
HEALTHY_S: Final = 60.0
TOGETHER_S: Final = 1.0
"""How long a description may wait for its first values; until then those before stand, with what they describe."""
XIDS_KEPT: Final = 10_000
LAYOUTS_KEPT: Final = 16
"""Descriptions kept to read the frames of the last minute."""


@dataclass
class _Suspect:
    stuck: Stuck
    retry_at: float
    patience: float


class Client:
    """Runs and watches the child from `start()` to `close()`.

    Args:
        settings: see Settings.
        known: GPUs seen before, as a list of {uuid, index}, asked at each start of a child.
        kill: how a child is ended (tests replace it by something that fails, as the kernel may).
    """

    def __init__(
        self,
        settings: Settings,
        known: Callable[[], list[dict[str, Any]]] = list,
        kill: Callable[[subprocess.Popen[bytes]], None] = subprocess.Popen.kill,
    ) -> None:
        self._settings, self._known, self._kill = settings, known, kill
        self._lock = threading.Lock()
        self._view = View()
        self._values: bytes = b""
        self._minute: deque[bytes] = deque(maxlen=max(2, round(60 / settings.interval)))
        self._layouts: dict[int, dict[str, Any]] = {}
        self._described_at = 0.0
        self._xids: deque[dict[str, Any]] = deque(maxlen=XIDS_KEPT)
        self._processes: dict[str, list[Process]] = {}
        self._main: ChildProcess | None = None
        self._probe: ChildProcess | None = None
        self._probed: int | None = None
        self._dying: list[ChildProcess] = []
        self._suspects: dict[int | None, _Suspect] = {}
        self._start_at = 0.0
        self._pause = BACKOFF_S[0]
        self._starts = 0
        self._back = time.monotonic()
        self._away = 0.0
        self._poll = max(POLL_S, min(POLL_MOST_S, settings.call_deadline / 8))
        self._selector = selectors.DefaultSelector()
        self._hurry = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._selector.register(self._hurry, selectors.EVENT_READ)
        self._closing = threading.Event()
        self._released = threading.Event()
        self._spoken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-client", daemon=True)

    # -- what others ask ------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End the child; waits for the client's thread, never for the driver."""
        if self._closing.is_set():
            return
        self._closing.set()
        os.eventfd_write(self._hurry, 1)
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._selector.close()
            os.close(self._hurry)

    def release(self) -> None:
        """Let go of the driver, soon; `View.released` says when no process of ours holds it any more."""
        self._released.set()

    def take(self) -> None:
        """Take the driver up again, whichever is loaded then."""
        self._released.clear()

    def view(self) -> View:
        """The present state; the frame is there only while it is fresh."""
        with self._lock:
            view, values = self._view, self._values
        if values and view.up:
            frame = wire.unpack_values(values)
            fresh = time.monotonic_ns() - frame.at_ns < max(3.0, 3 * self._settings.interval) * 1e9
            described = view.described
            if (
                described is not None
                and fresh
                and wire.same_child(described["generation"], frame.generation)
                and time.monotonic() - self._described_at < TOGETHER_S
            ):
                described = self._layouts.get(frame.generation, described)
            matches = described is not None and described["generation"] == frame.generation
            return replace(view, described=described, fresh=fresh, frame=frame if fresh and matches else None)
        return view

    def wait(self, timeout: float) -> None:
        """Until the first sweep, or the first word that there is none; only the very first reader waits."""
        self._spoken.wait(timeout)

    def minute(self) -> list[tuple[dict[str, Any], wire.Frame]]:
        """The sweeps of the last minute, each with the description it belongs to, oldest first."""
        with self._lock:
            bodies, layouts = list(self._minute), self._layouts
        frames = [wire.unpack_values(body) for body in bodies]
        since = time.monotonic_ns() - 60 * 10**9
        return [
            (layouts[frame.generation], frame)
            for frame in frames
            if frame.generation in layouts and frame.at_ns > since
        ]

    def take_xids(self) -> list[dict[str, Any]]:
        """Xid events since the last call: uuid, pci, xid, gi, ci, time (Unix seconds), uptime (monotonic seconds)."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._xids.popleft())
        return taken

    def processes(self) -> dict[str, list[tuple[int, int | None]]]:
        """Compute processes by GPU UUID: (pid, bytes of GPU memory or None), at most 15 s old."""
        return {uuid: [(row.pid, row.memory) for row in rows] for uuid, rows in self.process_table().items()}

    def process_table(self) -> dict[str, list[Process]]:
        """The same with each process' share of the SMs; nothing of GPUs that do not answer now."""
        view = self.view()
        present = {str(gpu["uuid"]) for gpu in (view.described or {"gpus": ()})["gpus"]} if view.fresh else set()
        with self._lock:
            return {uuid: rows for uuid, rows in self._processes.items() if uuid in present}

    def pids(self) -> list[int]:
        """Process ids of the children alive, for the agent's own CPU and memory figures."""
        return [child.popen.pid for child in (self._main, self._probe) if child is not None]

    # -- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._turn()
            except OSError as error:
                LOG.error("NVML child: %s", error)
                self._later()
                self._closing.wait(POLL_S)
        for child in (self._main, self._probe):
            if child is not None:
                self._end(child)
        deadline = time.monotonic() + KILL_GRACE_S
        while self._dying and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.01)

    def _turn(self) -> None:
        began = time.monotonic()
        self._reap()
        if self._released.is_set():
            self._let_go()
            return
        if self._view.released:
            LOG.info("NVML is taken up again")
            self._change(released=False)
            self._start_at, self._pause = 0.0, BACKOFF_S[0]
        if self._main is None and self._may_start() and time.monotonic() >= self._start_at:
            self._start_main()
        self._start_probe()
        for key, _ in self._selector.select(POLL_S if self._main is None else self._poll):
            if key.data is not None:
                self._read(key.data)
        self._notice_absence(began)
        for child in (self._main, self._probe):
            if child is not None:
                self._watch(child)

    def _notice_absence(self, since: float) -> None:
        now = time.monotonic()
        if now - since > AWAY_S:
            self._back, self._away = now, now - since

    def _lasted(self, since: float) -> float:
        """Seconds since that moment of the monotonic clock, the last absence left out."""
        return time.monotonic() - since - max(0.0, min(self._away, self._back - since))

    def _let_go(self) -> None:
        """End the children and start none; suspects are forgotten, because another driver may come."""
        for child in (self._main, self._probe):
            if child is not None:
                self._end(child)
        self._main = self._probe = None
        self._values = b""
        if not self._dying and not self._view.released:
            LOG.info("NVML is let go on request")
            self._suspects.clear()
            self._change(up=None, code=0, described=None, stuck=(), released=True)
            self._spoken.set()
        self._closing.wait(POLL_S)

    def _unkillable(self) -> int:
        now = time.monotonic()
        return sum(now - child.killed_at > KILL_GRACE_S for child in self._dying)

    def _may_start(self) -> bool:
        """Not while a killed child may yet end, and never a third beside two that cannot be killed."""
        return len(self._dying) == self._unkillable() < 2

    def _configuration(self, only: list[int] | None, skip: list[int]) -> dict[str, Any]:
        return {
            "library": self._settings.library,
            "interval": self._settings.interval,
            "retry_lost": self._settings.retry_lost,
            "only": only,
            "skip": skip,
            "known": self._known(),
            "per_link": self._settings.per_link,
            "lifetime_ecc": self._settings.lifetime_ecc,
        }

    def _skip(self) -> list[int]:
        return sorted(index for index in self._suspects if index is not None)

    def _spawn(self, only: list[int] | None, skip: list[int]) -> ChildProcess:
        child = ChildProcess(self._configuration(only, skip))
        self._selector.register(child.out, selectors.EVENT_READ, child)
        return child

    def _start_main(self) -> None:
        self._main = self._spawn(None, self._skip())
        self._starts += 1
        self._change(restarts=self._starts - 1)

    def _start_probe(self) -> None:
        """Try the suspect whose time has come in a child of its own, while no child is unkillable."""
        if self._probe is not None or self._dying or self._main is None:
            return
        now = time.monotonic()
        due = [index for index, suspect in self._suspects.items() if index is not None and suspect.retry_at <= now]
        if due:
            self._probed = due[0]
            self._probe = self._spawn([due[0]], [])

    def _read(self, child: ChildProcess) -> None:
        if child is not self._main and child is not self._probe:
            return
        try:
            data = os.read(child.out, 1 << 18)
            messages = list(child.stream.feed(data))
            for kind, body in messages:
                self._hear(child, kind, body)
        except BlockingIOError:
            return
        except (wire.WireError, KeyError, TypeError, AttributeError) as error:
            LOG.error("NVML child: cannot be understood, replaced: %s", error)
            data = b""
        if not data:
            self._lost_child(child)

    def _hear(self, child: ChildProcess, kind: int, body: bytes) -> None:
        child.heard = time.monotonic()
        if child is self._probe:
            if kind == wire.VALUES:
                self._cleared(child)
            return
        if kind == wire.VALUES:
            with self._lock:
                self._values = body
                self._minute.append(body)
            self._spoken.set()
            if child.heard - child.started > HEALTHY_S:
                self._pause = BACKOFF_S[0]
            return
        message = wire.unpack(body)
        if kind == wire.HELLO and message["version"] != wire.VERSION:
            raise wire.WireError(f"protocol version {message['version']}, the agent speaks {wire.VERSION}")
        if kind == wire.STATE:
            self._hear_state(message)
        elif kind == wire.DESCRIBE:
            self._suspects.pop(None, None)
            with self._lock:
                self._described_at = time.monotonic()
                self._layouts = {**dict(list(self._layouts.items())[-LAYOUTS_KEPT:]), message["generation"]: message}
            self._change(described=message, stuck=self._stuck())
        elif kind == wire.XID:
            self._xids.append(message)
        elif kind == wire.PROCESSES:
            with self._lock:
                rows = [Process(*row) for row in message["processes"]]
                self._processes = {**self._processes, message["uuid"]: rows}

    def _hear_state(self, message: dict[str, Any]) -> None:
        synthetic = message.get("synthetic")
        if message["up"] is None:  # loaded, and about to be initialised
            self._change(synthetic=bool(synthetic))
            return
        up, code = bool(message["up"]), int(message["code"])
        if up != self._view.up or code != self._view.code:
            if up:
                LOG.info("NVML is up: driver %s", message["driver"])
            else:
                LOG.warning("NVML is down: %s", codes.name(code))
        self._change(
            up=up,
            code=code,
            synthetic=self._view.synthetic if synthetic is None else bool(synthetic),
            versions={key: str(message[key]) for key in ("driver", "nvml", "cuda")},
            described=None,
        )
        if not up:
            self._spoken.set()

    # -- when it goes wrong ---------------------------------------------------------------

    def _watch(self, child: ChildProcess) -> None:
        """Look at the heartbeat: a call past its deadline, or silence without any call."""
        for busy in child.beat.busy():
            call = CALLS[busy.call] if busy.call < len(CALLS) else "?"
            limit = self._settings.open_deadline if call in OPENING else self._settings.call_deadline
            limit += EVENT_WAIT_S if busy.lane == wire.EVENTS else 0.0
            if self._lasted(busy.start_ns / 1e9) > limit:
                self._stuck_child(child, Stuck("", busy.gpu, call, busy.start_ns))
                return
        silence = self._lasted(child.heard)
        if silence > self._settings.open_deadline + self._settings.call_deadline + 3 * self._settings.interval:
            LOG.error("NVML child: silent for %.0f s outside any driver call, replaced", silence)
            self._lost_child(child)

    def _stuck_child(self, child: ChildProcess, stuck: Stuck) -> None:
        seen = (self._view.described or {}).get("gpus", [])
        uuid = next((str(gpu["uuid"]) for gpu in [*seen, *self._known()] if gpu["index"] == stuck.index), "")
        stuck = replace(stuck, uuid=uuid)
        LOG.error("driver call %s on GPU index %s (%s) does not return", stuck.call, stuck.index, uuid or "unknown")
        old = self._suspects.get(stuck.index)
        patience = min(old.patience * 2, PROBATION_MOST_S) if old else self._settings.retry_lost
        kept = old.stuck if old else stuck
        self._suspects[stuck.index] = _Suspect(kept, time.monotonic() + patience, patience)
        if child is self._main:
            self._values = b""
            self._change(up=False, described=None, stuck=self._stuck())
        self._lost_child(child)

    def _stuck(self) -> tuple[Stuck, ...]:
        return tuple(suspect.stuck for suspect in self._suspects.values())

    def _lost_child(self, child: ChildProcess) -> None:
        self._end(child)
        if child is self._main:
            self._main = None
            self._values = b""
            if self._view.up:
                self._change(up=False, described=None)
            self._later()
        elif child is self._probe:
            self._probe = None
            if (suspect := self._suspects.get(self._probed)) and suspect.retry_at <= time.monotonic():
                suspect.retry_at = time.monotonic() + suspect.patience

    def _later(self) -> None:
        """Start the next child after a pause that grows while children keep dying."""
        self._start_at = time.monotonic() + self._pause
        self._pause = min(self._pause * 2, BACKOFF_S[1])

    def _end(self, child: ChildProcess) -> None:
        self._selector.unregister(child.out)
        if child.popen.poll() is None:
            self._kill(child.popen)
            child.killed_at = time.monotonic()
            self._dying.append(child)
        child.hang_up()

    def _reap(self) -> None:
        before = self._unkillable()
        self._dying = [child for child in self._dying if child.popen.poll() is None]
        if before > self._unkillable():
            for suspect in self._suspects.values():  # the call has ended after all: look at once
                suspect.retry_at = time.monotonic()

    def _cleared(self, child: ChildProcess) -> None:
        """A suspect has been swept: the main child takes it back."""
        LOG.info("GPU index %s answers again", self._probed)
        self._suspects.pop(self._probed, None)
        self._probe = None
        self._end(child)
        if self._main is not None:
            self._main.tell({"skip": self._skip()})
        self._change(stuck=self._stuck())

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self._view = replace(self._view, **changes)
