"""The undo journal keeps its word over crashes, and says so when it was tampered with."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.base.errors import VigilError
from chaos.engine.journal import Journal


def test_unfinished_drills_come_newest_first_with_their_undo(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "folder")
    assert journal.unfinished() == []
    for drill in ("a", "b", "c", "d"):
        journal.write(drill, "planned", "f")
    journal.write("a", "armed", "f", {"what": "a"})
    journal.write("b", "armed", "f", {"what": "b"})
    journal.write("b", "injected", "f")
    journal.write("c", "armed", "f", {"what": "c"})
    journal.write("c", "undone", "f")
    journal.write("c", "verified", "f")
    found = journal.unfinished()
    assert [(entry.drill, entry.state, entry.undo) for entry in found] == [
        ("b", "injected", {"what": "b"}),
        ("a", "armed", {"what": "a"}),
    ]


LAST = -1


@example(cut=LAST)
@given(cut=st.integers(min_value=0, max_value=400))
def test_a_torn_last_line_is_forgotten_and_writing_goes_on(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal"))
    journal.write("a", "armed", "f", {"é": 1})
    journal.write("b", "armed", "f", {"é": 2})
    whole = journal.path.read_bytes()
    cut = len(whole) - 1 if cut == LAST else cut
    journal.path.write_bytes(whole[: min(cut, len(whole))])
    left = [entry.drill for entry in journal.entries()]
    assert left == ["a", "b"][: whole[:cut].count(b"\n")]
    journal.write("c", "armed", "f", {})
    assert [entry.drill for entry in journal.entries()] == [*left, "c"]


@pytest.mark.parametrize("line", ["nonsense", "{}", '{"drill":"a","state":"odd","fault":"f","time":1}', "[1]"])
def test_a_bad_line_is_an_error_with_its_place(tmp_path: Path, line: str) -> None:
    journal = Journal(tmp_path)
    journal.write("a", "armed", "f", {})
    with journal.path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(VigilError, match=r"journal\.jsonl:2: not a journal entry"):
        journal.unfinished()
