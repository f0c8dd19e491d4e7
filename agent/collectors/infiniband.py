"""InfiniBand and RoCE ports: state, rate, traffic, errors, congestion."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from agent.base.catalogue import Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, register
from agent.node import sysfs
from agent.node.sysfs import SysSettings

WORD = 4
"""port_rcv_data and port_xmit_data count words of four bytes (InfiniBand specification, PortCounters)."""
ACTIVE = 4
ERRORS = (
    "counters/symbol_error", "counters/link_downed", "counters/link_error_recovery", "counters/port_rcv_errors",
    "counters/port_rcv_remote_physical_errors", "counters/port_rcv_switch_relay_errors",
    "counters/port_xmit_discards", "counters/port_xmit_constraint_errors", "counters/port_rcv_constraint_errors",
    "counters/local_link_integrity_errors", "counters/excessive_buffer_overrun_errors", "counters/VL15_dropped",
    "hw_counters/out_of_sequence", "hw_counters/packet_seq_err", "hw_counters/local_ack_timeout_err",
    "hw_counters/out_of_buffer", "hw_counters/rnr_nak_retry_err", "hw_counters/req_cqe_error",
    "hw_counters/resp_cqe_error", "hw_counters/req_remote_access_errors", "hw_counters/roce_adp_retrans_to",
)  # fmt: skip
CONGESTION = (
    "counters/port_xmit_wait", "hw_counters/np_cnp_sent", "hw_counters/np_ecn_marked_roce_packets",
    "hw_counters/rp_cnp_handled", "hw_counters/rp_cnp_ignored", "hw_counters/roce_adp_retrans",
    "hw_counters/roce_slow_restart",
)  # fmt: skip
TOPS = {
    name: (1 << bits) - 1
    for bits, names in {
        4: "local_link_integrity_errors excessive_buffer_overrun_errors",
        8: "link_downed link_error_recovery port_xmit_constraint_errors port_rcv_constraint_errors",
        16: "symbol_error port_rcv_errors port_rcv_remote_physical_errors port_rcv_switch_relay_errors"
        " port_xmit_discards VL15_dropped",
        32: "port_xmit_wait port_rcv_data port_xmit_data",
    }.items()
    for name in names.split()
}
"""Where counters stop until they are reset (InfiniBand specification, PortCounters; the kernel's core/sysfs.c)."""
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*Gb/sec")


@register("infiniband", SysSettings)
class Infiniband:
    """InfiniBand and RoCE ports."""

    def __init__(self, settings: SysSettings, context: Context) -> None:
        self._root = settings.sys / "class" / "infiniband"

    def collect(self) -> Iterable[Sample]:
        for device in sysfs.entries(self._root):
            for port in sysfs.entries(device / "ports"):
                yield from self._port(device, port, (device.name, port.name))

    def close(self) -> None: ...

    def _port(self, device: Path, port: Path, labels: tuple[str, str]) -> Iterator[Sample]:
        state = sysfs.text(port / "state")  # "4: ACTIVE"
        if state is None:
            return
        code, _, word = state.partition(":")
        rate = sysfs.text(port / "rate") or ""  # "400 Gb/sec (4X NDR)"
        yield m.IB_UP.sample(float(code.strip() == str(ACTIVE)), *labels)
        yield m.IB_INFO.sample(
            1,
            *labels,
            word.strip(),
            (sysfs.text(port / "phys_state") or "").rpartition(":")[2].strip(),
            sysfs.text(port / "link_layer") or "",
            rate,
            sysfs.text(device / "fw_ver") or "",
            ",".join(entry.name for entry in sysfs.entries(device / "device" / "net")),
        )
        if found := _RATE.match(rate):
            yield m.IB_RATE.sample(float(found[1]) * 1e9 / 8, *labels)
        for metric, name in ((m.IB_RECEIVED, "port_rcv_data"), (m.IB_SENT, "port_xmit_data")):
            words = sysfs.number(port / "counters_ext" / f"{name}_64")  # kernels before 4.5 kept the wide ones apart
            if words is None:
                words = sysfs.number(port / "counters" / name)
            if words == TOPS[name]:
                yield m.IB_SATURATED.sample(1, *labels, name)
            elif words is not None:
                yield metric.sample(words * WORD, *labels)
        for metric, names in ((m.IB_ERRORS, ERRORS), (m.IB_CONGESTION, CONGESTION)):
            for path in names:
                name, count = path.rpartition("/")[2], sysfs.number(port / path)
                if count is not None and count == TOPS.get(name):
                    yield m.IB_SATURATED.sample(1, *labels, name)
                elif count is not None:
                    yield metric.sample(count, *labels, name)
