"""Process life of the agent: signals, reload, readiness, the tick, a clean end.

The tick joins the collectors' results to a snapshot and feeds systemd's watchdog; it runs in the
event loop that answers scrapes and never waits on a collector.
"""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from agent import __version__
from agent.base import log
from agent.base.collector import Context
from agent.base.errors import ConfigError, Exit
from agent.base.memory import few_heaps, give_back
from agent.base.notify import Notifier
from agent.base.web import Server, WebSecurity, format_address, parse_address
from agent.endpoints import build_app, health
from agent.runner import Runner
from agent.settings import AgentConfig, kinds, load_config
from agent.snapshot import Snapshot

_log = logging.getLogger("gpuvigil.agent")
_FIXED = ("listen", "state_dir", "run_dir", "web_config_file")
"""Settings that a running agent cannot change."""
_SWITCH_SECONDS = 0.0005
"""Longest a collector's thread keeps the interpreter from the event loop (Python's default is 5 ms)."""


def make_context(config: AgentConfig) -> Context:
    """The collectors' context; the folders are made where they are missing and may be."""
    for folder in (config.state_dir, config.run_dir):
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)
        except OSError as error:
            _log.warning(
                "folder cannot be made: what it would keep is lost at restart",
                extra={"folder": folder, "error": error.strerror},
            )
    return Context(config.state_dir, config.run_dir, config.node, config.cluster)


class Daemon:
    """One running agent.

    Args:
        config: its configuration.
        load: reads the configuration anew on SIGHUP; raises ConfigError.
        notifier: speaks to systemd.
        strict: a sample that would be dropped fails its collector's run (tests).
    """

    def __init__(
        self,
        config: AgentConfig,
        load: Callable[[], AgentConfig],
        notifier: Notifier,
        *,
        strict: bool = False,
    ) -> None:
        self._config = config
        self._load = load
        self._notifier = notifier
        self.runner = Runner(kinds(), make_context(config), series_budget=config.series_budget, strict=strict)
        self._newest: Snapshot | None = None
        self.app = build_app(self.newest, config.node, config.cluster)
        self.app.route("/api/v1/health", lambda request: health(self.runner.context))
        self.server = Server(self.app)
        self.server.answered.update({(path, 200): 0 for path in self.app.paths})
        self.runner.server = self.server
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None
        self._reloading: asyncio.Task[None] | None = None

    def newest(self) -> Snapshot:
        """The latest snapshot."""
        if self._newest is None:
            self._newest = self.runner.snapshot()
        return self._newest

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            ConfigError: the address to listen on is taken.
        """
        loop = asyncio.get_running_loop()
        host, port = parse_address(self._config.listen)
        self.server.listen(host, port)
        watching = None
        if self._config.web_config_file is not None:
            self.runner.security = WebSecurity(self.server, self._config.web_config_file)
            watching = loop.create_task(self.runner.security.watch())
        elif not _is_loopback(self.server.addresses[0][0]):
            _log.warning("open to the network without TLS or password: set web_config_file")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup)
        self.runner.configure(self._config.enabled())
        self.server.start()
        addresses = " ".join(format_address(*address) for address in self.server.addresses)
        _log.info("listening", extra={"address": addresses, "version": __version__, "node": self._config.node})
        self._notifier.ready(f"listening on {addresses}")
        give_back()
        try:
            self._tick("")
            await self._stopping.wait()
            if self._failure is not None:
                raise self._failure
        finally:
            self._notifier.stopping()
            if watching is not None:
                watching.cancel()
            _log.info("stopping")
            await self.server.stop()
            hanging = await asyncio.to_thread(self.runner.stop)
            if hanging:
                _log.warning("collectors hang and are left behind", extra={"collectors": ",".join(hanging)})

    def _tick(self, told: str) -> None:
        """One tick, which calls for the next; `told` is the status that systemd knows."""
        if self._stopping.is_set():
            return
        try:
            newest = self.runner.tick()
            newest.make()
        except Exception as error:  # an agent that ticks no more would show the last page for ever
            self._failure = error
            self._stopping.set()
            return
        self._newest = newest
        self._notifier.alive()
        if (status := _status(newest)) != told:
            self._notifier.status(status)
        loop, tick = asyncio.get_running_loop(), self._config.tick
        loop.call_at((loop.time() // tick + 1) * tick, self._tick, status)

    # reload

    def _hangup(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        self._notifier.reloading()
        try:
            config = await asyncio.to_thread(self._load)
            if fixed := [key for key in _FIXED if getattr(config, key) != getattr(self._config, key)]:
                raise ConfigError(f"{', '.join(fixed)}: a change needs a restart")
        except ConfigError as error:
            self.runner.reload_good = False
            _log.error("reload refused, the old configuration stays: %s", error)
        else:
            self.runner.reload_good = True
            self.runner.reload_time = self.server.wall()
            self.runner.budget.series = config.series_budget
            if (config.node, config.cluster) != (self._config.node, self._config.cluster):
                self.runner.context = replace(make_context(config), shared=self.runner.context.shared)
            self._config = config
            log.setup(config.log.level, config.log.format)
            self.runner.configure(config.enabled())
            _log.info("configuration reloaded")
        self._notifier.ready("configuration reloaded" if self.runner.reload_good else "reload refused; see the log")


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


def _status(snapshot: Snapshot) -> str:
    bad = [f"{each.name} {each.state}" for each in snapshot.statuses if each.state != "ok"]
    return f"{len(snapshot.statuses)} collectors" + (f", not ok: {', '.join(bad)}" if bad else ", all ok")


def run(path: str | Path | None, *, strict: bool = False) -> int:
    """Run the agent in this process; returns the exit code."""
    config = load_config(path)
    log.setup(config.log.level, config.log.format)
    sys.setswitchinterval(_SWITCH_SECONDS)
    few_heaps()
    gc.collect()

    async def live() -> None:
        await Daemon(config, lambda: load_config(path), Notifier(), strict=strict).run()

    gc.freeze()  # what was imported stays: a collection that walks it stops every answer for tens of milliseconds
    asyncio.run(live())
    return int(Exit.GOOD)
