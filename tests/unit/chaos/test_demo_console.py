"""The demo's console, and a signal that arrives while it speaks."""

from __future__ import annotations

import subprocess
import sys

INTERRUPTED_WHILE_SPEAKING = """
import io, signal, sys
from chaos.demo.console import Console

console = Console()
signal.signal(signal.SIGINT, lambda *_: console.say_from_handler("SIGINT: ending"))

class Slow(io.TextIOBase):  # a stderr in whose write the signal arrives
    def write(self, text):
        signal.raise_signal(signal.SIGINT)
        return len(text)
    def isatty(self):
        return False

sys.stderr = Slow()
console.say("injected")
print("spoke to the end")
"""


def test_a_signal_in_the_middle_of_a_line_does_not_stop_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_SPEAKING], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "spoke to the end\n"
    assert "SIGINT: ending" in done.stderr
