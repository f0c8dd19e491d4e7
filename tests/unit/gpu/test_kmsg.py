"""The kernel log as a regular file of records and as the real device where it may be read."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.health.kmsg import KernelLog, parse

needs_kmsg = pytest.mark.skipif(
    not os.access("/dev/kmsg", os.R_OK), reason="/dev/kmsg is not there or not readable for this user"
)
DATA = Path(__file__).parents[2] / "data" / "kernel" / "kmsg.1.log"


def stamp(age: float = 0.0) -> int:
    return int((time.clock_gettime(time.CLOCK_MONOTONIC) - age) * 1e6)


def append(path: Path, *lines: str) -> None:
    with path.open("a") as file:
        file.writelines(line + "\n" for line in lines)


def test_record() -> None:
    record = parse("11,77,2500000,-;NVRM: a\\x09b\\x0ac\n SUBSYSTEM=virtio", 1000.0)
    assert record == (77, 1002.5, 2.5, True, 3, "NVRM: a\tb\nc")
    assert parse("4,77,2500000,-,caller=T1;x", 0.0) == (77, 2.5, 2.5, False, 4, "x")
    assert parse("no record", 0.0) is None


@given(st.text(max_size=80))
def test_any_record_is_survived(text: str) -> None:
    parse(text, 0.0)
    parse("4,1,2,-;" + text, 0.0)


def test_real_records() -> None:
    lines = DATA.read_text().splitlines()
    records = [parse(line, 0.0) for line in lines]
    assert all(record is not None for record in records if record)
    assert sum(record is None for record in records) < len(lines) / 10


def test_file_is_read_on_from_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    append(path, f"4,1,{stamp()},-;one", f"4,2,{stamp()},-;two")
    log = KernelLog(path, "boot")
    assert [record.text for record in log.read(100)] == ["one", "two"]
    assert log.read(100) == []
    state = log.state()
    log.close()
    append(path, f"4,3,{stamp()},-;three")
    again = KernelLog(path, "boot", state)
    assert [record.text for record in again.read(100)] == ["three"]
    again.close()


def test_a_line_being_written_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_text(f"4,1,{stamp()},-;half")
    log = KernelLog(path, "boot")
    assert log.read(100) == []
    append(path, " and half")
    assert [record.text for record in log.read(100)] == ["half and half"]
    log.close()


def test_a_restart_in_the_middle_of_a_line_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_text(f"4,1,{stamp()},-;one\n4,2,{stamp()},-;tw")
    log = KernelLog(path, "boot")
    assert [record.text for record in log.read(100)] == ["one"]
    state = log.state()
    log.close()
    append(path, "o")
    again = KernelLog(path, "boot", state)
    assert [record.text for record in again.read(100)] == ["two"]
    again.close()


@pytest.mark.parametrize("replace", [True, False])
def test_a_file_begun_afresh_is_read_from_its_beginning(tmp_path: Path, replace: bool) -> None:
    path = tmp_path / "kmsg"
    append(path, f"4,1,{stamp()},-;a long first line")
    log = KernelLog(path, "boot")
    log.read(100)
    if replace:
        (tmp_path / "new").write_text(f"4,1,{stamp()},-;a line of the new file\n")
        os.replace(tmp_path / "new", path)
    else:
        path.write_text(f"4,1,{stamp()},-;short\n")
    assert len(log.read(100)) == 1
    log.close()


def test_times_are_unix_seconds_and_implausible_ones_are_now(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    append(path, f"4,1,{stamp(age=60)},-;a minute ago", f"4,2,{-7 * 86_400_000_000},-;since another boot")
    log = KernelLog(path, "boot")
    old, odd = log.read(100)
    assert old.time == pytest.approx(time.time() - 60, abs=5)
    assert odd.time == pytest.approx(time.time(), abs=5)
    log.close()


def test_damaged_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    append(path, "rubbish", f"4,1,{stamp()},-;good", " KEY=value")
    log = KernelLog(path, "boot")
    assert [record.text for record in log.read(100)] == ["good"]
    assert (log.records, log.lost) == (1, 1)
    log.close()


def test_no_log_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        KernelLog(tmp_path / "nothing", "boot").read(1)


@needs_kmsg
def test_the_real_log_is_read_once() -> None:
    log = KernelLog("/dev/kmsg", "boot")
    try:
        first = log.read(100_000)
    except OSError as error:
        pytest.skip(f"/dev/kmsg: {error}")
    state = log.state()
    log.close()
    again = KernelLog("/dev/kmsg", "boot", state)
    seen = {record.seq for record in first}
    assert not seen & {record.seq for record in again.read(100_000)}
    again.close()


@needs_kmsg
def test_the_real_log_is_read_on_from_where_the_journals_reader_stopped() -> None:
    log = KernelLog("/dev/kmsg", "boot")
    try:
        whole = log.read(100_000)
    except OSError as error:
        pytest.skip(f"/dev/kmsg: {error}")
    usec = log.state()["usec"]
    log.close()
    assert whole
    again = KernelLog("/dev/kmsg", "boot", {"boot_id": "boot", "journal": "s=1;i=1", "usec": usec})
    assert not {record.seq for record in whole} & {record.seq for record in again.read(100_000)}
    again.close()
    assert again.lost == 0


def test_a_record_is_as_young_as_the_last_look_that_did_not_see_it() -> None:
    theirs, ours = os.pipe()
    os.set_blocking(theirs, False)
    log = KernelLog("/dev/kmsg", "boot")
    log._fd = theirs  # a device that gives one record at a time, and whose clock is a minute behind
    os.write(ours, f"4,1,{stamp(age=60)},-;from before the first look".encode())
    (old,) = log.read(9)
    assert old.uptime == pytest.approx(time.monotonic() - 60, abs=5)
    looked = time.monotonic()
    assert log.read(9) == []
    os.write(ours, f"4,2,{stamp(age=60)},-;since".encode())
    (new,) = log.read(9)
    assert looked <= new.uptime <= time.monotonic()
    assert new.time == pytest.approx(time.time() - (time.monotonic() - new.uptime), abs=1)
    log.close()
    os.close(ours)
