"""Interfaces from a recorded /proc/net/dev."""

from pathlib import Path

import pytest

from agent.base.catalogue import node as m
from agent.base.collector import Context
from agent.base.config import loads
from agent.base.errors import ConfigError
from agent.collectors.network import Network, NetworkSettings

DEV = """Inter-|   Receive    |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier
    lo:   12326      88    0    0    0     0          0         0    12326      88    0    0    0     0    0 0
  eth0:844474977 39899    1    2    0     0          0         0  2417753   25564    3    4    0     0     0 0
  ib0:     5      88    0    0    0     0          0         0    6      88    0    0    0     0       0   0
veth12: 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9
"""


def test_recorded_values(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "dev").write_text(DEV)
    samples = list(Network(NetworkSettings(proc=tmp_path), Context("", "")).collect())
    found = {(s.metric.stem, s.labels): s.value for s in samples}
    assert {labels[0] for _, labels in found} == {"eth0", "ib0"}
    assert found[m.NET_RECEIVED.stem, ("eth0",)] == 844474977, "no blank after the colon"
    assert found[m.NET_SENT.stem, ("eth0",)] == 2417753
    assert [
        found[m.NET_ERRORS.stem, ("eth0", way, kind)] for way in ("receive", "transmit") for kind in ("errors", "drops")
    ] == [1, 2, 3, 4]


def test_a_bad_pattern_is_named() -> None:
    with pytest.raises(ConfigError, match=r"config:1: ignore: is not a regular expression"):
        loads(NetworkSettings, "ignore: '('", environ={})
