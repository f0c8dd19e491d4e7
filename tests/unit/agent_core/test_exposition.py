"""The page in both formats, read back by the Python client's own parsers and by promtool."""

from __future__ import annotations

import gzip
import math
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from agent.base.catalogue import load_all
from agent.base.exposition import (
    OPENMETRICS,
    TEXT,
    Renderer,
    accepts_gzip,
    compress,
    format_value,
    negotiate,
    render,
)
from agent.intake import gather

GOLDEN = Path(__file__).parents[2] / "golden"
PROMETHEUS_2_42 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


def some_page(metric):
    return [
        metric.gauge.sample(0.25, 'quote " back \\ line \n end', "x"),
        metric.gauge.sample(math.inf, "only a", ""),
        metric.counter.sample(3, "c"),
        metric.info.sample(1, "H100"),
        metric.plain.sample(7),
    ]


def histogram(metric, a, counts):
    from agent.base.catalogue import Sample

    edges = ["0.5", "1", "+Inf"]
    for edge, count in zip(edges, counts, strict=True):
        yield Sample(metric.histogram, (a, edge), count, "bucket")
    yield Sample(metric.histogram, (a,), counts[-1], "count")
    yield Sample(metric.histogram, (a,), 2.5, "sum")


def golden_page(metric, form):
    samples = [*some_page(metric), *histogram(metric, "h", [1, 2, 3])]
    return render([gather(samples)], form)


@pytest.mark.parametrize(("form", "name"), [(TEXT, "page.prom"), (OPENMETRICS, "page.openmetrics")])
def test_golden_page(metric, form, name):
    assert golden_page(metric, form).decode() == (GOLDEN / name).read_text()


def read_back(page, form):
    """{(name, sorted labels): value} and {family: type} as the client library reads them."""
    families = list((parse_openmetrics if form is OPENMETRICS else parse_text)(page.decode()))
    samples = [(s.name, tuple(sorted(s.labels.items())), s.value) for f in families for s in f.samples]
    assert len({(name, labels) for name, labels, _ in samples}) == len(samples)
    return {(name, labels): value for name, labels, value in samples}, {f.name: f.type for f in families}


def test_types_differ_between_the_formats(metric):
    text, text_types = read_back(golden_page(metric, TEXT), TEXT)
    om, om_types = read_back(golden_page(metric, OPENMETRICS), OPENMETRICS)
    assert text == om
    assert text_types["gpuvigil_test_info"] == "gauge"
    assert om_types["gpuvigil_test"] == "info"
    assert om_types["gpuvigil_test_bytes"] == text_types["gpuvigil_test_bytes"] == "counter"
    assert om_types["gpuvigil_test_wait_seconds"] == "histogram"


@pytest.mark.parametrize("form", [TEXT, OPENMETRICS])
@given(
    rows=st.dictionaries(
        st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=8)] * 2),
        st.floats(allow_nan=False),
        max_size=6,
    )
)
def test_what_goes_in_comes_out(metric, form, rows):
    samples = [metric.gauge.sample(value, *labels) for labels, value in rows.items()]
    found, _ = read_back(render([gather(samples)], form), form)
    wanted = {
        (metric.gauge.name, tuple((key, text) for key, text in zip("ab", labels, strict=True) if text)): value
        for labels, value in rows.items()
    }
    assert found == wanted


def test_families_of_several_sources_stand_together_once(metric):
    first = gather([metric.gauge.sample(1, "1", "x"), metric.counter.sample(1, "1")])
    second = gather([metric.gauge.sample(2, "2", "x"), metric.gauge.sample(9, "1", "x")])
    page = render([first, second], OPENMETRICS)
    found, _ = read_back(page, OPENMETRICS)
    assert page.count(b"# TYPE gpuvigil_test_level_ratio ") == 1
    assert found["gpuvigil_test_level_ratio", (("a", "1"), ("b", "x"))] == 1, "the first source wins"
    assert found["gpuvigil_test_level_ratio", (("a", "2"), ("b", "x"))] == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1.0"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"), (1e300, "1e+300"), (0.1, "0.1")],
)
def test_values_are_written_as_the_go_and_python_clients_read_them(value, text):
    assert format_value(value) == text


def test_bucket_edges_are_floats(metric):
    page = render([gather(histogram(metric, "h", [1, 2, 3]))], TEXT).decode()
    assert 'le="1.0"' in page
    assert 'le="+Inf"' in page


def test_lone_surrogates_do_not_break_the_page(metric):
    page = render([gather([metric.gauge.sample(1, "\udc80", "x")])], TEXT)
    assert b'a="?"' in page


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (PROMETHEUS_2_42, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (PROMETHEUS_3, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=1.0.0;escaping=allow-utf-8", "text/plain; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=0.0.1; charset=utf-8"),
        ("application/openmetrics-text; version=2.0.0", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0;q=0,text/plain", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0;q=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4;q=0.9,application/openmetrics-text;version=1.0.0;q=0.1",
         "text/plain; version=0.0.4; charset=utf-8"),
    ],
)  # fmt: skip
def test_the_answer_is_what_was_asked_for_and_never_newer(accept, content_type):
    assert negotiate(accept).content_type == content_type


@given(st.text(max_size=60))
def test_no_header_breaks_negotiation(text):
    assert negotiate(text).content_type
    assert accepts_gzip(text) in (True, False)


@pytest.mark.parametrize(
    ("header", "yes"), [("gzip", True), ("gzip;q=0", False), ("deflate, gzip;q=0.5", True), ("", False), ("br", False)]
)
def test_gzip_is_used_when_it_is_asked_for(header, yes):
    assert accepts_gzip(header) is yes


def test_compressed_is_the_same_page(metric):
    page = golden_page(metric, TEXT)
    assert gzip.decompress(compress(page)) == page
    assert compress(page) == compress(page), "no time stamp inside"


VALUES = (st.floats(allow_nan=False) | st.sampled_from([0.0, 1.0, 1e15, math.inf])).map(lambda value: value + 0.0)
"""-0.0 is 0.0: it is the same number, and a page may go on calling it by its other name."""
PAGES = st.lists(
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=300), VALUES, max_size=5), min_size=2, max_size=6
)


@given(pages=PAGES, form=st.sampled_from([TEXT, OPENMETRICS]))
def test_one_renderer_makes_the_pages_that_new_ones_would(metric, pages, form):
    """Whatever changes from page to page, plain and compressed: nothing is left over from the last one."""
    renderer = Renderer()
    for rows in pages:
        samples = [metric.gauge.sample(value, label, "x") for label, value in rows.items()]
        source = gather([*samples, metric.counter.sample(len(rows), "c")])
        page = render([source], form)
        assert gzip.decompress(renderer.render({"x": source}, form, gzip=True)) == page
        assert renderer.render({"x": source}, form) == page


@given(turns=st.lists(st.tuples(st.sampled_from(["first", "second", "third"]), VALUES, st.booleans()), max_size=12))
def test_sources_stand_one_after_the_other_unless_they_share_a_metric(metric, turns):
    """Some run and others do not; a metric told by two stands once, and none is lost or left over."""
    renderer = Renderer()
    own = {"first": metric.gauge, "second": metric.plain, "third": metric.small}
    sources = {name: gather([]) for name in own}
    for name, value, shared in turns:
        samples = [own[name].sample(value, *(["g", name][: len(own[name].labels)]))]
        if shared:
            samples.append(metric.counter.sample(abs(value), name))
        sources = {**sources, name: gather(samples)}
        page = renderer.render(sources, TEXT)
        assert gzip.decompress(renderer.render(sources, TEXT, gzip=True)) == page
        together = render(sources.values(), TEXT)
        assert sorted(page.splitlines()) == sorted(together.splitlines())
        heads = [line for line in page.splitlines() if line.startswith(b"# TYPE")]
        assert len(heads) == len(set(heads))


def test_what_stays_is_compressed_and_what_changes_is_not(metric):
    def page(shift):
        still = [metric.counter.sample(n, f"GPU-{'0123' * 8}-{n}") for n in range(500)]
        return {"x": gather([*still, *(metric.gauge.sample(shift + n, f"GPU-{n}", "x") for n in range(500))])}

    renderer = Renderer()
    first, *others = [len(renderer.render(page(shift), TEXT, gzip=True)) for shift in (0.0, 0.1, 0.2)]
    plain = len(render(page(0.2).values(), TEXT))
    changing = len(render([{"gpuvigil_test_level_ratio": page(0.2)["x"]["gpuvigil_test_level_ratio"]}], TEXT))
    assert first < plain / 5
    assert max(others) < changing + (plain - changing) / 5
    last = [len(renderer.render(page(0.2), TEXT, gzip=True)) for _ in range(10)][-1]
    assert last == pytest.approx(first, rel=0.2), "once it stays, it is compressed again"


def test_a_plain_page_before_does_not_keep_the_compressed_one_large(metric):
    renderer = Renderer()
    source = {"x": gather(metric.counter.sample(n, f"GPU-{'0123' * 8}-{n}") for n in range(500))}
    plain = len(renderer.render(source, TEXT))
    renderer.render(source, TEXT)
    assert len(renderer.render(source, TEXT, gzip=True)) < plain / 5


def test_a_family_larger_than_a_stored_block(metric):
    renderer = Renderer()
    for shift in (0.0, 0.1):
        source = gather(metric.gauge.sample(shift + n, "y" * 900, str(n)) for n in range(200))
        assert gzip.decompress(renderer.render({"x": source}, TEXT, gzip=True)) == render([source], TEXT)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_every_metric_of_the_catalogue():
    from agent.base.catalogue import Sample

    samples = []
    for metric in load_all().values():
        if metric.stem.startswith("gpuvigil_test"):
            continue
        labels = tuple("x" for _ in metric.labels)
        if metric.kind == "histogram":
            samples += [Sample(metric, (*labels, edge), 1, "bucket") for edge in ("0.1", "+Inf")]
            samples += [Sample(metric, labels, 1, "count"), Sample(metric, labels, 1, "sum")]
        else:
            samples.append(Sample(metric, labels, 1))
    page = render([gather(samples)], TEXT)
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
    assert done.stderr.decode() == ""
    assert done.returncode == 0
