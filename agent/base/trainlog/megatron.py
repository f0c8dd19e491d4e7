"""Megatron-LM and its relatives (Megatron-DeepSpeed, GPT-NeoX, Megatron-Bridge): `iteration N/M | key: value | ...`.

The line may begin with a date (2024 and later) or not; every field is closed by `|`, so the last part of a
line that was cut off is not taken for a value. `iteration N/infinity` (reinforcement learning) has no total.
Until 2020 most values had no colon: `| lm loss 9.7E+00 |`. A loss that is no number is left out of the line.
"""

from __future__ import annotations

import math
import re

from agent.base.trainlog.parser import Parser
from agent.base.trainlog.progress import CUT, Progress
from agent.base.trainlog.reading import Reading
from agent.base.trainlog.text import fields, number

_HEADER = re.compile(r"(?<!, )iteration:?\s+(\d+)\s*/\s*(\d+|inf(?:inity)?)\s*\|", re.I | re.A)
_VALIDATION = re.compile(r".*validation loss at iteration (\d+)(?: on \w+ set)? \|(.*)", re.I | re.A)
_TIMERS = re.compile(r"time \(ms\)\s*\|(.*)")
_TIMER = re.compile(r" +([a-z][\w-]*) \.{2,}:\s*(?:\((.*), (.*)\)|(.*))$")
"""One timer a line, the least and the greatest of all ranks: newer Megatron."""
_COMMUNICATION = re.compile(
    r"(?!.*_microstep)(?:.*(?:all-?_?reduce|all-gather|reduce-scatter|grads-sync|params-sync|\brecv\b|\bsend\b))"
)
_ENTROPIES = ("lm loss", "lm-loss", "lm_loss")
"""Losses that cannot be negative."""
_LOSS_KEYS = (*_ENTROPIES, "loss", "total loss", "sft loss", "grpo loss")
_LAST = "number of nan iterations"
"""It closes the line: a line that has it is whole."""
_SLASHED = ("elapsed time per iteration (ms)", "throughput per gpu (tflop/s/gpu)", "tokens per gpu (tokens/s/gpu)")
"""Values behind which some relatives write their average: `13100.0/13240.9`."""


class Megatron(Parser):
    name = "megatron"
    summary = "Megatron-LM, Megatron-DeepSpeed, GPT-NeoX console"
    claims = re.compile(
        r"elapsed time per iteration"
        r"|(?<!, )\biteration:?\s+\S+\s*/\s*\S+\s*\|\s*(?:[a-z][^|:]*:|$)"
        r"|validation loss at iteration \d"
        r"|(?:^|\])\s*(?:rank=\d+ )?time \(ms\)\s*\|"
        r"|^ +[a-z][\w-]* \.{2,}:",
        re.I,
    )
    heeds = re.compile(r"\b(seq_length|world_size) \.{3,} (\d+)|using world size: (\d+)|(time)s? across ranks \(ms\)")
    resumes = re.compile(r"successfully loaded checkpoint|loading checkpoint from .* at iteration", re.I)

    _sequence_length: int | None = None
    _world_size: int | None = None
    _step_seconds: float | None = None
    _has_entropy = False
    _communicating: float | None = 0.0
    """Milliseconds in the timers read since their heading, None once one of them was damaged."""

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
        if found := _VALIDATION.match(line):
            return self._validation(found[2])
        if found := _TIMERS.search(line):
            cut = self.ends_early("timers", list(fields(found[1])))
            return self._share(None if cut else _communication(found[1]))
        if found := _TIMER.match(line):
            values = Reading()
            given = [values.take("communication_ratio", value) for value in found.groups()[1:] if value is not None]
            spent = None if values.damaged else given[-1]
            if spent is None or self._communicating is None:
                self._communicating = None
            else:
                self._communicating += spent
            return self._share(self._communicating)
        return None

    @staticmethod
    def _validation(rest: str) -> Progress | None:
        named, cut = _closed(rest)
        name = next((key for key in named if key.endswith("loss value")), None)
        if name is None:
            return None
        values = Reading(named)
        loss = values.number("validation_loss", name)
        values.spoil(*[CUT] * cut)
        return Progress(validation_loss=loss, damaged=values.damaged)

    def ignores(self, line: str) -> bool:
        """Timers that do not communicate, or come before the first iteration, tell nothing."""
        if found := _TIMERS.search(line):
            return self._step_seconds is None or not any(map(_COMMUNICATION.search, fields(found[1])))
        if found := _TIMER.match(line):
            return self._step_seconds is None or not _COMMUNICATION.search(found[1])
        return False

    @staticmethod
    def _last_header(line: str) -> re.Match[str] | None:
        """A writer that was killed in mid-line leaves a stump before the next writer's line: the last one counts."""
        headers = list(_HEADER.finditer(line))
        return headers[-1] if headers else None

    def _iteration(self, header: re.Match[str], rest: str) -> Progress | None:
        named, cut = _closed(rest)
        values = Reading(named)
        values.spoil(*[CUT] * cut)
        milliseconds = values.number("step_seconds", "elapsed time per iteration (ms)")
        seconds = values.number("step_seconds", "elapsed time per iteration (s)")
        if milliseconds is not None:
            seconds = milliseconds / 1000
        self._step_seconds = seconds
        batch = values.integer("batch_size", "global batch size")
        length = values.integer("sequence_length", "curriculum seqlen", "sequence length")
        if length is None and "sequence_length" not in values.damaged:
            length = self._sequence_length
        samples = values.number("consumed_samples", "consumed samples")
        tokens = values.number("consumed_tokens", "consumed tokens")
        values.derive("consumed_tokens", ("consumed_samples", "sequence_length") if tokens is None else ())
        if "consumed_tokens" not in values.damaged and tokens is None and "curriculum seqlen" not in named:
            tokens = samples * length if samples is not None and length else None
        teraflops = values.number("flops_gpu", "throughput per gpu (tflop/s/gpu)", "approx flops per gpu", "tflops")
        per_gpu = values.number("tokens_per_second_gpu", "tokens/sec/gpu", "tokens per gpu (tokens/s/gpu)")
        values.derive("communication_ratio", ("step_seconds",))
        values.derive("tokens_per_second", ("batch_size", "sequence_length", "step_seconds"))
        rate = None
        if "tokens_per_second" not in values.damaged:
            rate = batch * length / seconds if batch and length and seconds else None
            if rate is None and per_gpu is not None and self._world_size:
                rate = per_gpu * self._world_size
        return Progress(
            step=int(header[1]),
            total_steps=int(header[2]) if header[2].isdigit() else None,
            step_seconds=seconds,
            loss=self._loss(named, values),
            nonfinite=values.integer("nonfinite", _LAST) or 0,
            grad_norm=values.number("grad_norm", "grad norm"),
            learning_rate=values.number("learning_rate", "learning rate"),
            tokens_per_second=rate,
            tokens_per_second_gpu=per_gpu,
            samples_per_second=values.number("samples_per_second", "samples per second"),
            flops_gpu=teraflops * 1e12 if teraflops is not None else None,
            consumed_tokens=tokens,
            consumed_samples=samples,
            batch_size=batch,
            sequence_length=length,
            damaged=values.damaged,
        )

    def _loss(self, named: dict[str, str], values: Reading) -> float | None:
        """The loss; nan where the line must have one and has none: `training_log` writes an average that is >= 0 only.

        Where all iterations since the last line were skipped (the loss scale was too large) there is no loss to write.
        """
        if any(key in named for key in _ENTROPIES):
            self._has_entropy = True
        elif self._has_entropy and _LAST in named and not any(key in named for key in _LOSS_KEYS):
            skipped = values.integer("nonfinite", "number of skipped iterations")
            if not skipped or values.integer("nonfinite", _LAST):
                return math.nan
        return values.number("loss", *_LOSS_KEYS)

    def _share(self, milliseconds: float | None) -> Progress | None:
        """Communication over the time of the iteration; waiting for a pipeline peer counts: an upper bound."""
        if not self._step_seconds:
            return None
        if milliseconds is None:
            return Progress(damaged=frozenset({"communication_ratio"}))
        return Progress(communication_ratio=min(milliseconds / 1000 / self._step_seconds, 1.0))


def _closed(rest: str) -> tuple[dict[str, str], bool]:
    """The values of a line whose every value is closed by `|`, and whether something behind the last one is not.

    The value that is not closed is empty: it may have lost its end, and is no number.
    """
    closed, _, end = rest.rpartition("|")
    name, colon, _ = end.partition(":")
    named = fields(closed)
    for part in closed.split("|"):
        key, _, value = part.strip().rpartition(" ")
        if ":" not in part and key:
            named.setdefault(key.lower(), value)
    if colon:
        named[name.strip().lower()] = ""
    for key in _SLASHED:
        if key in named:
            now, _, average = named[key].partition("/")
            if number(average) is not None:
                named[key] = now
    if "approx flops per gpu" in named:
        named["approx flops per gpu"] = named["approx flops per gpu"].removesuffix("TFLOPS")
    return named, bool(end.strip())


def _communication(timers: str) -> float | None:
    """Milliseconds in the timers of a line that send, receive or reduce; None if one of them is damaged."""
    spent = [number(value) for name, value in fields(timers).items() if _COMMUNICATION.search(name)]
    return None if None in spent else sum(value for value in spent if value is not None)
