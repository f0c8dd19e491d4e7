"""What may pass from a collector to the page, and what is dropped and counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.catalogue import Layout, Metric, Sample, Table
from agent.base.errors import CatalogueError
from agent.intake import Intake


def run(intake, *samples):
    intake.begin()
    intake.take(samples)
    return {stem: family.lines for stem, family in intake.end().items()}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda m: Sample(m.gauge, ("a",), 1.0), "undeclared"),
        (lambda m: Sample(m.gauge, ("a", "b"), 1.0, "bucket"), "undeclared"),
        (lambda m: Sample(m.histogram, ("a",), 1.0), "undeclared"),
        (lambda m: Sample(m.histogram, ("a", "wide"), 1.0, "bucket"), "invalid"),
        (lambda m: Sample(m.gauge, ("a", 3), 1.0), "invalid"),
        (lambda m: Sample(m.gauge, ("a", "b"), None), "invalid"),
        (lambda m: Sample(m.gauge, ("a", "b"), 10**400), "invalid"),
        (lambda m: Sample(m.gauge, ("a", "b"), math.nan), "nan"),
        (lambda m: Sample(m.counter, ("a",), -1.0), "negative"),
        (lambda m: Sample(m.gauge, ("a", "x" * 5000), 1.0), "label_too_long"),
    ],
)
def test_a_bad_sample_is_dropped_and_counted_and_the_good_one_stays(metric, make, reason):
    intake = Intake()
    assert run(intake, make(metric), metric.plain.sample(1)) == {metric.plain.stem: {"gpuvigil_test_plain ": 1.0}}
    assert intake.dropped == {reason: 1}
    with pytest.raises(CatalogueError, match=reason):
        run(Intake(strict=True), make(metric))


def test_a_metric_that_only_looks_declared_is_dropped(metric):
    double = Metric.__new__(Metric)
    for field in ("stem", "kind", "help", "unit", "labels", "stability", "dynamic", "budget", "vital", "name"):
        object.__setattr__(double, field, getattr(metric.plain, field))
    intake = Intake()
    assert run(intake, Sample(double, (), 1.0)) == {}
    assert intake.dropped == {"undeclared": 1}


def test_the_first_of_two_equal_series_stays(metric):
    intake = Intake()
    (lines,) = run(intake, metric.gauge.sample(1, "a", ""), metric.gauge.sample(2, "a", "")).values()
    assert list(lines.values()) == [1.0]
    assert intake.dropped == {"duplicate": 1}


def test_over_a_familys_budget_the_rest_is_dropped(metric):
    intake = Intake()
    (lines,) = run(intake, *(metric.small.sample(1, str(n)) for n in range(10))).values()
    assert len(lines) == metric.small.budget == 3
    assert intake.dropped == {"family_budget": 7}


def test_a_histogram_is_admitted_or_refused_whole(metric):
    def whole(a):
        for edge in ("1", "2", "3", "4", "+Inf"):
            yield Sample(metric.histogram, (a, edge), 1.0, "bucket")
        yield Sample(metric.histogram, (a,), 1.0, "count")
        yield Sample(metric.histogram, (a,), 1.0, "sum")

    intake = Intake()
    (lines,) = run(intake, *whole("one"), *whole("two"), *whole("three")).values()
    assert len(lines) == 14, "12 is the budget; the second began within it"
    assert not any("three" in line for line in lines)
    assert intake.dropped == {"family_budget": 7}


def test_numbers_of_any_kind_become_floats(metric):
    (lines,) = run(Intake(), metric.gauge.sample(True, "a", "a"), metric.gauge.sample(2**70, "b", "b")).values()
    assert {type(value) for value in lines.values()} == {float}


def test_series_that_come_and_go_do_not_pile_up(metric):
    intake = Intake()
    for n in range(5000):
        run(intake, metric.gauge.sample(1, f"pid {n}", "x"))
    assert sum(map(len, intake._prefixes.values())) < 1000


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["plain", "counter", "small", "gauge"]),
        st.integers(0, 5),
        st.sampled_from([1.0, 0.5, -1.0, math.nan, math.inf]),
    ),
    max_size=14,
)


@given(rows=ROWS, later=st.lists(st.sampled_from([1.0, 2.0, -1.0, math.nan]), min_size=14, max_size=14), more=ROWS)
def test_a_table_is_its_samples_one_by_one(metric, rows, later, more):
    """Whatever is wrong with them, in two runs of the same layout, with samples of the same metrics beside it."""

    def series(name, number):
        each = getattr(metric, name)
        return each, (str(number), "x")[: len(each.labels)]

    layout = Layout(series(name, number) for name, number, _ in rows)
    single, whole = Intake(), Intake()
    for values in ([value for *_, value in rows], later[: len(rows)]):
        table = Table(layout, values)
        beside = [Sample(*series(name, number), value) for name, number, value in more]
        single.begin()
        single.take([*table.samples(), *beside])
        whole.begin()
        whole.take([table, *beside])
        one, other = single.end(), whole.end()
        assert {stem: family.lines for stem, family in one.items()} == {s: f.lines for s, f in other.items()}
        assert single.dropped == whole.dropped
