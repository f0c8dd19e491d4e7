"""The kernel log through journalctl: a stand-in that speaks its JSON, and the real one on real journal files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.collector import Context, PartialFailure
from agent.base.drillfile import boot_id
from agent.collectors.xid import XidCollector, XidSettings
from agent.health import journal
from agent.health.journal import JournalError, JournalLog
from agent.health.kernel_log import choose
from agent.health.kmsg import KernelLog

BOOT = "0a8a5835-0d4d-490f-99cf-17a1ac84f32c"
XID = "Xid (PCI:0000:41:00): 79, pid=0, GPU has fallen off the bus."
IMPORTER = Path("/lib/systemd/systemd-journal-remote")
STAND_IN = r"""#!PYTHON -SE
import json, os, sys, time
place = os.path.dirname(os.path.abspath(__file__))
def told(name):
    try:
        return open(os.path.join(place, name)).read()
    except FileNotFoundError:
        return ""
follow = "--follow" in sys.argv
open(os.path.join(place, "calls"), "a").write(json.dumps([os.getpid(), follow]) + "\n")
if told("refuse"):
    sys.stderr.write(told("refuse"))
    sys.exit(1)
if told("hang") in ("all", "follow" if follow else "catch-up"):
    time.sleep(3600)
start = next((a.partition("=")[2] for a in sys.argv if a.startswith("--cursor=")), "")
if start and not start.startswith("s="):
    sys.exit("Failed to seek to cursor: Invalid argument")
file, shown, seeking = open(os.path.join(place, "journal")), 0, bool(start)
while True:
    line = file.readline()
    if line:
        seeking = seeking and json.loads(line)["__CURSOR"] != start
        if not seeking:
            shown += 1
            sys.stdout.write(line)
    elif not follow:
        if not shown:
            print("-- No entries --")
        break
    else:
        sys.stdout.flush()
        time.sleep(0.02)
"""


class Journal:
    """A stand-in for journald: entries appended to a file, and a journalctl that shows them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.program = folder / "journalctl"
        self.program.write_text(STAND_IN.replace("PYTHON", sys.executable))
        self.program.chmod(0o755)
        (folder / "journal").touch()
        self.logs: list[JournalLog] = []

    def tell(self, message: object, **fields: object) -> None:
        self.write([self.entry(message, **fields)])

    def entry(self, message: object, **fields: object) -> str:
        self.count += 1
        n = self.count
        return json.dumps(
            {
                "_TRANSPORT": "kernel",
                "PRIORITY": "3",
                "SYSLOG_FACILITY": "0",
                "SYSLOG_IDENTIFIER": "kernel",
                "MESSAGE": message,
                "__CURSOR": f"s=a3db;i={n:x};b=0a8a;m={n:x};t=660dba{n:x};x={n:x}",
                "__REALTIME_TIMESTAMP": str(1_795_346_527_000_000 + n),
                "__MONOTONIC_TIMESTAMP": str(n),
                "_SOURCE_MONOTONIC_TIMESTAMP": str(1000 * n),
                **fields,
            }
        )

    def write(self, lines: list[str]) -> None:
        with (self.folder / "journal").open("a") as file:
            file.write("".join(line + "\n" for line in lines))

    def log(self, cursor: dict[str, object] | None = None) -> JournalLog:
        self.logs.append(JournalLog(BOOT, cursor, [str(self.program)]))
        return self.logs[-1]

    def calls(self) -> list[tuple[int, bool]]:
        return [tuple(json.loads(line)) for line in (self.folder / "calls").read_text().splitlines()]


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "BACK_OFF_S", (0.05, 0.2))
    monkeypatch.setattr(journal, "PROOF_S", 0.05)
    made = Journal(tmp_path)
    yield made
    for log in made.logs:
        log.close()
        for child in log._stuck:  # killed, and on a busy machine not dead at once
            child.wait(30)


def until(log, count, most=100):
    """Read until `count` records are there; failures on the way are not."""
    found, end = [], time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < end, found
        found += log.read(most)
        time.sleep(0.01)
    return found


def failure(log, text):
    end = time.monotonic() + 30
    while True:
        try:
            log.read(100)
        except JournalError as error:
            if text in str(error):
                return str(error)
        assert time.monotonic() < end, f"never told: {text}"
        time.sleep(0.01)


def recovered(log, count):
    found, end = [], time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < end, found
        try:
            found += log.read(100)
        except JournalError:
            time.sleep(0.02)
    return found


def test_kernel_line_and_injected_line(kernel):
    kernel.tell(f"NVRM: {XID}")
    kernel.tell(XID, SYSLOG_FACILITY="1", SYSLOG_IDENTIFIER="NVRM")
    kernel.tell("hello", SYSLOG_FACILITY="1", SYSLOG_IDENTIFIER="tool", SYSLOG_PID="7", PRIORITY="6")
    driver, injected, tool = until(kernel.log(), 3)
    assert (driver.text, driver.user, driver.level) == (f"NVRM: {XID}", False, 3)
    assert driver.time == 1_795_346_527.000001
    assert (injected.text, injected.user) == (f"NVRM: {XID}", True)
    assert (tool.text, tool.user, tool.level) == ("tool[7]: hello", True, 6)


def test_bytes_lists_and_absent_fields(kernel):
    kernel.tell([*b"NVRM: caf\xe9"])
    kernel.tell(["first", "second"])
    kernel.tell(None)
    kernel.write(["-- Boot 0a8a --", "{half", json.dumps({"MESSAGE": "no cursor"})])
    kernel.tell("last")
    log = kernel.log()
    assert [record.text for record in until(log, 4)] == ["NVRM: caf\N{REPLACEMENT CHARACTER}", "first", "", "last"]
    assert (log.records, log.lost) == (4, 2)


def test_records_missed_by_journald_are_counted(kernel):
    kernel.tell("one")
    kernel.tell("Missed 1234 kernel messages", MESSAGE_ID=journal.MISSED, _TRANSPORT="driver")
    kernel.tell("two")
    log = kernel.log()
    assert [record.text for record in until(log, 2)] == ["one", "two"]
    assert log.lost == 1234


def test_news_come_while_following_from_one_child(kernel):
    kernel.tell("one")
    log = kernel.log()
    until(log, 1)
    for n in range(5):
        kernel.tell(f"news {n}")
        assert [record.text for record in until(log, 1)] == [f"news {n}"]
    assert [follow for _, follow in kernel.calls()] == [False, True]


def test_nothing_lost_and_nothing_twice_over_a_restart(kernel):
    kernel.tell("one")
    kernel.tell("two")
    log = kernel.log()
    until(log, 2)
    state = json.loads(json.dumps(log.state()))
    log.close()
    kernel.tell("three")
    again = kernel.log(state)
    assert [record.text for record in until(again, 1)] == ["three"]
    assert again.read(100) == []


def test_another_boot_begins_at_its_oldest_record(kernel):
    kernel.tell("one")
    log = kernel.log({"boot_id": "another", "journal": "s=1;i=1;b=2;m=3;t=4;x=5", "usec": 10**9})
    assert len(until(log, 1)) == 1


def test_a_record_that_was_moved_to_disk_is_the_same(kernel):
    kernel.tell("one")
    log = kernel.log()
    until(log, 1)
    state = log.state()
    moved = str(state["journal"]).replace("s=a3db;i=1", "s=ffff;i=99")
    assert moved != state["journal"]
    line = json.loads((kernel.folder / "journal").read_text())
    (kernel.folder / "journal").write_text(json.dumps({**line, "__CURSOR": moved}) + "\n")
    kernel.tell("two")
    again = kernel.log({**state, "journal": moved})
    assert [record.text for record in until(again, 1)] == ["two"]


def test_a_damaged_cursor_falls_back_to_the_time_of_the_last_record(kernel):
    kernel.tell("one")
    kernel.tell("two")
    log = kernel.log({"boot_id": BOOT, "journal": "rubbish", "usec": 1000})
    assert [record.text for record in until(log, 1)] == ["two"]


def test_from_the_device_to_the_journal_and_back(kernel):
    """The drop-in for /dev/kmsg taken away or added within one boot: each record counts once."""
    for text in ("one", "two", "three"):
        kernel.tell(text)
    log = kernel.log({"boot_id": BOOT, "seq": 2, "inode": 0, "offset": 0, "usec": 2000})
    assert [record.text for record in until(log, 1)] == ["three"]
    device = KernelLog("/dev/kmsg", BOOT, log.state())
    assert device.cursor.usec == 3000
    assert device.cursor.seq == -1


def test_a_dead_follower_is_named_and_replaced(kernel):
    kernel.tell("one")
    log = kernel.log()
    until(log, 1)
    end = time.monotonic() + 30
    while not kernel.calls()[-1][1]:
        log.read(100)
        assert time.monotonic() < end
    os.kill(kernel.calls()[-1][0], signal.SIGKILL)
    assert "ended with -9" in failure(log, "ended")
    kernel.tell("two")
    assert [record.text for record in recovered(log, 1)] == ["two"]


def test_a_follower_that_hangs_gives_way(kernel, monkeypatch):
    monkeypatch.setattr(journal, "QUIET_S", 0.3)
    kernel.tell("one")
    (kernel.folder / "hang").write_text("follow")
    log = kernel.log()
    until(log, 1)
    kernel.tell("two")
    assert [record.text for record in until(log, 1)] == ["two"]


def test_a_run_that_hangs_is_named_and_ended(kernel, monkeypatch):
    monkeypatch.setattr(journal, "DEADLINE_S", 3.0)  # longer than a program takes to start on a busy machine
    kernel.tell("one")
    (kernel.folder / "hang").write_text("all")
    log = kernel.log()
    failure(log, "hangs")
    with pytest.raises(ProcessLookupError):
        os.kill(kernel.calls()[0][0], 0)
    (kernel.folder / "hang").unlink()
    assert len(recovered(log, 1)) == 1


def test_no_right_to_read_is_told_in_journalctls_words(kernel):
    (kernel.folder / "refuse").write_text("No journal files were opened due to insufficient permissions.\n")
    log = kernel.log()
    assert "ended with 1: No journal files were opened" in failure(log, "permissions")
    calls = len(kernel.calls())
    for _ in range(20):
        with pytest.raises(JournalError):
            log.read(100)
    assert len(kernel.calls()) <= calls + 1, "no back-off"


def test_a_journal_without_kernel_messages_is_a_failure_and_no_zero(kernel):
    failure(kernel.log(), "no kernel message of this boot")


def test_no_journalctl(tmp_path):
    with pytest.raises(JournalError, match="is not here"):
        JournalLog(BOOT, None, [str(tmp_path / "journalctl")]).read(1)


def test_a_flood_is_read_in_pieces(kernel):
    kernel.write([kernel.entry(f"usb 1-1: device descriptor read/64, error -71 ({n})") for n in range(100_000)])
    log = kernel.log()
    pieces, end = [], time.monotonic() + 120
    while sum(pieces) < 100_000:
        assert time.monotonic() < end, sum(pieces)
        pieces.append(len(log.read(20_000)))
        assert len(log._rest) <= journal.LINE_MAX
    assert sum(pieces) == log.records == 100_000
    assert max(pieces) < 21_000
    assert log.lost == 0


def test_an_endless_line_is_dropped(kernel):
    kernel.write(["{" + "x" * 3_000_000])
    kernel.tell("good")
    log = kernel.log()
    assert [record.text for record in until(log, 1)] == ["good"]
    assert log.lost > 0


@given(st.binary(max_size=300))
def test_any_line_is_survived(line):
    JournalLog(BOOT)._record(line)
    JournalLog(BOOT)._record(b"{" + line)


FIELDS = ["__CURSOR", "__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP", *journal.FIELDS.split(",")]
VALUES = st.none() | st.text() | st.integers() | st.lists(st.integers() | st.text() | st.none())


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, VALUES)))
def test_any_entry_is_survived(entry):
    JournalLog(BOOT)._record(json.dumps(entry).encode())
    JournalLog(BOOT)._record(
        json.dumps({"__MONOTONIC_TIMESTAMP": "1", **entry, "__CURSOR": "s=1", "__REALTIME_TIMESTAMP": "1"}).encode()
    )


# which source


def test_choice(tmp_path, monkeypatch):
    here, missing = tmp_path / "kmsg", tmp_path / "nothing"
    here.touch()
    (tmp_path / "journalctl").write_text("#!/bin/sh\n")
    (tmp_path / "journalctl").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert choose("auto", here) == ("kmsg", "")
    assert choose("auto", missing) == ("journal", f"{missing}: No such file or directory")
    assert choose("journal", here) == ("journal", "")
    assert choose("kmsg", missing) == ("kmsg", "")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert choose("auto", missing) == ("kmsg", f"{missing}: No such file or directory")


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="auto"):
        XidSettings.model_validate({"source": "dmesg"})


def collect(collector):
    samples, failed = {}, None
    try:
        for sample in collector.collect():
            samples[(sample.metric.stem, *sample.labels)] = sample.value
    except PartialFailure as failure:
        failed = failure
    return samples, failed


def test_the_collector_counts_by_the_journal_and_not_twice(kernel, monkeypatch):
    monkeypatch.setenv("PATH", f"{kernel.folder}:{os.environ['PATH']}")
    monkeypatch.setattr("agent.collectors.xid.PATIENCE_S", 0.0)
    context = Context(str(kernel.folder / "state"), str(kernel.folder))
    settings = XidSettings(kmsg=kernel.folder / "nothing")
    kernel.tell(f"NVRM: {XID}")
    kernel.tell(XID.replace("41:00", "42:00"), SYSLOG_FACILITY="1", SYSLOG_IDENTIFIER="NVRM")
    for _life in range(2):
        collector = XidCollector(settings, context)
        end = time.monotonic() + 30
        codes = []
        while len(codes) < 2:
            assert time.monotonic() < end
            samples, failed = collect(collector)
            codes = [(key[3], value) for key, value in samples.items() if key[0] == "gpuvigil_gpu_xid_codes"]
            time.sleep(0.02)
        collector.close()
        assert failed is None
        assert samples["gpuvigil_kernel_log", "journal"] == 1
        assert sorted(codes) == [("", 1), ("true", 1)]


def test_the_collector_names_what_is_wrong_and_the_fix(kernel, monkeypatch):
    monkeypatch.setenv("PATH", f"{kernel.folder}:{os.environ['PATH']}")
    monkeypatch.setattr("agent.collectors.xid.PATIENCE_S", 0.0)
    (kernel.folder / "refuse").write_text("No journal files were opened due to insufficient permissions.\n")
    collector = XidCollector(XidSettings(source="journal"), Context(str(kernel.folder / "state"), str(kernel.folder)))
    end = time.monotonic() + 30
    failed = None
    while failed is None:
        assert time.monotonic() < end
        _, failed = collect(collector)
    collector.close()
    assert failed.reason == "journal"
    assert "insufficient permissions" in str(failed)
    assert "systemd-journal" in str(failed)


# the real journalctl, on journal files written by systemd's own importer


@pytest.fixture
def real(tmp_path):
    if not shutil.which("journalctl") or not IMPORTER.exists():
        reason = "journalctl and systemd-journal-remote write and read real journal files (apt: systemd-journal-remote)"
        pytest.skip(reason)
    folder = tmp_path / "journal"
    folder.mkdir()
    boot = boot_id("/proc")

    def add(name, *messages, facility=0, identifier="kernel", first=1):
        """One journal file with these messages."""
        blocks = [
            f"__REALTIME_TIMESTAMP={1_795_346_527_000_000 + n}\n__MONOTONIC_TIMESTAMP={n}\n"
            f"_BOOT_ID={boot.replace('-', '')}\n_TRANSPORT=kernel\n_SOURCE_MONOTONIC_TIMESTAMP={n}\nPRIORITY=3\n"
            f"SYSLOG_FACILITY={facility}\nSYSLOG_IDENTIFIER={identifier}\n".encode()
            + b"MESSAGE\n" + len(message).to_bytes(8, "little") + message + b"\n"
            for n, message in enumerate(messages, first)
        ]  # fmt: skip
        subprocess.run(
            [IMPORTER, "-o", folder / name, "-"], input=b"\n".join(blocks) + b"\n", check=True, capture_output=True
        )

    logs = []

    def log(cursor=None):
        logs.append(JournalLog(boot, cursor, ["journalctl", "--directory", str(folder)]))
        return logs[-1]

    yield add, log
    for made in logs:
        made.close()


def test_real_journal(real):
    add, log = real
    add("system.journal", f"NVRM: {XID}".encode(), b"NVRM: \xff\x01 byte", b"two\nlines", b"y" * 6000)
    first = log()
    driver, odd, two, long = until(first, 4)
    assert (driver.text, driver.user, driver.level) == (f"NVRM: {XID}", False, 3)
    assert odd.text == "NVRM: \N{REPLACEMENT CHARACTER}\x01 byte"
    assert two.text == "two\nlines"
    assert long.text == "y" * 6000
    add("user.journal", XID.encode(), facility=1, identifier="NVRM", first=100)
    (injected,) = until(first, 1)
    assert (injected.text, injected.user) == (f"NVRM: {XID}", True)
    first.close()
    add("later.journal", b"later", first=200)
    again = log(first.state())
    assert [record.text for record in until(again, 1)] == ["later"]
    assert again.read(100) == []


def test_real_journal_of_nothing(real):
    _, log = real
    with pytest.raises(JournalError):
        until(log(), 1)
