"""The demo's LLM server: llama.cpp's own HTTP server, with /metrics, on the tiny model.

Run as `python -m chaos.demo.engine --port 8080 --model tiny.gguf --pid-file engine.pid`. It speaks
/health, /metrics, /v1/completions and the rest of llama.cpp's interface; nothing here answers for it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import xllamacpp


def parameters(model: Path, port: int, slots: int, name: str) -> xllamacpp.CommonParams:
    """Server settings for a small machine: one compute thread, no busy polling, no prompt cache."""
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.endpoint_metrics = True
    params.n_parallel = slots
    params.n_ctx = 512 * slots
    params.n_predict = 256
    params.n_gpu_layers = 0
    params.n_threads_http = slots + 4  # health, metrics and a probe must not wait behind streams
    params.cache_ram_mib = 0
    params.cache_prompt = False  # every prompt is computed, so that the time to first token means something
    params.ui = False
    params.verbosity = 2  # warnings; the default writes several lines a request for ever
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = 1
        threads.poll = 0
    return params


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.demo.engine", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--port", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--slots", type=int, default=4, help="requests decoded at once")
    parser.add_argument("--name", default="tiny", help="model name in answers")
    parser.add_argument("--pid-file", type=Path, help="where to write this process's id")
    args = parser.parse_args(argv)

    stop = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)  # before the server's threads exist: they inherit it
    server = xllamacpp.Server(parameters(args.model, args.port, args.slots, args.name))
    if args.pid_file:
        args.pid_file.write_text(f"{os.getpid()}\n", encoding="ascii")
    print(f"llama.cpp server on {server.listening_address}, model {args.name}", file=sys.stderr, flush=True)
    signal.sigwait(stop)
    if args.pid_file:
        args.pid_file.unlink(missing_ok=True)
    sys.stderr.flush()
    os._exit(0)  # the server has no state to save, and its destructor waits for open streams


if __name__ == "__main__":
    raise SystemExit(main())
