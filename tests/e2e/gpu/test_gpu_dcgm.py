"""DCGM's profiling fields on a GPU without GPM: a stand-in page, since DCGM itself needs a real GPU."""

import http.server
import threading

import pytest

from agent.base.collector import PartialFailure
from agent.collectors.dcgm import Dcgm, DcgmSettings
from agent.intake import Intake

pytestmark = pytest.mark.e2e

PAGE = """\
# HELP DCGM_FI_PROF_DRAM_ACTIVE Ratio of cycles the device memory interface is active
# TYPE DCGM_FI_PROF_DRAM_ACTIVE gauge
DCGM_FI_PROF_DRAM_ACTIVE{{gpu="0",UUID="{uuid}",device="nvidia0",modelName="Tesla T4",Hostname="h"}} {dram}
DCGM_FI_PROF_DRAM_ACTIVE{{gpu="0",UUID="GPU-other",device="nvidia1",modelName="Tesla T4",Hostname="h"}} 0.9
# TYPE DCGM_FI_PROF_SM_ACTIVE gauge
DCGM_FI_PROF_SM_ACTIVE{{gpu="0",UUID="{uuid}",GPU_I_ID="3"}} 0.1
DCGM_FI_PROF_SM_ACTIVE{{gpu="0",UUID="{uuid}"}} {sm}
# TYPE DCGM_FI_PROF_PCIE_TX_BYTES counter
DCGM_FI_PROF_PCIE_TX_BYTES{{gpu="0",UUID="{uuid}"}} 1000
# TYPE DCGM_FI_PROF_PIPE_FP16_ACTIVE gauge
DCGM_FI_PROF_PIPE_FP16_ACTIVE{{gpu="0",UUID="{uuid}"}} 7e9
"""


@pytest.fixture
def serve():
    pages = {"/metrics": ""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = pages["/metrics"].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield pages, f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


def collect(dcgm):
    intake = Intake(strict=True)
    intake.begin()
    intake.take(dcgm.collect())
    return {stem: list(family.lines.values()) for stem, family in intake.end().items()}


def test_fields_of_a_gpu_without_gpm(make_node, serve):
    pages, url = serve
    node = make_node(world={"gpus": 1, "profile": "t4"})
    page = node.until(lambda page: page.all("gpuvigil_gpu_pcie_tx_bytes_per_second"))
    uuid = node.world.gpus[0].uuid
    peak = page.one("gpuvigil_gpu_dram_bandwidth_peak_bytes_per_second")
    pages["/metrics"] = PAGE.format(uuid=uuid, dram=0.25, sm=0.5)
    dcgm = Dcgm(DcgmSettings(url=url), node.context)
    assert collect(dcgm) == {
        "gpuvigil_gpu_dram_bandwidth_ratio": [0.25],
        "gpuvigil_gpu_dram_bandwidth_bytes_per_second": [0.25 * peak],
        "gpuvigil_gpu_sm_activity_ratio": [0.5],
    }
    page = node.page()
    assert page.one("gpuvigil_gpu_feature_supported", feature="dram_bandwidth") == 1
    dcgm.close()
    assert node.page().one("gpuvigil_gpu_feature_supported", feature="dram_bandwidth") == 0


def test_zeros_of_a_busy_gpu_are_not_believed(make_node, serve):
    pages, url = serve
    node = make_node(world={"gpus": 1, "profile": "t4", "workload": "training"})
    node.until(lambda page: (page.one("gpuvigil_gpu_utilization_ratio") or 0) > 0.6)
    text = PAGE.format(uuid=node.world.gpus[0].uuid, dram=0, sm=0).replace("1000", "0").replace("7e9", "0")
    pages["/metrics"] = text
    assert collect(Dcgm(DcgmSettings(url=url), node.context)) == {}


def test_what_gpm_tells_is_not_told_twice(make_node, serve):
    pages, url = serve
    node = make_node(world={"gpus": 1})
    node.until(lambda page: page.all("gpuvigil_gpu_dram_bandwidth_ratio"))
    pages["/metrics"] = PAGE.format(uuid=node.world.gpus[0].uuid, dram=0.25, sm=0.5)
    assert collect(Dcgm(DcgmSettings(url=url), node.context)) == {}


def test_no_exporter_there_is_a_failure_that_names_it(make_node):
    node = make_node(world={"gpus": 1, "profile": "t4"})
    node.until(lambda page: page.all("gpuvigil_gpu_up"))
    with pytest.raises(PartialFailure, match=r"http://127\.0\.0\.1:1/"):
        collect(Dcgm(DcgmSettings(url="http://127.0.0.1:1/"), node.context))
    assert collect(Dcgm(DcgmSettings(url=None), node.context)) == {}


def test_the_usual_port_is_asked_only_where_a_gpu_lacks_gpm(make_node, serve, monkeypatch):
    pages, url = serve
    monkeypatch.setattr("agent.collectors.dcgm.USUAL_URL", "http://127.0.0.1:1/metrics")
    node = make_node(world={"gpus": 1, "profile": "a40"})
    node.until(lambda page: page.all("gpuvigil_gpu_power_watts"))
    dcgm = Dcgm(DcgmSettings(), node.context)
    assert collect(dcgm) == {}  # nobody is there: no failure either
    monkeypatch.setattr("agent.collectors.dcgm.USUAL_URL", url)
    pages["/metrics"] = PAGE.format(uuid=node.world.gpus[0].uuid, dram=0.25, sm=0.5)
    assert collect(dcgm)["gpuvigil_gpu_dram_bandwidth_ratio"] == [0.25]
    assert node.page().one("gpuvigil_gpu_feature_supported", feature="dram_bandwidth") == 1
