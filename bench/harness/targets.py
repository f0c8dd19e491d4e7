"""What others feed the agent, each as a fuzz target: bytes go in, and nothing but the parser's own errors comes out.

A target is a function of bytes that raises on a defect, with seeds that are good input. `./dev bench fuzz` drives them
by atheris, tests/unit/test_fuzz_targets.py by hypothesis.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.base import statefile
from agent.base.config import loads
from agent.base.errors import ConfigError
from agent.base.exposition import accepts_gzip, negotiate
from agent.base.trainlog import FORMATS, Auto, trainer_state
from agent.base.trainlog.events import DamagedFrame, EventReader
from agent.base.web import App, Server, text
from agent.base.web.connection import Connection
from agent.base.web.guard import _pair
from agent.base.web.webconfig import WebConfig
from agent.checkpoint import manifest
from agent.collectors.filesystem import mounts
from agent.gpu import wire
from agent.health import kernel_lines, kmsg, xid_lines
from agent.health.journal import JournalLog
from agent.health.ledger import Ledger
from agent.inference import owner, probe
from agent.inference.mapping import ENGINES, WANTED
from agent.inference.normalise import normalise, served_model
from agent.inference.page import read_page
from agent.node import ipmi, nvme, redfish
from agent.node.nut import Nut, NutError
from agent.settings import loads_config
from agent.training.reports import ReportSource, Socket

DATA = Path(__file__).parents[2] / "tests/data"
_FOLDER = Path(tempfile.gettempdir())


@dataclass(frozen=True, slots=True)
class Target:
    """`run` raises on a defect; `seeds` are inputs from which a fuzzer sets out."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _file(data: bytes, name: str) -> Path:
    path = _FOLDER / name
    path.write_bytes(data)
    return path


def kernel_record(data: bytes) -> None:
    found = kmsg.parse(data.decode(errors="replace"), 1e9)
    if found is not None:
        xid_lines.parse(found.text)
        xid_lines.continues(found.text)
        kernel_lines.kind_of(found.text)


def journal_line(data: bytes) -> None:
    log = JournalLog("boot")
    log._record(data)
    json.dumps(log.state())


def _chosen(data: bytes, kinds: Sequence[Any]) -> tuple[Any, bytes]:
    """One of several kinds, by the first byte, and the rest: an input that went through all of them would be slow."""
    return kinds[data[0] % len(kinds) if data else 0], data[1:]


def engine_page(data: bytes) -> None:
    kind, data = _chosen(data, list(ENGINES.values()))
    page = read_page((data[at : at + 100] for at in range(0, len(data), 100)), WANTED)
    served_model(page)
    for sample in normalise(page, kind, "engine", "model"):
        assert all(isinstance(label, str) for label in sample.labels)


def training_log(data: bytes) -> None:
    kind, data = _chosen(data, (Auto, *FORMATS.values()))
    parser = kind()
    for line in data.decode(errors="replace").split("\n"):
        parser.feed(line)


def training_state(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        trainer_state.records(data.decode(errors="replace"))


def training_report(data: bytes) -> None:
    server = Socket.__new__(Socket)  # its parser alone: no thread, no socket
    server._sources = {"job": ReportSource()}
    status, _ = server.accept(data, 1e9)
    assert status in (200, 400, 404)


def tensorboard(data: bytes) -> None:
    reader = EventReader()
    with contextlib.suppress(DamagedFrame):
        reader.feed(data)
        reader.flush()


def agent_config(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        loads_config(data.decode(errors="replace"), environ={})


def web_config(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        loads(WebConfig, data.decode(errors="replace"), environ={})


class _Wire:
    """A transport that takes everything."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.closing = False

    def write(self, data: bytes) -> None:
        self.out += data

    def close(self) -> None:
        self.closing = True

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> object:
        return ("127.0.0.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None: ...

    def pause_reading(self) -> None: ...

    resume_reading = pause_reading


def _app() -> App:
    app = App()
    app.route("/metrics", lambda request: text("a 1"))
    app.route("/report", lambda request: text(str(len(request.body))), methods=("POST",), max_body=64)
    return app


def http_request(data: bytes) -> None:
    transport, server = _Wire(), Server(_app())
    connection = Connection(server)
    connection.connection_made(transport)  # type: ignore[arg-type]
    for at in range(0, len(data), 37):
        if not transport.closing:
            connection.data_received(data[at : at + 37])
    connection.eof_received()
    connection.connection_lost(None)
    out = bytes(transport.out)
    assert not out or out.startswith(b"HTTP/1.1 "), out[:100]
    assert b"HTTP/1.1 500" not in out, out[:100]


def http_headers(data: bytes) -> None:
    header = data.decode("latin-1")
    negotiate(header)
    accepts_gzip(header)
    _pair(header)


def checkpoint_manifest(data: bytes) -> None:
    for name in ("manifest.json", "SHA256SUMS"):
        with contextlib.suppress(manifest.ManifestError):
            manifest.read(_file(data, name))


def nut_answer(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[:60_000])
        theirs.shutdown(socket.SHUT_WR)
        nut = Nut.__new__(Nut)
        nut._socket, nut._rest, nut._deadline = ours, b"", time.monotonic() + 5
        for ask in (nut.names, lambda: nut.variables("ups")):
            with contextlib.suppress(NutError, OSError):
                ask()


def ipmi_answer(data: bytes) -> None:
    said = data.decode(errors="replace")
    ipmi.sdr(said)
    ipmi.dcmi(said)


def redfish_answer(data: bytes) -> None:
    try:
        resource = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(resource, dict):
        bmc = redfish.Bmc("http://unused", None, None, 1.0)
        bmc._get = lambda path: resource  # type: ignore[method-assign]
        list(bmc._chassis(resource))


def nvme_log(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        nvme.parse(data)


def mountinfo(data: bytes) -> None:
    mounts(data.decode(errors="replace"))


def control_group(data: bytes) -> None:
    owner.parse(data.decode(errors="replace"))


def token_stream(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        probe.read_stream((data[at : at + 50] for at in range(0, len(data), 50)), 0.0, lambda: 1.0)


def child_frames(data: bytes) -> None:
    with contextlib.suppress(wire.WireError):
        for kind, body in wire.Stream().feed(data):
            (wire.unpack_values if kind == wire.VALUES else wire.unpack)(body)


def state_file(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        Ledger.restore(statefile.load(_file(data, "fuzz-state.json")), "boot")


def _lines(*texts: str) -> tuple[bytes, ...]:
    return tuple(each.encode() for each in texts)


def _head(name: str, size: int = 3000) -> bytes:
    return (DATA / name).read_bytes()[:size]


def _engine_pages() -> Iterator[bytes]:
    """Pieces of real pages, each for the engine that it is of."""
    for name, kind in (("vllm_0.32_after", "vllm"), ("llama_cpp_after", "llama.cpp")):
        page, number = _head(f"metrics/{name}.prom", 60_000), list(ENGINES).index(kind)
        for at in range(0, len(page), 6000):
            yield bytes([number]) + page[page.find(b"\n", at) + 1 :][:1200]


def _training_logs() -> Iterator[bytes]:
    """The middle of each real log, for the format to be found out; the lines that each format's description cites."""
    for log in sorted((DATA / "training").glob("*.log")):
        content = log.read_bytes()
        yield b"\0" + content[:500]
        yield b"\0" + content[len(content) // 2 :][:500]
    for number, kind in enumerate(FORMATS.values(), 1):
        cited = re.findall(r"`([^`]+)`", sys.modules[kind.__module__].__doc__ or "")
        yield bytes([number]) + "\n".join(cited).encode()


_JOURNAL: dict[str, Any] = {
    "__CURSOR": "s=1;i=2;b=3;m=4;t=5;x=6",
    "__REALTIME_TIMESTAMP": "1",
    "__MONOTONIC_TIMESTAMP": "1",
    "MESSAGE": "NVRM: Xid",
}
_XID = "NVRM: Xid (PCI:0000:41:00): 79, pid=1, name=python, GPU has fallen off the bus."
_REPORT = {"job_id": "job", "step": 5, "loss": 2.5}

TARGETS: dict[str, Target] = {
    "kernel_record": Target(
        kernel_record, _lines(f"3,1,2,-;{_XID}", "6,1,2,-;nvidia-nvswitch1: SXid (PCI:0000:05:00.0): 20034, Fatal")
    ),
    "journal_line": Target(journal_line, _lines(json.dumps(_JOURNAL))),
    "engine_page": Target(engine_page, tuple(_engine_pages())),
    "training_log": Target(training_log, tuple(_training_logs())),
    "training_state": Target(training_state, _lines('{"max_steps": 9, "log_history": [{"step": 1, "loss": 2.5}]}')),
    "training_report": Target(training_report, _lines(json.dumps(_REPORT), json.dumps([_REPORT]))),
    "tensorboard": Target(
        tensorboard, (_head("training/tensorboardX.tfevents"), _head("training/tensorboard_tensors.tfevents"))
    ),
    "agent_config": Target(agent_config, _lines("listen: 127.0.0.1:1\ncollectors:\n  gpu: {period: 5s}\n")),
    "web_config": Target(
        web_config, _lines("tls_server_config: {cert_file: a, key_file: b}\nrate_limit: {interval: 1s, burst: 2}\n")
    ),
    "http_request": Target(
        http_request,
        _lines(
            "GET /metrics?a=%41 HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /report HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok",
        ),
    ),
    "http_headers": Target(
        http_headers, _lines("application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1", "gzip;q=0.5", "Basic YTpi")
    ),
    "checkpoint_manifest": Target(
        checkpoint_manifest,
        _lines('{"files": [{"path": "f", "size": 1, "sha256": "%s"}]}' % ("a" * 64), "a" * 64 + "  f\n"),
    ),
    "nut_answer": Target(
        nut_answer,
        _lines('BEGIN LIST UPS\nUPS ups "x"\nEND LIST UPS\nBEGIN LIST VAR ups\nVAR ups a.b "1"\nEND LIST VAR ups\n'),
    ),
    "ipmi_answer": Target(
        ipmi_answer, _lines("Inlet Temp,24,degrees C,ok\n", "  Instantaneous power reading:  6150 Watts\n")
    ),
    "redfish_answer": Target(
        redfish_answer,
        _lines(
            '{"Id": "1", "Sensors": {"@odata.id": "/s"}, "Members": [{"Reading": 1, "ReadingType": "Temperature"}]}'
        ),
    ),
    "nvme_log": Target(nvme_log, (bytes(range(256)) * 2,)),
    "mountinfo": Target(mountinfo, _lines("29 27 0:50 / /ck\\040pt rw,relatime - nfs4 store:/ckpt rw,vers=4.2\n")),
    "control_group": Target(
        control_group, _lines("0::/system.slice/vllm.service\n", "0::/kubepods.slice/kubepods-pod1.slice/cri-a.scope\n")
    ),
    "token_stream": Target(
        token_stream,
        _lines('data: {"choices": [{"text": "a"}], "usage": {"completion_tokens": 1}}\n\ndata: [DONE]\n\n'),
    ),
    "child_frames": Target(child_frames, (wire.pack(wire.HELLO, {"version": 1}), wire.pack_values(1, 2, 3.0, []))),
    "state_file": Target(state_file, _lines('{"boot_id": "boot", "actions": [["u", false, "a", 1]], "events": []}')),
}
