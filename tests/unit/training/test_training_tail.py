"""A log through growth, rotation, truncation, re-use, half lines, huge lines and huge backlogs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.training.tail import LINE, Chunk, Tail, newest


def lines(chunks: list[Chunk]) -> list[str]:
    return [line for chunk in chunks for line in chunk.lines]


def add(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)


def test_only_what_is_new_is_given(tmp_path: Path) -> None:
    log = tmp_path / "log"
    add(log, "one\ntwo\n")
    tail = Tail(log)
    assert lines(list(tail.read())) == ["one", "two"]
    assert lines(list(tail.read())) == []
    add(log, "three\n")
    assert lines(list(tail.read())) == ["three"]


def test_a_half_line_waits_for_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    add(log, "one\nitera")
    tail = Tail(log)
    assert lines(list(tail.read())) == ["one"]
    add(log, "tion 1\n")
    assert lines(list(tail.read())) == ["iteration 1"]


def test_a_quiet_last_line_is_given_once(tmp_path: Path) -> None:
    """A progress bar never ends its last drawing."""
    log = tmp_path / "log"
    add(log, "\r 50%|## | 1/2 [00:01<00:01]\r100%|####| 2/2 [00:02<00:00]\x1b[A")
    tail = Tail(log)
    assert lines(list(tail.read())) == [" 50%|## | 1/2 [00:01<00:01]"]
    assert lines(list(tail.read())) == ["100%|####| 2/2 [00:02<00:00]\x1b[A"]
    assert lines(list(tail.read())) == []
    add(log, "\ndone\n")
    assert lines(list(tail.read())) == ["done"]


def test_a_line_that_a_buffered_writer_left_half_waits_for_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    add(log, "iteration 1/ 9 | lm loss: 1.2")
    tail = Tail(log)
    for _ in range(3):
        assert lines(list(tail.read())) == []
    add(log, "5E+00 |\n")
    assert lines(list(tail.read())) == ["iteration 1/ 9 | lm loss: 1.25E+00 |"]


def test_the_last_value_of_a_status_file_needs_no_end_of_line(tmp_path: Path) -> None:
    status = tmp_path / "status"
    tail = Tail(status)
    for number in (1200, 1300):
        status.write_text(f"loss=2.5\nstep={number}")
        assert lines(list(tail.read())) == ["loss=2.5"]
        assert lines(list(tail.read())) == [f"step={number}"]
        assert lines(list(tail.read())) == []
    status.write_text("x" * 5000 + "\nstep=14")  # of a log it may be the half of a number
    list(tail.read())
    assert lines(list(tail.read())) == []


def test_rotation_reads_the_rest_of_the_old_file_first(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    add(log, "one\n")
    tail = Tail(log)
    list(tail.read())
    add(log, "two\nunfinished")
    log.rename(tmp_path / "train.log.1")
    add(log, "three\n")
    chunks = list(tail.read())
    assert [chunk.lines for chunk in chunks] == [["two", "unfinished"], ["three"]]
    assert [chunk.fresh for chunk in chunks] == [False, True]


def test_truncation_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    add(log, "one\ntwo\n")
    tail = Tail(log)
    list(tail.read())
    log.write_text("new\n")
    (chunk,) = tail.read()
    assert chunk.fresh
    assert chunk.lines == ["new"]


def test_a_file_reused_and_grown_beyond_the_cursor_begins_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    add(log, "one\ntwo\n")
    tail = Tail(log)
    list(tail.read())
    with log.open("r+") as file:  # same inode, longer than before
        file.write("other one\nother two\n")
    (chunk,) = tail.read()
    assert chunk.fresh
    assert chunk.lines == ["other one", "other two"]


def test_a_writer_that_goes_on_behind_a_truncation_leaves_a_hole(tmp_path: Path) -> None:
    """logrotate's copytruncate under a program that did not open its log for appending."""
    log = tmp_path / "log"
    with log.open("wb", buffering=0) as writer:
        writer.write(b"old line\n" * 20_000)
        tail = Tail(log)
        while not list(tail.read())[-1].at_end:
            pass
        os.truncate(log, 0)
        writer.write(b"one\ntwo\n")
    assert log.stat().st_size > LINE
    chunks = list(tail.read())
    assert [line for chunk in chunks for line in chunk.lines] == ["one", "two"]
    assert chunks[0].fresh


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_read_as_far_as_it_is_ascii(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "log").write_text("started\nstep 1\r\nstep 2\r\n", encoding=encoding)
    (chunk,) = Tail(tmp_path / "log").read()
    assert chunk.lines[1:] == ["step 1", "step 2"]


def test_a_huge_line_is_capped_and_does_not_hurt_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tail = Tail(log, limit=LINE // 2, head=LINE // 2)
    add(log, "x" * (3 * LINE))
    given: list[str] = []
    for _ in range(8):
        given += lines(list(tail.read()))
    add(log, "tail of it\nnext\n")
    given += lines(list(tail.read()))
    assert given[-1] == "next"
    assert all(len(line) <= LINE for line in given)
    assert sum(map(len, given)) <= LINE + len("next")


def test_a_large_backlog_is_read_at_head_and_end_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {i}\n" for i in range(10_000)))
    tail = Tail(log, head=100, limit=1000)
    first = list(tail.read())
    second = list(tail.read())
    assert first[0].lines[0] == "line 0"
    assert not first[0].at_end
    assert second[0].at_end
    assert second[0].skipped > 80_000
    assert second[0].lines[-1] == "line 9999"
    assert all(line.startswith("line ") for line in lines(second)), "no half line after the jump"


def test_cursor_survives_a_restart(tmp_path: Path) -> None:
    log = tmp_path / "log"
    add(log, "one\ntw")
    tail = Tail(log)
    list(tail.read())
    kept = tail.state()
    add(log, "o\nthree\n")
    again = Tail(log)
    again.restore(kept)
    (chunk,) = again.read()
    assert not chunk.fresh
    assert chunk.lines == ["two", "three"]


def test_a_kept_cursor_of_another_file_is_not_believed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    add(log, "one\ntwo\n")
    tail = Tail(log)
    list(tail.read())
    kept = tail.state()
    log.write_text("quite another text\n")
    again = Tail(log)
    again.restore(kept)
    (chunk,) = again.read()
    assert chunk.fresh
    assert chunk.lines == ["quite another text"]


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        list(Tail(pipe).read())


def test_bytes_that_are_no_text_do_not_stop_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\xff\xfe\x00 a\nb\n")
    assert lines(list(Tail(log).read()))[1] == "b"


def test_a_rotated_log_that_was_compressed_is_not_the_newest(tmp_path: Path) -> None:
    """Gone to and come back from, the log would be read again from its beginning."""
    log, packed = tmp_path / "train.log", tmp_path / "train.log.1.gz"
    log.touch()
    packed.write_bytes(b"\x1f\x8b")
    os.utime(log, (1000, 1000))
    assert newest(str(tmp_path / "train.log*"), log) == log
    log.unlink()
    assert newest(str(tmp_path / "train.log*"), log) is None


def test_a_name_with_brackets_is_no_pattern(tmp_path: Path) -> None:
    log = tmp_path / "lr=[0.1]" / "train.log"
    log.parent.mkdir()
    log.touch()
    assert newest(str(log), None) == log


def test_the_newest_of_a_pattern_is_followed(tmp_path: Path) -> None:
    old, new = tmp_path / "slurm-1.out", tmp_path / "slurm-2.out"
    old.touch()
    new.touch()
    os.utime(old, (1000, 1000))
    os.utime(new, (1030, 1030))
    pattern = str(tmp_path / "slurm-*.out")
    assert newest(pattern, None) == new
    assert newest(pattern, old) == old, "not yet a minute ahead"
    os.utime(new, (1070, 1070))
    assert newest(pattern, old) == new
    assert newest(str(tmp_path / "none-*.out"), None) is None


@settings(deadline=None)
@given(
    pieces=st.lists(st.text(alphabet="ab\n\r", min_size=1, max_size=12), max_size=12),
    head=st.integers(min_value=4, max_value=40),
)
def test_however_it_is_cut_each_line_comes_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], head: int
) -> None:
    log = tmp_path_factory.mktemp("tail") / "log"
    log.touch()
    tail = Tail(log, head=head, limit=10_000)
    seen: list[str] = []
    for piece in [*pieces, "\nend\n"]:
        add(log, piece)
        seen += lines(list(tail.read()))
    seen += lines(list(tail.read()))
    whole = "".join([*pieces, "\nend\n"]).replace("\r", "\n").split("\n")
    assert seen == [line for line in whole if line]
