"""A small open-loop load: streamed completions at Poisson times, each on a connection of its own.

Open loop means that a slow server does not slow the arrivals down, so that its queue shows. What
would exceed `--limit` requests in flight is counted as dropped, never delayed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

PROMPTS = ("the node", "gpu model token", "step loss rank time", "link host rate page drill the node gpu")
CHUNK = 65536


@dataclass(slots=True)
class Load:
    """Send streamed completions to `host:port` at `rate` a second (mean) until cancelled."""

    host: str
    port: int
    rate: float = 3.0
    limit: int = 16
    timeout: float = 10.0
    seed: int = 1
    outcomes: Counter[str] = field(default_factory=Counter)
    """Requests by outcome: sent, ok, error, dropped."""

    async def run(self) -> None:
        rng = random.Random(self.seed)  # noqa: S311 - arrival times, not secrets
        loop = asyncio.get_running_loop()
        flights: set[asyncio.Task[None]] = set()
        due = loop.time()
        try:
            while True:
                due += rng.expovariate(self.rate)
                await asyncio.sleep(max(0.0, due - loop.time()))
                if len(flights) >= self.limit:
                    self.outcomes["dropped"] += 1
                    continue
                self.outcomes["sent"] += 1
                flight = asyncio.create_task(self.request(rng.choice(PROMPTS), rng.randint(8, 48)))
                flights.add(flight)
                flight.add_done_callback(flights.discard)
        finally:
            for flight in flights:
                flight.cancel()
            await asyncio.gather(*flights, return_exceptions=True)

    async def request(self, prompt: str, tokens: int) -> None:
        """One completion, read to the end of its stream; the outcome is counted."""
        try:
            finished = await asyncio.wait_for(self._stream(prompt, tokens), self.timeout)
        except (OSError, asyncio.TimeoutError):
            finished = False
        self.outcomes["ok" if finished else "error"] += 1

    async def _stream(self, prompt: str, tokens: int) -> bool:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            body = json.dumps({"prompt": prompt, "max_tokens": tokens, "stream": True}).encode()
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nHost: demo\r\nContent-Type: application/json\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            await writer.drain()
            status = await reader.readline()
            tail = b""
            while chunk := await reader.read(CHUNK):
                tail = (tail + chunk)[-64:]
            return status.split()[1:2] == [b"200"] and b"data: [DONE]" in tail
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def report(load: Load, period: float = 10.0) -> None:
    """Print the running totals now and then."""
    while True:
        await asyncio.sleep(period)
        print(json.dumps(dict(load.outcomes)), flush=True)


async def serve(load: Load) -> None:
    """Run until SIGINT or SIGTERM."""
    work = asyncio.ensure_future(asyncio.gather(load.run(), report(load)))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.demo.load", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port of the LLM server on 127.0.0.1")
    parser.add_argument("--rate", type=float, default=3.0, help="requests a second, on average")
    parser.add_argument("--limit", type=int, default=16, help="most requests in flight")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    if args.rate <= 0 or args.limit < 1:
        parser.error("--rate must be above 0 and --limit at least 1")
    load = Load("127.0.0.1", args.port, args.rate, args.limit, seed=args.seed)
    asyncio.run(serve(load))
    print(json.dumps(dict(load.outcomes)), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
