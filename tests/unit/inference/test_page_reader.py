"""The page reader against prometheus_client's parser, cut pages and nonsense."""

import math
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.inference.page import LINE_LIMIT, Page, parse_sample, read_page

DATA = Path(__file__).parents[2] / "data" / "metrics"


class Everything:
    def __contains__(self, name: object) -> bool:
        return True


def pieces(text: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(text), size):
        yield text[at : at + size]


def as_set(page: Page) -> set[tuple[str, frozenset[tuple[str, str]], str]]:
    return {
        (name, frozenset(labels.items()), repr(value))
        for name, series in page.samples.items()
        for labels, value in series
    }


def reference(text: str) -> set[tuple[str, frozenset[tuple[str, str]], str]]:
    """As prometheus_client reads it; but it renames counters without `_total`, which we do not."""
    present = set(re.findall(r"^([a-zA-Z_:][\w:]*)[ {]", text, re.MULTILINE))

    def name_of(name: str) -> str:
        return name if name in present else name.removesuffix("_total")

    return {
        (name_of(sample.name), frozenset(sample.labels.items()), repr(float(sample.value)))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.glob("*.prom")))
@pytest.mark.parametrize("size", [1 << 16, 997])
def test_real_pages_read_as_prometheus_client_reads_them(name: str, size: int) -> None:
    text = (DATA / name).read_bytes()
    page = read_page(pieces(text, size), Everything())
    assert not page.cut
    assert page.errors == 0
    assert page.size == len(text)
    assert as_set(page) == reference(text.decode())


names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", fullmatch=True)
label_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,8}", fullmatch=True)  # two leading underscores are reserved
label_values = st.text(st.characters(exclude_characters="\r", exclude_categories=["Cs"]), max_size=12)
values = st.floats(allow_nan=True, allow_infinity=True)


def escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def written(value: float) -> str:
    return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf") if math.isinf(value) else repr(value)


@given(
    st.lists(st.tuples(names, st.dictionaries(label_names, label_values, max_size=3), values), min_size=1, max_size=8),
    st.integers(1, 40),
)
def test_any_page_reads_as_prometheus_client_reads_it(
    samples: list[tuple[str, dict[str, str], float]], size: int
) -> None:
    lines = []
    for name, labels, value in samples:
        inside = ",".join(f'{key}="{escape(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inside}}} {written(value)}" if inside else f"{name} {written(value)}")
    text = "\n".join(lines) + "\n"
    page = read_page(pieces(text.encode(), size), Everything())
    assert page.errors == 0
    assert as_set(page) == reference(text)


@given(st.binary(max_size=400), st.integers(1, 50))
def test_nonsense_is_never_an_exception(text: bytes, size: int) -> None:
    page = read_page(pieces(text, size), Everything())
    assert page.size <= len(text)


@given(st.integers(0, 51225))
def test_a_page_cut_anywhere_gives_whole_families_or_none(length: int) -> None:
    """However little is left, a name that is there has all the samples that the whole page has."""
    whole = (DATA / "vllm_0.32_after.prom").read_bytes()
    full = read_page([whole], Everything()).samples

    def broken_off() -> Iterator[bytes]:
        yield whole[:length]
        raise EOFError

    page = read_page(broken_off(), Everything())
    assert page.cut
    for name, series in page.samples.items():
        assert series == full[name]


@pytest.mark.parametrize(
    "line", [b"a", b"a{", b'a{b="c} 1', b"a 1 2 3", b"a x", b"a 1_000", b'a{b="c",b="d"} 1', b"1a 2"]
)
def test_bad_lines_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - what matters is that it is refused
        parse_sample(line)


def test_a_bad_line_costs_its_own_name_only() -> None:
    page = read_page([b'a{x="1"} 1\na{x="2" 2\nb 3\n'], {b"a", b"b"})
    assert page.samples == {"b": [({}, 3.0)]}
    assert page.errors == 1
    assert not page.cut


def test_no_line_end_no_trust() -> None:
    """`b 3` may have been `b 3000`; but `a` is whole, because another family follows it."""
    page = read_page([b"a 1\nother 2\nb 3"], {b"a", b"b"})
    assert page.cut
    assert page.samples == {"a": [({}, 1.0)]}


def test_an_empty_page_is_a_cut_one() -> None:
    assert read_page([], {b"a"}).cut


def test_more_than_the_limit_is_left_alone() -> None:
    """20 MB of foreign series: read up to the limit, the families before the flood are kept."""
    taken = 0

    def flood() -> Iterator[bytes]:
        nonlocal taken
        yield b"wanted 7\n"
        while True:
            chunk = b'noise{id="1234567890"} 1\n' * 2500
            taken += len(chunk)
            yield chunk

    page = read_page(flood(), {b"wanted"}, limit=1 << 20)
    assert page.cut
    assert page.samples == {"wanted": [({}, 7.0)]}
    assert taken < (1 << 20) + 100_000


def test_a_line_without_end_does_not_fill_memory() -> None:
    page = read_page([b'a 1\nb{x="', *[b"y" * 60_000] * 20, b'"} 2\nc 3\n'], {b"a", b"b", b"c"})
    assert page.samples == {"a": [({}, 1.0)], "c": [({}, 3.0)]}
    assert page.errors == 1
    assert LINE_LIMIT < 60_000 * 20
