"""Chassis sensors: hwmon trees, Redfish controllers new, old and hanging, ipmitool's output."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context, PartialFailure
from agent.collectors.chassis import Chassis, ChassisSettings
from agent.node import ipmi
from agent.node.lent import CHASSIS_POWER
from agent.node.redfish import Bmc, Reading

Tree = Callable[[Mapping[str, str]], Path]
HWMON = {
    "class/hwmon/hwmon0/name": "coretemp\n",
    "class/hwmon/hwmon0/temp1_label": "Package id 0\n",
    "class/hwmon/hwmon0/temp1_input": "61000\n",
    "class/hwmon/hwmon0/temp1_crit_alarm": "1\n",
    "class/hwmon/hwmon0/temp2_label": "Core 0\n",
    "class/hwmon/hwmon0/temp2_input": "60000\n",
    "class/hwmon/hwmon1/name": "power_meter\n",
    "class/hwmon/hwmon1/power1_average": "5200000000\n",
    "class/hwmon/hwmon2/name": "nvme\n",
    "class/hwmon/hwmon2/temp1_input": "41000\n",
    "class/hwmon/hwmon3/name": "highflow2\n",
    "class/hwmon/hwmon3/temp1_label": "Coolant temp\n",
    "class/hwmon/hwmon3/temp1_input": "32500\n",
    "class/hwmon/hwmon3/fan1_label": "Flow [dL/h]\n",
    "class/hwmon/hwmon3/fan1_input": "3600\n",
    "class/hwmon/hwmon4/name": "mlx5\n",
    "class/hwmon/hwmon4/temp1_input": "55000\n",
    "class/hwmon/hwmon4/device": "-> ../../../devices/0000:41:00.0",
    "class/hwmon/hwmon5/name": "mlx5\n",
    "class/hwmon/hwmon5/temp1_input": "56000\n",
    "class/hwmon/hwmon5/fan1_input": "gone\n",
    "devices/0000:41:00.0/vendor": "0x15b3\n",
}


def of(found: list[Sample], metric: Metric) -> dict[tuple[str, ...], float]:
    return {s.labels: s.value for s in found if s.metric is metric}


def chassis(root: Path, context: Context | None = None, **settings: object) -> Chassis:
    whole = {"sys": root, "dev": root, "patience": "20s", **settings}
    return Chassis(ChassisSettings.model_validate(whole), context or Context("", ""))


def test_hwmon(tree: Tree) -> None:
    context = Context("", "")
    found = list(chassis(tree(HWMON), context).collect())
    assert of(found, m.TEMPERATURE) == {
        ("coretemp", "Package id 0"): 61,
        ("mlx5:0000:41:00.0", "temp1"): 55,
        ("mlx5:hwmon5", "temp1"): 56,
    }, "the package for its cores, drives elsewhere, two chips of one name told apart"
    assert of(found, m.ALARM) == {("coretemp", "Package id 0"): 1}
    assert of(found, m.CHASSIS_POWER) == {("power_meter",): 5200}
    assert context.shared[CHASSIS_POWER] == 5200
    assert of(found, m.COOLANT_TEMPERATURE) == {("highflow2", "Coolant temp"): 32.5}
    assert of(found, m.COOLANT_FLOW)["highflow2", "Flow [dL/h]"] == pytest.approx(1e-4), "360 litres an hour"
    assert not of(found, m.FAN)


def test_two_sensors_of_one_label_are_told_apart(tree: Tree) -> None:
    chip = "class/hwmon/hwmon0/"
    files = {chip + "name": "chip\n", chip + "temp1_input": "55000\n", chip + "temp2_input": "54000\n"}
    files |= {chip + "temp1_label": "die\n", chip + "temp2_label": "die\n", chip + "temp1_alarm": "0\n"}
    found = list(chassis(tree(files)).collect())
    assert of(found, m.TEMPERATURE) == {("chip", "die (temp1)"): 55, ("chip", "die (temp2)"): 54}
    assert of(found, m.ALARM) == {("chip", "die (temp1)"): 0}


def test_nothing_to_read(tmp_path: Path) -> None:
    context = Context("", "")
    assert list(chassis(tmp_path, context).collect()) == []
    assert context.shared[CHASSIS_POWER] is None


def link(path: str) -> dict[str, str]:
    return {"@odata.id": path}


ROOT = "/redfish/v1/Chassis"
NEW = {
    ROOT: {"Members": [link(f"{ROOT}/1"), link(f"{ROOT}/HGX")]},
    f"{ROOT}/1": {
        "Id": "1",
        "Sensors": link(f"{ROOT}/1/Sensors"),
        "EnvironmentMetrics": link(f"{ROOT}/1/EnvironmentMetrics"),
        "ThermalSubsystem": link(f"{ROOT}/1/ThermalSubsystem"),
    },
    f"{ROOT}/1/EnvironmentMetrics": {"PowerWatts": {"Reading": 6100.5}},
    f"{ROOT}/1/Sensors?$expand=.($levels=1)": {
        "Members": [
            {"Name": "Inlet", "Reading": 24.5, "ReadingType": "Temperature"},
            {"Name": "Supply", "Reading": 31, "ReadingType": "Temperature", "PhysicalContext": "CoolantSupply"},
            {"Name": "Loop", "Reading": 12, "ReadingType": "LiquidFlowLPM"},
            {"Name": "PSU1", "Reading": 1500, "ReadingType": "Power"},
            {"Name": "Fan1", "Reading": 9000, "ReadingType": "Rotational", "ReadingUnits": "RPM"},
            {"Name": "Absent", "Reading": None, "ReadingType": "Temperature"},
        ]
    },
    f"{ROOT}/1/ThermalSubsystem": {"LeakDetection": link(f"{ROOT}/1/LeakDetection")},
    f"{ROOT}/1/LeakDetection": {"LeakDetectors": link(f"{ROOT}/1/LeakDetectors")},
    f"{ROOT}/1/LeakDetectors?$expand=.($levels=1)": {
        "Members": [{"Name": "Tray", "DetectorState": "OK"}, {"Name": "Manifold", "DetectorState": "Critical"}]
    },
    f"{ROOT}/HGX": {"Id": "HGX", "Sensors": link(f"{ROOT}/HGX/Sensors")},
    f"{ROOT}/HGX/Sensors": {"Members": [link(f"{ROOT}/HGX/Sensors/gpu"), link("/gone")]},
    f"{ROOT}/HGX/Sensors/gpu": {"Id": "gpu", "Reading": 70, "ReadingType": "Temperature"},
}
OLD = {
    ROOT: {"Members": [link(f"{ROOT}/Self")]},
    f"{ROOT}/Self": {"Id": "Self", "Power": link(f"{ROOT}/Self/Power"), "Thermal": link(f"{ROOT}/Self/Thermal")},
    f"{ROOT}/Self/Power": {"PowerControl": [{"PowerConsumedWatts": 850}]},
    f"{ROOT}/Self/Thermal": {
        "Temperatures": [{"Name": "CPU", "ReadingCelsius": 55}, {"Name": "Empty", "ReadingCelsius": None}],
        "Fans": [{"Name": "F1", "Reading": 40, "ReadingUnits": "Percent"}],
    },
}


class Controller:
    def __init__(self) -> None:
        self.resources: Mapping[str, Any] = {}
        self.keys: list[str | None] = []
        self.over = threading.Event()
        self.hang = False
        controller = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                controller.keys.append(self.headers.get("Authorization"))
                if controller.hang:
                    controller.over.wait(60)
                    return
                found = controller.resources.get(self.path)
                self.send_response(200 if found is not None else 404)
                self.end_headers()
                self.wfile.write(json.dumps(found).encode())

            def log_message(self, format: str, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def controller() -> Iterator[Controller]:
    one = Controller()
    thread = threading.Thread(target=one.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield one
    one.over.set()
    one.server.shutdown()
    one.server.server_close()
    thread.join(10)


def test_redfish(controller: Controller, tmp_path: Path) -> None:
    controller.resources = NEW
    context = Context("", "")
    found = list(chassis(tmp_path, context, redfish={"url": controller.url}).collect())
    assert of(found, m.CHASSIS_READ) == {("redfish",): 1}
    assert of(found, m.CHASSIS_POWER) == {("redfish:1",): 6100.5}
    assert context.shared[CHASSIS_POWER] == 6100.5
    assert of(found, m.TEMPERATURE) == {("redfish:1", "Inlet"): 24.5, ("redfish:HGX", "gpu"): 70}
    assert of(found, m.COOLANT_TEMPERATURE) == {("redfish:1", "Supply"): 31}
    assert of(found, m.COOLANT_FLOW)["redfish:1", "Loop"] == pytest.approx(12e-3 / 60)
    assert of(found, m.COOLANT_LEAK) == {("redfish:1", "Tray"): 0, ("redfish:1", "Manifold"): 1}
    assert of(found, m.POWER) == {("redfish:1", "PSU1"): 1500}
    assert of(found, m.FAN) == {("redfish:1", "Fan1"): 9000}


def sensors(controller: Controller, *found: dict[str, Any], **more: Any) -> None:
    """Let the controller have one chassis with these sensors, as one that expands collections gives them."""
    controller.resources = {
        ROOT: {"Members": [link(f"{ROOT}/1")]},
        f"{ROOT}/1": {"Id": "1", "Sensors": link(f"{ROOT}/1/Sensors"), **more},
        f"{ROOT}/1/Sensors?$expand=.($levels=1)": {"Members": list(found)},
    }


def test_a_distance_to_a_limit_is_no_temperature(controller: Controller, tmp_path: Path) -> None:
    """What an HGX baseboard calls TEMP_1 falls while the GPU gets hotter."""
    margin = {"Name": "GPU 0 TEMP 1", "Reading": 58.0, "ReadingType": "Temperature", "ReadingBasis": "Headroom"}
    plain = {"Name": "GPU 0 TEMP 0", "Reading": 29.0, "ReadingType": "Temperature", "ReadingBasis": "Zero"}
    sensors(controller, margin, plain)
    found = list(chassis(tmp_path, redfish={"url": controller.url}).collect())
    assert of(found, m.TEMPERATURE) == {("redfish:1", "GPU 0 TEMP 0"): 29}


def test_a_sensor_without_a_type_goes_by_its_unit(controller: Controller, tmp_path: Path) -> None:
    sensors(
        controller,
        {"Name": "Intake", "Reading": 24.8, "ReadingUnits": "Cel"},
        {"Name": "CPU", "Reading": 90, "ReadingUnits": "W"},
        {"Name": "Supply", "Reading": 240, "ReadingUnits": "V"},
    )
    found = list(chassis(tmp_path, redfish={"url": controller.url}).collect())
    assert of(found, m.TEMPERATURE) == {("redfish:1", "Intake"): 24.8}
    assert of(found, m.POWER) == {("redfish:1", "CPU"): 90}
    assert len(found) == 3


def test_a_flow_may_be_told_by_the_second(controller: Controller, tmp_path: Path) -> None:
    sensors(
        controller,
        {"Name": "old", "Reading": 0.5, "ReadingType": "LiquidFlow", "ReadingUnits": "L/s"},
        {"Name": "new", "Reading": 30, "ReadingType": "LiquidFlowLPM", "ReadingUnits": "L/min"},
    )
    found = of(list(chassis(tmp_path, redfish={"url": controller.url}).collect()), m.COOLANT_FLOW)
    assert found["redfish:1", "old"] == pytest.approx(found["redfish:1", "new"]) == pytest.approx(5e-4)


def test_fans_in_per_cent_have_their_speed_in_the_summary(controller: Controller, tmp_path: Path) -> None:
    fan = {"Name": "Fan #1", "Reading": 45, "ReadingType": "Percent", "ReadingUnits": "%"}
    sensors(controller, fan, EnvironmentMetrics=link("/metrics"))
    speeds = [{"DeviceName": "Chassis Fan #1", "Reading": 45, "SpeedRPM": 1900}, {"Reading": 55, "SpeedRPM": 2100}]
    controller.resources = {**controller.resources, "/metrics": {"FanSpeedsPercent": [*speeds, {"Reading": 1}]}}
    found = list(chassis(tmp_path, redfish={"url": controller.url}).collect())
    assert of(found, m.FAN) == {("redfish:1", "Chassis Fan #1"): 1900, ("redfish:1", "fan 2"): 2100}


def test_many_sensors_in_one_answer_and_two_of_one_name(controller: Controller, tmp_path: Path) -> None:
    many = ({"Name": f"ps {number}", "Reading": number, "ReadingType": "Power"} for number in range(200))
    twins = ({"Name": "Temp", "Reading": value, "ReadingType": "Temperature"} for value in (45, 47))
    sensors(controller, *many, *twins)
    found = list(chassis(tmp_path, redfish={"url": controller.url}).collect())
    assert len(of(found, m.POWER)) == 200
    assert of(found, m.TEMPERATURE) == {("redfish:1", "Temp"): 45, ("redfish:1", "Temp #2"): 47}


def test_leak_detectors_of_the_chassis_itself(controller: Controller, tmp_path: Path) -> None:
    place = f"{ROOT}/1/LeakDetectors"
    sensors(controller, LeakDetectors=link(place))
    controller.resources = {
        **controller.resources,
        place: {"Members": [link(f"{place}/a"), link(f"{place}/b"), link(f"{place}/c")]},
        f"{place}/a": {"Id": "a", "Name": "ColdPlate", "DetectorState": "OK"},
        f"{place}/b": {"Id": "b", "Name": "Manifold", "DetectorState": "Critical"},
        f"{place}/c": {"Id": "c", "Name": "Absent", "DetectorState": None, "Status": {"State": "Absent"}},
    }
    found = list(chassis(tmp_path, redfish={"url": controller.url}).collect())
    assert of(found, m.COOLANT_LEAK) == {("redfish:1", "ColdPlate"): 0, ("redfish:1", "Manifold"): 1}


def test_an_older_redfish(controller: Controller, tmp_path: Path) -> None:
    controller.resources = OLD
    found = list(chassis(tmp_path, redfish={"url": controller.url}).collect())
    assert of(found, m.CHASSIS_POWER) == {("redfish:Self",): 850}
    assert of(found, m.TEMPERATURE) == {("redfish:Self", "CPU"): 55}
    assert not of(found, m.FAN), "a percentage is no speed"


def test_the_account_comes_from_its_file(controller: Controller, tmp_path: Path) -> None:
    controller.resources = OLD
    secret = tmp_path / "bmc"
    secret.write_text("reader:sesame\n")
    list(chassis(tmp_path, redfish={"url": controller.url, "credential_file": secret}).collect())
    assert set(controller.keys) == {"Basic " + base64.b64encode(b"reader:sesame").decode()}
    secret.write_text("sesame\n")
    collector = chassis(tmp_path, redfish={"url": controller.url, "credential_file": secret})
    with pytest.raises(PartialFailure, match="must hold user:password") as failure:
        list(collector.collect())
    assert "sesame" not in str(failure.value)


def test_a_controller_that_hangs_or_lies(controller: Controller, tmp_path: Path) -> None:
    settings = {"patience": "50ms", "controller_timeout": "300ms", "redfish": {"url": controller.url}}
    controller.hang = True
    collector = chassis(tmp_path, **settings)
    deadline = time.monotonic() + 30
    while not of(found := list(collector.collect()), m.CHASSIS_READ):
        assert time.monotonic() < deadline
    assert of(found, m.CHASSIS_READ) == {("redfish",): 0}
    controller.hang = False
    for nonsense in ([], {"Members": [{"@odata.id": "http://elsewhere/"}]}, {"Members": [link("/none")]}):
        controller.resources = {ROOT: nonsense}
        found = list(chassis(tmp_path, redfish={"url": controller.url}).collect())
        assert of(found, m.CHASSIS_READ) == {("redfish",): 0}


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.sampled_from(["OK", "Temperature", "/x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Id", "Members", "Sensors", "@odata.id", "Reading", "ReadingType"]), inner)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["Id", "Members", "Sensors", "Power", "PowerControl"]), json_values))
def test_any_resource_is_survived(resource: dict[str, Any]) -> None:
    bmc = Bmc("http://unused", None, None, 1.0)
    bmc._get = lambda path: resource  # type: ignore[method-assign]
    assert all(isinstance(one, Reading) for one in bmc._chassis(resource))


SDR = """Inlet Temp,24,degrees C,ok
Coolant In,31.5,degrees C,ok
PSU1 Power,1500,Watts,ok
Fan1,9000,RPM,ok
Fan2,,RPM,ns
12V,12.1,Volts,ok
odd line
"""
DCMI = "\n    Instantaneous power reading:                  6150 Watts\n    Minimum during sampling period: 1 Watts\n"


def test_ipmitool() -> None:
    assert ipmi.sdr(SDR) == [
        Reading("temperature", "ipmi", "Inlet Temp", 24),
        Reading("coolant_temperature", "ipmi", "Coolant In", 31.5),
        Reading("power", "ipmi", "PSU1 Power", 1500),
        Reading("fan", "ipmi", "Fan1", 9000),
    ]
    assert ipmi.dcmi(DCMI) == [Reading("chassis_power", "ipmi", "power", 6150)]
    assert ipmi.dcmi(DCMI.replace("6150", "0")) == [], "a machine that runs draws more: not measured"


def test_other_forms_of_its_lines() -> None:
    """With the entity behind the status, with the reading at the end, in hexadecimal, of a discrete sensor."""
    lines = (
        "Ambient Temp,24,degrees C,ok,1.1,1\nFAN2,42h,ok,29.2,3500 RPM\nFAN3,E1h,RPM,ok,\nCPU Temp,47,degrees C,ok,\n"
    )
    lines += "Chassis Intru,AAh,ok,23.1,\nPS2 Status,c9h,cr,10.2,Presence detected, Failure detected\nFAN4,,,ns\n"
    assert ipmi.sdr(lines) == [
        Reading("temperature", "ipmi", "Ambient Temp", 24),
        Reading("fan", "ipmi", "FAN2", 3500),
        Reading("temperature", "ipmi", "CPU Temp", 47),
    ]


def test_ipmitool_is_asked_and_its_error_told(tmp_path: Path) -> None:
    tool = tmp_path / "ipmitool"
    tool.write_text(f'#!/bin/sh\nif [ "$1" = -c ]; then cat <<E\n{SDR}\nE\nelse exit 1; fi\n')
    tool.chmod(0o755)
    assert len(ipmi.readings(20, [str(tool)])) == 4, "no DCMI is no failure"
    tool.write_text("#!/bin/sh\necho Could not open device >&2; exit 1\n")
    with pytest.raises(ValueError, match="Could not open device"):
        ipmi.readings(20, [str(tool)])
    assert not ipmi.usable(tmp_path), "no device node, nothing to ask"
