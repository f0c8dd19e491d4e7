"""One line a record whatever it holds; systemd is spoken to and nobody else."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import shlex
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.log import Formatter, OnChange, setup
from agent.base.notify import Notifier


def record(message, level=logging.WARNING, **fields):
    made = logging.makeLogRecord({"msg": message, "levelno": level, "levelname": logging.getLevelName(level)})
    vars(made).update(fields)
    return made


@given(st.text(), st.text())
def test_a_record_is_one_line_and_can_be_read_back(message, value):
    line = Formatter("logfmt", journald=False).format(record(message, collector=value))
    assert len(line.splitlines()) <= 1 or "\n" not in line
    document = json.loads(Formatter("json", journald=False).format(record(message, collector=value)))
    assert (document["msg"], document["collector"], document["level"]) == (message, value, "warning")


def test_logfmt_for_people():
    line = Formatter("logfmt", journald=False).format(record("it failed", collector="gpu", error='say "x"'))
    assert line.startswith("ts=20")
    assert shlex.split(line)[1:] == ["level=warning", "msg=it failed", "collector=gpu", 'error=say "x"']


def test_under_journald_the_priority_stands_first_and_no_time():
    line = Formatter("logfmt", journald=True).format(record("x", logging.ERROR))
    assert line == "<3>level=error msg=x"


def test_an_exception_is_one_field():
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        made = record("failed", exc_info=(ValueError, error, None))
    assert "\n" not in Formatter("logfmt", journald=False).format(made)
    assert json.loads(Formatter("json", journald=False).format(made))["error"] == "ValueError: two\nlines"


def test_a_line_that_the_disk_does_not_take_costs_no_stack_trace(monkeypatch):
    class FullDisk(io.StringIO):
        full = True

        def flush(self):
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")

    disk, root = FullDisk(), logging.getLogger()
    monkeypatch.setattr(sys, "stderr", disk)
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    setup()
    logging.getLogger("test.full").warning("one")
    disk.full = False
    logging.getLogger("test.full").warning("two")
    assert [line.rpartition(" ")[2] for line in disk.getvalue().splitlines()] == ["msg=one", "msg=two"]


def test_a_failure_that_repeats_is_written_on_change_and_now_and_then(caplog):
    now = [0.0]
    report = OnChange(logging.getLogger("test.onchange"), every=600, clock=lambda: now[0])
    with caplog.at_level(logging.INFO):
        report.good("fine")
        for _ in range(100):
            report.bad("no disk")
            now[0] += 10
        report.bad("no network")
        report.good("works again")
        report.good("works again")
    assert [each.getMessage() for each in caplog.records] == ["no disk", "no disk", "no network", "works again"]
    assert caplog.records[1].repeated == 59


@pytest.fixture
def listening(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "n"))
        sock.settimeout(5)
        yield sock


def test_what_is_sent(listening):
    path = listening.getsockname()
    notifier = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())})
    assert notifier.watchdog_seconds == 2
    notifier.ready("up")
    assert listening.recv(999) == b"READY=1\nSTATUS=up"
    notifier.alive()
    assert listening.recv(999) == b"WATCHDOG=1"


def test_another_process_watchdog_is_not_fed(listening):
    notifier = Notifier({"NOTIFY_SOCKET": listening.getsockname(), "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"})
    notifier.alive()
    listening.setblocking(False)
    with pytest.raises(BlockingIOError):
        listening.recv(999)


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"NOTIFY_SOCKET": "@gone"}])
def test_without_systemd_nothing_happens(environ):
    Notifier(environ).ready("up")


def test_child_processes_do_not_inherit_our_voice(monkeypatch, listening):
    monkeypatch.setenv("NOTIFY_SOCKET", listening.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    Notifier()
    assert "NOTIFY_SOCKET" not in os.environ
    assert "WATCHDOG_USEC" not in os.environ
