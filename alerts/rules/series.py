"""Input series that the cases of several groups share."""

from __future__ import annotations

from typing import Final

from agent.base.catalogue import drill, gpu
from alerts.rules.promql import KEY

NODE: Final = {"cluster": "c1", "node": "n1"}
GPU3: Final = {**NODE, "gpu": "3", "uuid": "GPU-3"}
ENGINE: Final = {**NODE, "engine": "e1"}
JOB: Final = {**NODE, "job_id": "j1"}
DRILLED: Final = {"drill": "d1", "drill_page": "drill"}
"""Labels that an alert gains from `drill_on`."""
OLD: Final = {"job": "gpuvigil-agent", "instance": "n1:9839"}
NEW: Final = {"job": "gpuvigil-agent", "instance": "n1:9840"}
"""One agent at two addresses: after it moved, Prometheus may go on with the old one's last values for five minutes."""


def up(job: str, **labels: str) -> str:
    """The selector of a scrape target's own series."""
    inside = ", ".join(f'{name}="{value}"' for name, value in {"job": job, **labels}.items())
    return f"up{{{inside}}}"


def drill_on(
    scope: str,
    target: dict[str, str],
    values: str = "1x400",
    *,
    expires: int = 10**7,
    name: str = "d1",
    page: str = "drill",
) -> dict[str, str]:
    """A drill on `target` as the agent exports it: its entry, and when it expires.

    Args:
        scope: gpu, node, engine or job.
        target: labels of the series; those of the scope's key are taken.
        values: promtool values of the entry, each 1.
        expires: Unix time; promtool's clock begins at 0.
        name: of the drill.
        page: whom it rings, "drill" or "real".
    """
    where = {label: target[label] for label in ("cluster", "node")}
    what = {label: target[label] for label in KEY[scope] if label not in where}
    return {
        drill.ACTIVE(drill=name, drill_page=page, scope=scope, **what, **where): values,
        drill.EXPIRES(drill=name, **where): values.replace("1x", f"{expires}x"),
    }


def with_xid(up: str, code: str = "79", *, counts: str = "0x7 1x120", **at: str) -> dict[str, str]:
    """GPU 3 with one Xid that calls for RESTART_BM, at 2 minutes, as its agent exports it.

    Args:
        up: promtool values of its being there.
        code: of the Xid.
        counts: promtool values of the counter by action.
        at: further labels, for instance the agent's address.
    """
    since_seen = counts.replace("0x7", "_x8")  # the series of a code begins with the first such Xid
    return {
        gpu.UP(**GPU3, **at): up,
        gpu.XID_EVENTS(**GPU3, **at, action="RESTART_BM"): counts,
        gpu.XID_CODES(**GPU3, **at, xid=code, action="RESTART_BM"): since_seen,
        gpu.XID_LAST(**GPU3, **at, xid=code): since_seen.replace("1x", "120x"),
    }
