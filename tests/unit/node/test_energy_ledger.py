"""Energy: across restarts and wraps, by meter or by parts, priced, and by tokens and steps."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import energy as m
from agent.base.collector import Context, PartialFailure
from agent.collectors.energy import Energy, EnergySettings, Facility, Window, measured
from agent.gpu.accumulate import Accumulator
from agent.gpu.node import SHARED as GPU
from agent.node.ledger import Ledger
from agent.node.lent import CHASSIS_POWER, LLM_USAGE, TRAIN_PROGRESS, Reached

Tree = Callable[[Mapping[str, str]], Path]
ZONE = "class/powercap/intel-rapl:0/"
RAPL = {
    ZONE + "name": "package-0\n",
    ZONE + "energy_uj": "900000000\n",
    ZONE + "max_energy_range_uj": "1000000000\n",
    "class/powercap/intel-rapl:0:0/name": "core\n",
    "class/powercap/intel-rapl:0:0/energy_uj": "5\n",
    "class/powercap/intel-rapl:0:0/max_energy_range_uj": "1000000000\n",
    "sys/kernel/random/boot_id": "first\n",
}


class Node:
    """An energy collector on a recorded node, with a clock of its own and what others lend it."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root, self.now = root, 1000.0
        self.counters = Accumulator()
        self.context = Context(str(root / "state"), "")
        self.settings = EnergySettings.model_validate({"sys": root, "proc": root, **settings})
        self.start()

    def start(self) -> None:
        self.energy = Energy(self.settings, self.context, clock=lambda: self.now)

    def lend_gpus(self, synthetic: str = "") -> None:
        self.context.shared[GPU] = SimpleNamespace(counters=self.counters, label=synthetic)

    def gpu(self, uuid: str, joules: float) -> None:
        self.counters.add(f"energy/{uuid}", joules)

    def after(self, seconds: float) -> list[Sample]:
        self.now += seconds
        return list(self.energy.collect())


def of(found: list[Sample], metric: Metric) -> dict[tuple[str, ...], float]:
    return {s.labels: s.value for s in found if s.metric is metric}


@pytest.fixture
def node(tree: Tree) -> Node:
    return Node(tree(RAPL))


def test_cpu_energy_counts_from_the_first_look_and_over_the_wrap(node: Node) -> None:
    assert of(node.after(15), m.CPU) == {("package-0",): 0}
    (node.root / ZONE / "energy_uj").write_text("950000000")
    assert of(node.after(15), m.CPU) == {("package-0",): pytest.approx(50)}
    (node.root / ZONE / "energy_uj").write_text("10000000")
    found = node.after(15)
    assert of(found, m.CPU) == {("package-0",): pytest.approx(110)}
    assert of(found, m.NODE) == {("parts", ""): pytest.approx(110)}


def test_totals_outlive_the_agent_and_a_reboot(node: Node) -> None:
    node.after(15)
    (node.root / ZONE / "energy_uj").write_text("950000000")
    node.after(15)
    node.energy.close()
    (node.root / ZONE / "energy_uj").write_text("960000000")  # while the agent is down
    node.start()
    assert of(node.after(15), m.CPU) == {("package-0",): pytest.approx(60)}
    node.energy.close()
    (node.root / "sys/kernel/random/boot_id").write_text("second\n")
    (node.root / ZONE / "energy_uj").write_text("970000000")  # a counter that began anew: not comparable
    node.start()
    assert of(node.after(15), m.CPU) == {("package-0",): pytest.approx(60)}


def test_a_meter_of_the_machine_goes_before_the_sum_of_parts(node: Node) -> None:
    node.context.shared[CHASSIS_POWER] = 1000.0
    node.after(15)
    assert of(node.after(15), m.NODE) == {("meter", ""): 15_000}
    assert of(node.after(3600), m.NODE) == {("meter", ""): 15_000}, "power over an hour unseen is not known"
    assert of(node.after(15), m.NODE) == {("meter", ""): 30_000}


def test_no_source_no_energy(tree: Tree) -> None:
    node = Node(tree({"sys/kernel/random/boot_id": "first\n"}), facility={"pue": 1.2})
    assert node.after(15) == node.after(15) == []


def test_gpus_shared_by_engines(node: Node) -> None:
    node.lend_gpus()
    for uuid in "XYZ":
        node.gpu(uuid, 100)
    tokens = {"a": 1000.0, "b": None}
    node.context.shared[LLM_USAGE] = lambda: [
        ("a", "m", tokens["a"], frozenset("XY")),
        ("b", "m", tokens["b"], frozenset("Y")),
        ("idle", "m", 5.0, frozenset()),
    ]
    node.after(15)
    for uuid in "XYZ":
        node.gpu(uuid, 300)
    tokens["a"] = 1500
    found = node.after(15)
    assert of(found, m.ENGINE) == {("a", "m", ""): 300, ("b", "m", ""): 100}, "Y by halves, Z is nobody's"
    assert of(found, m.PER_1000_TOKENS) == {("a", "m", ""): 600}, "300 J for 500 tokens"
    assert of(found, m.NODE) == {("parts", ""): 600}


def test_simulated_energy_says_so_and_is_kept_apart(node: Node) -> None:
    node.lend_gpus("true")
    node.gpu("X", 100)
    node.after(15)
    node.gpu("X", 200)
    assert of(node.after(15), m.NODE) == {("parts", "true"): 100}
    del node.context.shared[GPU]
    assert of(node.after(15), m.NODE) == {("parts", ""): 0}


def test_energy_of_a_training_step(node: Node) -> None:
    node.context.shared[CHASSIS_POWER] = 1000.0
    steps = {"job": 10.0}
    node.context.shared[TRAIN_PROGRESS] = lambda: {job: Reached(step, 1.0, True) for job, step in steps.items()}
    assert not of(node.after(15), m.PER_STEP)
    steps["job"] = 13
    assert of(node.after(15), m.PER_STEP) == {("job", ""): 5000}
    steps["job"] = 2
    assert not of(node.after(15), m.PER_STEP), "a run that began anew"
    steps["other"] = 1
    assert not of(node.after(15), m.PER_STEP), "whose energy it was cannot be told"


@pytest.mark.parametrize("factor", ["grid_grams_per_kwh", "price_per_kwh"])
def test_gases_and_price_need_a_pue(factor: str) -> None:
    with pytest.raises(ValueError, match="give pue"):
        Facility.model_validate({factor: 1.0})


def test_facility_energy_price_and_gases(tree: Tree) -> None:
    facility = {"pue": 1.5, "grid_grams_per_kwh": 400, "price_per_kwh": 0.2, "currency": "EUR"}
    node = Node(tree(RAPL), facility=facility)
    node.context.shared[CHASSIS_POWER] = 240_000.0
    node.after(15)
    found = node.after(15)  # 3.6 MJ: one kilowatt-hour
    assert of(found, m.PUE) == {("configured",): 1.5}
    assert of(found, m.FACILITY) == {("",): pytest.approx(5.4e6)}
    assert of(found, m.CO2E) == {("",): pytest.approx(600)}
    assert of(found, m.COST) == {("EUR", ""): pytest.approx(0.3)}


def test_a_measured_pue_goes_before_a_configured_one(tree: Tree, tmp_path: Path) -> None:
    file = tmp_path / "pue"
    node = Node(tree(RAPL), facility={"pue": 1.5, "pue_file": file})
    assert of(node.after(15), m.PUE) == {("configured",): 1.5}
    file.write_text("facility_watts=13000\nit_watts=10000\n")
    assert of(node.after(15), m.PUE) == {("measured",): 1.3}
    os.utime(file, (1, 1))
    assert of(node.after(15), m.PUE) == {("configured",): 1.5}, "an old measurement is none"
    file.write_text("pue is fine\n")
    samples: list[Sample] = []
    with pytest.raises(PartialFailure, match="must hold the lines facility_watts=N") as failure:
        samples.extend(node.energy.collect())
    assert str(file) in str(failure.value)
    assert of(samples, m.NODE), "what is known stays"
    assert of(samples, m.PUE) == {("configured",): 1.5}
    assert of(samples, m.FACILITY)


def test_blanks_in_the_pue_file_are_borne(tmp_path: Path) -> None:
    (tmp_path / "pue").write_text("# by the meter\nfacility_watts = 1300\n it_watts =1000 \n")
    assert measured(Facility(pue_file=tmp_path / "pue")) == pytest.approx(1.3)


def test_an_absurd_pue_is_none(tmp_path: Path) -> None:
    file = tmp_path / "pue"
    file.write_text("facility_watts=100\nit_watts=10000\n")
    assert measured(Facility(pue_file=file)) is None


def test_a_damaged_state_file_starts_afresh(tmp_path: Path) -> None:
    (tmp_path / "energy.json").write_text('{"totals": {"a": "x", "b": 5}, "raw": [], "boot_id": "b"}')
    assert Ledger(tmp_path / "energy.json", "b").totals == {"b": 5.0}
    (tmp_path / "energy.json").write_text("{")
    assert Ledger(tmp_path / "energy.json", "b").totals == {}


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=20))
def test_a_ledger_never_falls(tmp_path_factory: pytest.TempPathFactory, readings: list[float]) -> None:
    ledger = Ledger(tmp_path_factory.getbasetemp() / "none.json", "b")
    totals = [ledger.add("x", ledger.step("x", reading, 1e9)) for reading in readings]
    assert totals == sorted(totals)
    assert totals[0] == 0


def test_a_window_forgets() -> None:
    window = Window(100)
    assert window.rate(0, 0, 0) is None
    assert window.rate(50, 100, 10) == 10
    assert window.rate(140, 400, 20) == 30, "since 50 s: 300 J for 10"
    assert window.rate(300, 400, 20) is None
