"""Work done aside: one thread at most, outcomes kept, errors too."""

import threading
import time

import pytest

from agent.base.aside import Aside, wait_all


def test_an_outcome_has_a_value_and_times() -> None:
    aside = Aside("a", lambda: 7)
    assert aside.last is None
    assert aside.pending is None
    assert aside.kick()
    assert aside.wait(20)
    assert aside.last is not None
    assert (aside.last.value, aside.last.error) == (7, None)
    assert aside.last.seconds >= 0
    assert aside.pending is None


def test_an_error_is_an_outcome() -> None:
    def work() -> int:
        raise ConnectionError("no")

    aside = Aside("a", work)
    aside.kick()
    aside.wait(20)
    assert aside.last is not None
    assert aside.last.value is None
    assert isinstance(aside.last.error, ConnectionError)


def test_a_hanging_run_is_the_only_one_and_leaves_the_last_outcome() -> None:
    release, runs = threading.Event(), []

    def work() -> int:
        runs.append(1)
        if len(runs) == 2:
            release.wait(60)
        return len(runs)

    aside = Aside("a", work)
    aside.kick()
    assert aside.wait(20)
    assert aside.kick()
    before = threading.active_count()
    for _ in range(5):
        assert not aside.kick()
        assert not aside.wait(0.01)
    assert threading.active_count() == before
    assert aside.pending is not None
    assert aside.pending > 0
    assert aside.last is not None
    assert aside.last.value == 1
    release.set()
    assert aside.wait(20)
    assert aside.last.value == 2
    assert aside.kick()
    assert aside.wait(20)


def test_waiting_for_many_takes_no_longer_than_for_one() -> None:
    release = threading.Event()
    asides = [Aside(str(n), lambda: release.wait(60)) for n in range(20)]
    for aside in asides:
        aside.kick()
    start = time.monotonic()
    wait_all(asides, 0.5)
    assert time.monotonic() - start < 8, "20 times 0.5 s would be 10 s"
    assert all(aside.pending is not None for aside in asides)
    release.set()
    wait_all(asides, 20)
    assert all(aside.pending is None for aside in asides)


def test_no_thread_to_be_had_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    aside = Aside("a", lambda: 7)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert aside.kick()
    assert aside.wait(0)
    assert aside.last is not None
    assert isinstance(aside.last.error, RuntimeError)
