"""Evidence for annotations, looked up when an alert fires: as a label it would split the alert."""

from __future__ import annotations

from agent.base.catalogue import gpu
from alerts.rules.promql import number
from alerts.rules.thresholds import Thresholds


def recent_xids(t: Thresholds) -> str:
    """A template: the Xids of the alert's GPU in the last two windows, or nothing."""
    return (
        '{{ with query (printf "max by (xid) ('
        + gpu.XID_LAST.name
        + f"{{uuid='%s'}}) > time() - {number(2 * t.xid_window)}"
        + '" $labels.uuid) }} Recent Xid:{{ range . }} {{ .Labels.xid }}{{ end }}.{{ end }}'
    )
