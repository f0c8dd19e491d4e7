"""Interfaces from a recorded /proc/net/dev."""

from collections.abc import Callable, Mapping
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


SNMP = """Ip: Forwarding DefaultTTL
Ip: 2 64
Tcp: RtoAlgorithm OutSegs RetransSegs
Tcp: 1 533979 944
"""


def test_recorded_values(tree: Callable[[Mapping[str, str]], Path]) -> None:
    root = tree(
        {
            "net/dev": DEV,
            "net/snmp": SNMP,
            "class/net/eth0/operstate": "up\n",
            "class/net/eth0/speed": "100000\n",
            "class/net/ib0/operstate": "down\n",
            "class/net/ib0/speed": "-1\n",
        }
    )
    samples = list(Network(NetworkSettings(proc=root, sys=root), Context("", "")).collect())
    found = {(s.metric.stem, s.labels): s.value for s in samples}
    assert {labels[0] for _, labels in found if labels} == {"eth0", "ib0"}
    assert found[m.NET_UP.stem, ("eth0",)] == 1
    assert found[m.NET_UP.stem, ("ib0",)] == 0
    assert found[m.NET_SPEED.stem, ("eth0",)] == 12.5e9
    assert (m.NET_SPEED.stem, ("ib0",)) not in found
    assert found[m.TCP_RETRANSMITTED.stem, ()] == 944
    assert found[m.TCP_SENT.stem, ()] == 533979
    assert found[m.NET_RECEIVED.stem, ("eth0",)] == 844474977, "no blank after the colon"
    assert found[m.NET_SENT.stem, ("eth0",)] == 2417753
    assert [
        found[m.NET_ERRORS.stem, ("eth0", way, kind)] for way in ("receive", "transmit") for kind in ("errors", "drops")
    ] == [1, 2, 3, 4]


def test_a_bad_pattern_is_named() -> None:
    with pytest.raises(ConfigError, match=r"config:1: ignore: is not a regular expression"):
        loads(NetworkSettings, "ignore: '('", environ={})
