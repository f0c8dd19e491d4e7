"""The maintenance flag: until when this node's pages stay quiet, and why.

Set by `gpuvigil agent maintenance on`, exported by the collector of the same name.
"""

from __future__ import annotations

from agent.base.window import WindowFile

NAME = "maintenance.json"
MAINTENANCE = WindowFile(
    NAME, "maintenance", 30 * 86400.0, "replacing GPU 3", "gpuvigil agent maintenance off"
)  # a window nobody remembers is how a dead node stays silent

read, switch_on, switch_off = MAINTENANCE.read, MAINTENANCE.switch_on, MAINTENANCE.switch_off
