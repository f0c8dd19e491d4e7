"""The PCI bus in sysfs: errors by severity, and what each end of a link allows."""

import pytest

from agent.gpu.bus import Link, aer_errors, link_limits
from agent.gpu.readings import throttle_fields

AER = """RxErr 3
BadTLP 0
Rollover 1
TOTAL_ERR_COR 4
"""


@pytest.fixture
def sys(tmp_path):
    """A GPU of generation 5 in a slot of generation 4 with eight lanes."""
    port = tmp_path / "devices/pci0000:15/0000:15:01.0"
    card = port / "0000:1b:00.0"
    card.mkdir(parents=True)
    (port / "max_link_speed").write_text("16.0 GT/s PCIe\n")
    (port / "max_link_width").write_text("8\n")
    (card / "max_link_speed").write_text("32.0 GT/s PCIe\n")
    (card / "max_link_width").write_text("16\n")
    (card / "aer_dev_correctable").write_text(AER)
    (card / "aer_dev_nonfatal").write_text("Undefined 0\nTOTAL_ERR_NONFATAL 2\n")
    devices = tmp_path / "bus/pci/devices"
    devices.mkdir(parents=True)
    (devices / card.name).symlink_to(card)
    return tmp_path


def test_errors_by_severity(sys):
    assert aer_errors(sys, "0000:1b:00") == {"correctable": 4, "nonfatal": 2}  # no file for fatal: nothing said


@pytest.mark.parametrize("content", ["", "TOTAL_ERR_COR", "TOTAL_ERR_COR x\n", "TOTAL_ERR_COR -1\n", "\xff\xfe 7\n"])
def test_a_damaged_file_says_nothing(sys, content):
    (sys / "bus/pci/devices/0000:1b:00.0/aer_dev_correctable").write_text(content, encoding="latin-1")
    assert aer_errors(sys, "0000:1b:00") == {"nonfatal": 2}


def test_both_ends_of_the_link(sys):
    assert link_limits(sys, "0000:1b:00") == {"card": Link(5, 16), "slot": Link(4, 8)}


def test_what_is_not_told_is_left_out(sys):
    card = sys / "bus/pci/devices/0000:1b:00.0"
    (card / "max_link_speed").write_text("Unknown\n")
    (card / "max_link_width").write_text("255\n")  # the kernel's "unknown"
    assert link_limits(sys, "0000:1b:00") == {"slot": Link(4, 8)}


def test_a_gpu_that_is_on_no_bus(tmp_path):
    assert aer_errors(tmp_path, "0000:1b:00") == {}
    assert link_limits(tmp_path, "0000:1b:00") == {}


@pytest.mark.parametrize(
    ("driver", "first"),
    [
        ((535, 183), None),
        ((570, 172), None),
        ((575, 57), 251),
        ((580, 65), 251),
        ((580, 76), None),
        ((580, 82), 269),
        ((580, 95), 269),
        ((615, 71), 269),
        ((0, 0), None),
    ],
)
def test_throttle_ids_of_a_driver(driver, first):
    ids = [field.id for field in throttle_fields(driver)]
    assert ids == ([] if first is None else [first, first + 1, first + 2])
