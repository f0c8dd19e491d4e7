"""Kernel log lines: real ones from public projects, the driver's forms, and lines that must not match."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.health import nvlink5
from agent.health.ledger import judge
from agent.health.xid_catalogue import XIDS, look_up
from agent.health.xid_lines import Link, SxidLine, UuidLine, XidLine, continues, parse

DATA = Path(__file__).parents[2] / "data" / "kernel"
ROWS = [json.loads(line) for line in (DATA / "xid_lines.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['kind']}-{row['code']}-{row['repo']}-{row['lineno']}")
def test_collected_lines_give_their_code(row: dict[str, object]) -> None:
    line, code = str(row["line"]), row["code"]
    said = parse(line)
    if ": SXid (" in line:
        assert isinstance(said, SxidLine)
        assert said.sxid == code
        assert said.switch.startswith("nvidia-nvswitch")
    else:
        assert isinstance(said, XidLine)
        assert said.xid == code
        assert said.pci.count(":") == 2


def test_process_and_text() -> None:
    line = parse(
        "NVRM: Xid (PCI:0000:cb:00): 109, pid=1797828, name=pt_main_thread, Ch 00000008, errorString CTX SWITCH TIMEOUT"
    )
    assert line == XidLine("0000:cb:00", 109, "Ch 00000008, errorString CTX SWITCH TIMEOUT", 1797828, "pt_main_thread")


def test_unknown_process_is_none() -> None:
    line = parse("NVRM: Xid (PCI:0000:05:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
    assert line == XidLine("0000:05:00", 79, "GPU has fallen off the bus.")


@pytest.mark.parametrize(
    ("line", "gi", "ci"),
    [
        ("NVRM: Xid (PCI:0000:41:00 GPU-I:7): 31, pid=5, name=a, MMU Fault", 7, None),
        ("NVRM: Xid (PCI:0000:41:00 GPU-I:07 GPU-CI:01): 31, MMU Fault", 7, 1),
        ("NVRM: NVRM: Xid (PCI:0000:41:00): 31, MMU Fault", None, None),
        ("Xid (PCI:0000:41:00): 31, MMU Fault", None, None),
        ("NVRM: Xid (41:00): 31, MMU Fault", None, None),
        ("NVRM: Xid (PCI:00000000:41:00.0): 31, MMU Fault", None, None),
    ],
)
def test_forms_of_the_place(line: str, gi: int | None, ci: int | None) -> None:
    said = parse(line)
    assert isinstance(said, XidLine)
    assert (said.pci, said.xid, said.gi, said.ci) == ("0000:41:00", 31, gi, ci)


@pytest.mark.parametrize(
    "line",
    [
        "NVRM: Xid (invalid): some error",
        "NVRM: Xid error: xyz, invalid data",
        "NVRM: The NVIDIA GPU invalid-bdf.0",
        "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:9b:00 (printing 1 of every 30). The GPU likely",
        "NVRM: GPU Board Serial Number: 1650124014249",
        "Xid (PCI:0000:05:00): , nothing",
        "",
    ],
)
def test_other_lines_say_nothing(line: str) -> None:
    assert parse(line) is None


def test_a_switch_is_not_a_gpu() -> None:
    said = parse("nvidia-nvswitch3: SXid (PCI:0000:05:00.0): 12028, Non-fatal, Link 32 egress non-posted PRIV error")
    assert said == SxidLine(
        "nvidia-nvswitch3", "0000:05:00", 12028, "non-fatal", "Link 32 egress non-posted PRIV error"
    )


def test_fallen_off_without_an_xid() -> None:
    one = parse("NVRM: GPU 0000:18:00.0: GPU has fallen off the bus.")
    parts = [
        "NVRM: The NVIDIA GPU 0000:18:00.0",
        "NVRM: (PCI ID: 10de:2901) installed in this system has",
        "NVRM: fallen off the bus and is not responding to commands.",
    ]
    assert continues(parts[0])
    assert not continues(parts[1])
    for said in (one, parse(" ".join(parts)), parse("\n".join(parts))):
        assert isinstance(said, XidLine)
        assert (said.pci, said.xid) == ("0000:18:00", 79)


def test_uuid_line() -> None:
    said = parse("NVRM: GPU at PCI:0000:9b:00: GPU-509665ad-b600-ac93-3616-d754b23d636d")
    assert said == UuidLine("0000:9b:00", "GPU-509665ad-b600-ac93-3616-d754b23d636d")


def test_recovery_action_is_the_action() -> None:
    said = parse(
        "NVRM: Xid (PCI:0009:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x4 (Drain and Reset)"
    )
    assert isinstance(said, XidLine)
    assert judge(said) == ("RESET_GPU", "154 (drain and reset)", False)


def test_cause_of_45() -> None:
    said = parse("NVRM: Xid (PCI:0009:01:00): 45, pid=1, name=a, Ch 1 caused by previous Xid 94")
    assert isinstance(said, XidLine)
    assert said.cause == 94


def test_link_words() -> None:
    said = parse("NVRM: Xid (PCI:0009:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 01 (0x021425c6 0x00000000)")
    assert isinstance(said, XidLine)
    assert said.link == Link("NETIR_LINK_EVT", "fatal", 1, 0x021425C6, 0)
    assert said.link.sub_code == 33
    assert judge(said) == ("RESET_GPU", "149.33 (status 0x00000000)", True)
    assert nvlink5.decode(149, said.link).peer
    assert Link("NETIR_LINK_EVT", "fatal", 8, 0x004505C6, 0).sub_code == 4


@pytest.mark.parametrize(
    ("xid", "unit", "severity", "status", "action", "fatal"),
    [
        (144, "SAW_MVB", "fatal", 0x2, "RESET_GPU", True),
        (144, "SAW_MVB", "nonfatal", 0x4, "IGNORE", False),
        (145, "RLW_REMAP", "nonfatal", 0x8, "WORKFLOW_NVLINK", False),
        (146, "TLW_RX/TLW_RX_PIPE1", "fatal", 0x4, "RESET_GPU", True),
        (149, "NETIR_BER_EVENT", "nonfatal", 1, "IGNORE", False),
        (149, "NETIR/NETIR_INT", "fatal", 0, "RESET_GPU", True),
        (150, "MSE_WATCHDOG", "fatal", 0, "RESET_GPU", True),
        (144, "SAW_EGR", "nonfatal", 1, "WORKFLOW_NVLINK", False),
        (144, "SAW_EGR", "fatal", 1, "RESET_GPU", True),
    ],
)
def test_nvlink5(xid: int, unit: str, severity: str, status: int, action: str, fatal: bool) -> None:
    decoded = nvlink5.decode(xid, Link(unit, severity, 0, 0, status))
    assert (decoded.action, decoded.fatal) == (action, fatal)


def test_catalogue_is_whole() -> None:
    from agent.base.hardfaults import XID_ACTIONS

    assert set(XIDS) == set(range(1, 174))
    assert {entry.action for entry in XIDS.values()} <= set(XID_ACTIONS)
    assert look_up(79) == (79, "GPU has fallen off the bus", "RESTART_BM", "fatal")
    assert look_up(4711).action == "CONTACT_SUPPORT"


@given(st.text(max_size=300))
def test_any_text_is_survived(text: str) -> None:
    parse(text)
    parse("NVRM: Xid (PCI:0000:05:00): 149, " + text)


@given(
    st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from(range(144, 151)),
    st.text("ABZ_/", max_size=9),
)
def test_any_nvlink_word_is_decoded(word: int, status: int, xid: int, unit: str) -> None:
    decoded = nvlink5.decode(xid, Link(unit, "fatal", -1, word, status))
    assert decoded.action in ("IGNORE", "RESET_GPU", "WORKFLOW_NVLINK")
