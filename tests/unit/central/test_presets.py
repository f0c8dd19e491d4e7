"""The presets leave no metric of the catalogue without a choice, ask only for what exists, and stay affordable."""

import json
import re

import promql_parser as pp
import pytest

from agent.base.catalogue import TARGET_LABELS, load_all
from agent.cli import main
from alerts.central.preset import series_of
from alerts.central.preset_list import MONITORS, RESOURCES
from alerts.central.presets import DEFAULT
from alerts.central.settings import Prometheus
from alerts.central.unwatched import why_unwatched

MADE = [made for sets in (MONITORS, RESOURCES) for make in sets.values() for made in make()]
SERIES = {name: metric for metric in load_all().values() for name in metric.series}


def names(query):
    return set(re.findall(r"gpuvigil_\w+", query))


WATCHED = {SERIES[name] for made in MADE for name in names(made.query) if name in SERIES}


@pytest.mark.parametrize("metric", load_all().values(), ids=str)
def test_every_metric_is_watched_or_has_one_reason_why_not(metric):
    reason = why_unwatched(metric)
    assert (metric in WATCHED) != bool(reason), (
        f"{metric}: {'watched, and left out because ' + reason if reason else 'add it to preset_list or unwatched'}"
    )


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.name)
def test_a_preset_parses_and_asks_for_declared_series_and_labels_only(made):
    pp.parse(made.query)
    assert names(made.query)
    assert names(made.query) <= set(SERIES)
    labels = {label for name in names(made.query) for label in SERIES[name].labels} | TARGET_LABELS | {"le"}
    grouped = re.findall(r"by \(([^)]*)\)", made.query)
    assert {label for by in grouped for label in by.split(", ")} <= labels
    assert not {"pid", "instance", "job"} & {label for by in grouped for label in by.split(", ")}


@pytest.mark.parametrize("made", [made for make in MONITORS.values() for made in make()], ids=lambda made: made.name)
def test_a_monitor_rates_its_counters_has_a_floor_and_keeps_simulated_series_apart(made):
    used = [SERIES[name] for name in names(made.query)]
    assert not made.raw_counter
    assert made.min_dev_abs or made.min_dev_rel
    if any("synthetic" in metric.labels for metric in used):
        assert "synthetic" in made.query
    if made.data_range is not None and made.data_range[1] == 1:
        # no ratio of 0 to 1 may be held to a floor that no value can pass
        assert made.min_dev_abs < 0.5


def test_names_differ_over_all_sets():
    assert len({made.name for made in MADE}) == len(MADE)


def test_the_default_sets_keep_a_node_within_96_series():
    """96,000 series for 1,000 nodes: a node trains or serves."""
    each = {name: sum(map(series_of, MONITORS[name]())) for name in DEFAULT}
    assert each["gpu"] + each["node"] + max(each["training"], each["inference"]) <= 96


@pytest.mark.parametrize("made", [made for make in MONITORS.values() for made in make()], ids=lambda made: made.name)
def test_a_thousand_nodes_are_within_the_limit_of_series_that_holds_by_default(made):
    assert made.series_limit is None
    assert 1000 * series_of(made) <= Prometheus().series_limit < 100_000


def test_the_list_is_printed(capsys, request):
    assert main(["central", "presets"]) == 0
    text = capsys.readouterr().out
    assert all(made.name in text for made in MADE)
    assert main(["central", "presets", "-o", "json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["monitors"]) + len(document["capacity"]) == len(MADE)
    assert "gpuvigil_gpu_up" in document["unwatched"]
    page = (request.config.rootpath / "docs/detection.md").read_text()
    for name in MONITORS:
        number = sum(one["series_a_node"] for one in document["monitors"] if one["preset"] == name)
        assert re.search(rf"^\| `{name}` \|.* {number}\b[^|]*\|$", page, re.M), f"docs/detection.md: {name}: {number}"
