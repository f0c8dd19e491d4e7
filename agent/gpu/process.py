"""One life of the NVML child, seen from the agent: the process, its pipe and its heartbeat page."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import Any

from agent.gpu import wire


class ChildProcess:
    """One child process with its pipe and heartbeat page."""

    def __init__(self, settings: dict[str, Any]) -> None:
        out, child_out = os.pipe()
        page = wire.Heartbeat.create()
        isolation = "-P" if sys.version_info >= (3, 11) else "-I"
        try:
            self.popen = subprocess.Popen(
                [sys.executable, isolation, "-m", "agent.gpu.child", str(child_out), str(page)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(child_out, page),
                start_new_session=True,
            )
        except OSError:
            os.close(out)
            os.close(page)
            raise
        finally:
            os.close(child_out)
        os.set_blocking(out, False)
        self.out, self.beat = out, wire.Heartbeat(page)
        os.close(page)
        self.stream = wire.Stream()
        self.started = time.monotonic()
        self.heard = self.started
        self.killed_at = 0.0
        self.tell(settings)

    def tell(self, settings: dict[str, Any]) -> None:
        assert self.popen.stdin is not None
        with contextlib.suppress(OSError):
            self.popen.stdin.write(json.dumps(settings).encode() + b"\n")
            self.popen.stdin.flush()

    def hang_up(self) -> None:
        """Close our ends; a child that can still run ends by itself."""
        assert self.popen.stdin is not None
        with contextlib.suppress(OSError):
            self.popen.stdin.close()
        os.close(self.out)
        self.beat.close()
