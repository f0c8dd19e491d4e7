"""Power feeds: NUT's protocol spoken to a small upsd, its errors, its silence."""

import socketserver
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.catalogue import Metric, Sample
from agent.base.catalogue import hardware as m
from agent.base.collector import Context
from agent.base.config import loads
from agent.base.errors import ConfigError
from agent.collectors.ups import Ups, UpsSettings, samples

FEED_A = {
    "ups.status": "OL CHRG",
    "ups.mfr": "APC",
    "ups.model": 'Smart-UPS "X"',
    "battery.charge": "87.5",
    "battery.runtime": "1320",
    "ups.load": "42",
    "ups.realpower": "2100",
    "input.voltage": "231.0",
    "input.L1-N.voltage": "229.5",
}


class Upsd(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        self.feeds: dict[str, dict[str, str] | str] = {}
        self.silent = threading.Event()
        self.dribble = False
        super().__init__(("127.0.0.1", 0), Session)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server = self.server
        assert isinstance(server, Upsd)
        while line := self.rfile.readline():
            for reply in answer(server, line.decode().split()):
                if server.dribble:
                    for byte in reply.encode() * 1000:
                        self.wfile.write(bytes([byte]).replace(b"\n", b"x"))
                        time.sleep(0.02)
                self.wfile.write(reply.encode() + b"\n")


def answer(server: Upsd, words: list[str]) -> Iterator[str]:
    if words == ["LIST", "UPS"]:
        yield "BEGIN LIST UPS"
        yield from (f'UPS {name} "described so"' for name in server.feeds)
        yield "END LIST UPS"
        return
    feed = server.feeds.get(words[2], "ERR UNKNOWN-UPS")
    if isinstance(feed, str):
        yield feed
        return
    yield f"BEGIN LIST VAR {words[2]}"
    for name, value in feed.items():
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        yield f'VAR {words[2]} {name} "{quoted}"'
    yield f"END LIST VAR {words[2]}"


@pytest.fixture
def upsd() -> Iterator[Upsd]:
    with Upsd() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def of(found: list[Sample], metric: Metric) -> dict[tuple[str, ...], float]:
    return {s.labels: s.value for s in found if s.metric is metric}


def ask(*servers: str, timeout: str = "10s") -> list[Sample]:
    return list(Ups(UpsSettings.model_validate({"servers": servers, "timeout": timeout}), Context("", "")).collect())


def test_two_feeds(upsd: Upsd) -> None:
    upsd.feeds = {"feed-a": FEED_A, "feed-b": {**FEED_A, "ups.status": "OB LB RB", "battery.runtime": "95"}}
    found = ask(upsd.address)
    assert of(found, m.UPS_SERVER_UP) == {(upsd.address,): 1}
    assert of(found, m.UPS_ON_BATTERY) == {("feed-a",): 0, ("feed-b",): 1}
    assert of(found, m.UPS_LOW_BATTERY) == {("feed-a",): 0, ("feed-b",): 1}
    assert of(found, m.UPS_REPLACE) == {("feed-a",): 0, ("feed-b",): 1}
    assert of(found, m.UPS_RUNTIME) == {("feed-a",): 1320, ("feed-b",): 95}
    assert of(found, m.UPS_CHARGE)["feed-a",] == 0.875
    assert of(found, m.UPS_LOAD)["feed-a",] == 0.42
    assert of(found, m.UPS_POWER)["feed-a",] == 2100
    assert of(found, m.UPS_VOLTAGE)["feed-a", "input"] == 231
    assert of(found, m.UPS_VOLTAGE)["feed-a", "L1-N"] == 229.5
    assert ("feed-a", 'APC Smart-UPS "X"', "OL CHRG") in of(found, m.UPS_INFO)


def test_a_ups_that_upsd_hears_no_more_shows_nothing_old(upsd: Upsd) -> None:
    upsd.feeds = {"feed-a": FEED_A, "feed-b": "ERR DATA-STALE"}
    found = ask(upsd.address)
    assert of(found, m.UPS_COMMUNICATION) == {("feed-a",): 1, ("feed-b",): 0}
    assert {labels[0] for labels in of(found, m.UPS_RUNTIME)} == {"feed-a"}


def test_no_server_and_a_server_without_words(upsd: Upsd) -> None:
    upsd.feeds = {"feed-a": FEED_A}
    found = ask("127.0.0.1:9", upsd.address)
    assert of(found, m.UPS_SERVER_UP) == {("127.0.0.1:9",): 0, (upsd.address,): 1}
    assert of(found, m.UPS_RUNTIME) == {(f"feed-a@{upsd.address}",): 1320}, "one name may stand on two servers"
    upsd.dribble = True
    assert of(ask(upsd.address, timeout="300ms"), m.UPS_SERVER_UP) == {(upsd.address,): 0}


def test_unknown_values_are_absent() -> None:
    found = list(samples("u", {"ups.status": "WAIT", "battery.runtime": "-1", "battery.charge": "NA"}))
    assert {s.metric for s in found} == {m.UPS_INFO}


@pytest.mark.parametrize(
    "nonsense",
    [("battery.charge", text) for text in ("255", "1000", "-197.6")]
    + [("battery.runtime", text) for text in ("65535", "3932100", "64:41", "-60.0")]
    + [("ups.load", text) for text in ("255", "520", "46" + "0" * 60)]
    + [("input.voltage", text) for text in ("-6437", "-159357104", "2320")],
)
def test_what_drivers_give_that_know_nothing_is_absent(nonsense: tuple[str, str]) -> None:
    """Values that owners of such units have sent in to NUT's library of devices."""
    assert {s.metric for s in samples("u", dict([nonsense]))} == {m.UPS_INFO}


def test_real_power_of_the_output_and_of_its_phases() -> None:
    phases = {f"output.L{phase}.realpower": str(1000 * phase) for phase in (1, 2, 3)}
    assert of(list(samples("u", phases)), m.UPS_POWER) == {("u",): 6000}
    assert of(list(samples("u", {**phases, "output.realpower": "6100"})), m.UPS_POWER) == {("u",): 6100}
    del phases["output.L2.realpower"]
    assert not of(list(samples("u", phases)), m.UPS_POWER), "two phases are not the whole"


@given(st.dictionaries(st.sampled_from([*FEED_A]), st.text(max_size=10)))
def test_any_value_is_survived(variables: dict[str, str]) -> None:
    for sample in samples("u", variables):
        assert sample.value == sample.value


@pytest.mark.parametrize("server", ["host:", "host:0", "host:x", ":3493", "host:99999"])
def test_bad_addresses_are_named(server: str) -> None:
    with pytest.raises(ConfigError, match=r"config:1: servers: must be host or host:port"):
        loads(UpsSettings, f"servers: ['{server}']", environ={})
