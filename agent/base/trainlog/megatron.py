"""Megatron-LM and its relatives (Megatron-DeepSpeed, GPT-NeoX, Megatron-Bridge): `iteration N/M | key: value | ...`.

The line may begin with a date (2024 and later) or not; every field is closed by `|`, so the last part of a
line that was cut off is not taken for a value. `iteration N/infinity` (reinforcement learning) has no total.
"""

from __future__ import annotations

import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import Progress
from agent.base.trainlog.text import fields, integer, number

_HEADER = re.compile(r"iteration:?\s+(\d+)\s*/\s*(\d+|inf(?:inity)?)\s*\|", re.I)
_VALIDATION = re.compile(r"validation loss at iteration (\d+)(?: on \w+ set)? \| (.*)", re.I)
_TIMERS = re.compile(r"time \(ms\)\s*\|(.*)")
_TIMER = re.compile(r" +([a-z][\w-]*) \.{2,}: \(?([\d.]+)(?:, ([\d.]+)\))?")
"""One timer a line, the least and the greatest of all ranks: newer Megatron."""
_COMMUNICATION = re.compile(r"all-?_?reduce|all-gather|reduce-scatter|grads-sync|params-sync|\brecv\b|\bsend\b")
_LOSS_KEYS = ("lm loss", "lm-loss", "lm_loss", "loss", "total loss", "sft loss", "grpo loss")


class Megatron(Parser):
    name = "megatron"
    summary = "Megatron-LM, Megatron-DeepSpeed, GPT-NeoX console"
    claims = re.compile(
        r"elapsed time per iteration"
        r"|\biteration:?\s+\S+\s*/\s*\S+\s*\|\s*(?:consumed|elapsed|samples|tokens|learning|$)"
        r"|validation loss at iteration \d"
        r"|^\s*time \(ms\)\s*\|"
        r"|^ +[a-z][\w-]* \.{2,}: \(?\d",
        re.I,
    )
    heeds = re.compile(r"\b(seq_length|world_size) \.{3,} (\d+)|using world size: (\d+)|(time)s? across ranks \(ms\)")
    resumes = re.compile(r"successfully loaded checkpoint|loading checkpoint from .* at iteration", re.I)

    _sequence_length: int | None = None
    _world_size: int | None = None
    _step_seconds: float | None = None
    _communicating: float = 0.0
    """Milliseconds in the timers read since their heading."""

    def heed(self, found: re.Match[str]) -> None:
        name, value, world, times = found.groups()
        if times:
            self._communicating = 0.0
        elif name == "seq_length":
            self._sequence_length = int(value)
        else:
            self._world_size = int(world or value)

    def parse(self, line: str) -> Progress | None:
        if header := self._last_header(line):
            return self._iteration(header, line[header.end() :])
        if found := _VALIDATION.search(line):
            loss = next((v for k, v in fields(found[2]).items() if k.endswith("loss value")), None)
            value = number(loss)
            return Progress(validation_loss=value) if value is not None else None
        if found := _TIMERS.search(line):
            return self._share(_communication(found[1]))
        if found := _TIMER.match(line):
            self._communicating += number(found[3] or found[2]) or 0.0
            return self._share(self._communicating)
        return None

    def ignores(self, line: str) -> bool:
        """Timers that do not communicate, or come before the first iteration, tell nothing."""
        if found := _TIMERS.search(line):
            return self._step_seconds is None or _communication(found[1]) is None
        if found := _TIMER.match(line):
            return self._step_seconds is None or not _COMMUNICATION.search(found[1])
        return False

    @staticmethod
    def _last_header(line: str) -> re.Match[str] | None:
        """A writer that was killed in mid-line leaves a stump before the next writer's line: the last one counts."""
        headers = list(_HEADER.finditer(line))
        return headers[-1] if headers else None

    def _iteration(self, header: re.Match[str], rest: str) -> Progress | None:
        values = fields(rest.rpartition("|")[0])
        milliseconds = number(values.get("elapsed time per iteration (ms)"))
        seconds = number(values.get("elapsed time per iteration (s)"))
        if milliseconds is not None:
            seconds = milliseconds / 1000
        self._step_seconds = seconds
        batch = integer(values.get("global batch size"))
        length = integer(values.get("curriculum seqlen") or values.get("sequence length")) or self._sequence_length
        samples = number(values.get("consumed samples"))
        tokens = number(values.get("consumed tokens"))
        if tokens is None and samples is not None and length and "curriculum seqlen" not in values:
            tokens = samples * length
        teraflops = number(
            values.get("throughput per gpu (tflop/s/gpu)") or values.get("approx flops per gpu") or values.get("tflops")
        )
        per_gpu = number(values.get("tokens/sec/gpu") or values.get("tokens per gpu (tokens/s/gpu)"))
        rate = batch * length / seconds if batch and length and seconds else None
        if rate is None and per_gpu is not None and self._world_size:
            rate = per_gpu * self._world_size
        return Progress(
            step=int(header[1]),
            total_steps=int(header[2]) if header[2].isdigit() else None,
            step_seconds=seconds,
            loss=_loss(values),
            nonfinite=integer(values.get("number of nan iterations")) or 0,
            grad_norm=number(values.get("grad norm")),
            learning_rate=number(values.get("learning rate")),
            tokens_per_second=rate,
            tokens_per_second_gpu=per_gpu,
            samples_per_second=number(values.get("samples per second")),
            flops_gpu=teraflops * 1e12 if teraflops is not None else None,
            consumed_tokens=tokens,
            consumed_samples=samples,
            batch_size=batch,
            sequence_length=length,
        )

    def _share(self, milliseconds: float | None) -> Progress | None:
        """Communication over the time of the iteration; waiting for a pipeline peer counts: an upper bound."""
        if milliseconds is None or not self._step_seconds:
            return None
        return Progress(communication_ratio=min(milliseconds / 1000 / self._step_seconds, 1.0))


def _communication(timers: str) -> float | None:
    """Milliseconds in timers of a line that send, receive or reduce; None if there are none."""
    spent = [number(value) for name, value in fields(timers).items() if _COMMUNICATION.search(name)]
    known = [value for value in spent if value is not None]
    return sum(known) if known else None


def _loss(values: dict[str, str]) -> float | None:
    for key in _LOSS_KEYS:
        if key in values:
            return number(values[key])
    return None
