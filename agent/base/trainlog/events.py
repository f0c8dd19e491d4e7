"""TensorBoard event files: TFRecord frames round protobuf messages, of which scalars are read by hand.

A frame is length (8 bytes, little endian), masked CRC-32C of it (4), data, masked CRC-32C of the data (4). The data
is an `Event`: wall_time = 1 (double), step = 2, summary = 5 with values = 1: tag = 1, simple_value = 2 (float),
tensor = 8 (as TensorFlow 2 writes scalars). The CRC of the length keeps the framing; that of the data is checked
where the data has scalars, which is never long.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from agent.base.trainlog.progress import Progress

FRAME_LIMIT: Final = 16 * 1024 * 1024
"""Longest frame that is looked into (graphs and images may be large)."""
TAGS: Final[dict[str, str]] = {
    "loss": "loss",
    "train_loss": "loss",
    "train_loss_step": "loss",
    "loss_step": "loss",
    "lm loss": "loss",
    "reduced_train_loss": "loss",
    "global_avg_loss": "loss",
    "eval_loss": "validation_loss",
    "val_loss": "validation_loss",
    "lm loss validation": "validation_loss",
    "learning_rate": "learning_rate",
    "learning-rate": "learning_rate",
    "lr": "learning_rate",
    "grad_norm": "grad_norm",
    "grad-norm": "grad_norm",
    "epoch": "epoch",
    "iteration-time": "step_seconds",
    "train_step_timing in s": "step_seconds",
    "consumed_samples": "consumed_samples",
    "consumed-samples": "consumed_samples",
    "tokens_per_second": "tokens_per_second",
    "throughput(tps)": "tokens_per_second_gpu",
    "mfu(%)": "mfu",
    "batch-size": "batch_size",
    "global_batch_size": "batch_size",
}
"""What the last part of a tag means; `eval/loss` is told from `train/loss` by its first."""
_VALIDATION: Final = re.compile(r"(?:eval|val|valid|validation|test)(?:_.*)?")
_FLOAT, _DOUBLE = 1, 2


class DamagedFrame(ValueError):
    """The framing is lost: what follows in the file cannot be read."""


@dataclass(slots=True)
class _Step:
    """What has been read of one step so far."""

    step: int
    time: float | None
    values: dict[str, float]

    def record(self) -> Progress:
        values: dict[str, Any] = dict(self.values)
        if "batch_size" in values:
            values["batch_size"] = int(values["batch_size"])
        if "mfu" in values:
            values["mfu"] /= 100  # torchtitan's, in per cent
        return Progress(step=self.step, time=self.time, **values)


class EventReader:
    """Takes the bytes of one file in order and gives records, a step at a time.

    The scalars of one step come in frames of their own: a record is given when the next step begins, and by `flush`.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._skip = 0
        self._open: _Step | None = None
        self.damaged = 0
        """Frames with scalars that do not agree with their checksum: left out."""

    @property
    def behind(self) -> int:
        """Bytes by which the last frame that is whole ends before what was fed; negative within a frame passed over."""
        return len(self._rest) - self._skip

    def feed(self, data: bytes) -> list[Progress]:
        """The records that `data` completes.

        Raises:
            DamagedFrame: a length does not agree with its checksum.
        """
        found: list[Progress] = []
        for event, checksum in self._events(data):
            step = _read(event)
            if step is None:
                continue
            if _masked_crc32c(event) != checksum:
                self.damaged += 1
                continue
            if self._open is not None and self._open.step == step.step:
                self._open.values.update(step.values)
                continue
            found += self.flush()
            self._open = step
        return found

    def flush(self) -> list[Progress]:
        """The record of the step that is still open: when nothing more has come for it."""
        step, self._open = self._open, None
        return [step.record()] if step is not None else []

    def _events(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """The data of each frame and the checksum that belongs to it."""
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        data = self._rest + data
        at = 0
        while len(data) - at >= 12:
            (length,) = struct.unpack_from("<Q", data, at)
            (checksum,) = struct.unpack_from("<I", data, at + 8)
            if _masked_crc32c(data[at : at + 8]) != checksum:
                self._rest = b""
                raise DamagedFrame(f"a frame of {length} bytes does not agree with its checksum")
            whole = 16 + length
            if length > FRAME_LIMIT:
                self._skip = max(0, at + whole - len(data))
                at = min(at + whole, len(data))
                continue
            if len(data) - at < whole:
                break
            (checksum,) = struct.unpack_from("<I", data, at + 12 + length)
            yield data[at + 12 : at + 12 + length], checksum
            at += whole
        self._rest = data[at:]


def _read(event: bytes) -> _Step | None:
    """The scalars of one Event, None if it has none we know."""
    time: float | None = None
    step = 0
    values: dict[str, float] = {}
    try:
        for number, value in _fields(event):
            if number == 1 and isinstance(value, bytes) and len(value) == 8:
                (time,) = struct.unpack("<d", value)
            elif number == 2 and isinstance(value, int):
                step = value
            elif number == 5 and isinstance(value, bytes):
                values.update(_scalars(value))
    except (IndexError, ValueError):
        return None
    return _Step(step, time, values) if values and step < 1 << 62 else None


def _scalars(summary: bytes) -> Iterator[tuple[str, float]]:
    for number, value in _fields(summary):
        if number != 1 or not isinstance(value, bytes):
            continue
        tag, scalar = "", None
        for inner, content in _fields(value):
            if inner == 1 and isinstance(content, bytes):
                tag = content.decode("utf-8")
            elif inner == 2 and isinstance(content, bytes) and len(content) == 4:
                (scalar,) = struct.unpack("<f", content)
            elif inner == 8 and isinstance(content, bytes):
                scalar = _tensor(content)
        name = _meaning(tag)
        if name and scalar is not None:
            yield name, scalar


def _meaning(tag: str) -> str | None:
    first, _, last = tag.lower().rpartition("/")
    if " vs " in last or first == "train/samples":  # Megatron's second curves, DeepSpeed's only: their axis is samples
        return None
    name = TAGS.get(last)
    return "validation_loss" if name == "loss" and _VALIDATION.fullmatch(first.partition("/")[0]) else name


def _tensor(message: bytes) -> float | None:
    """A scalar TensorProto: dtype = 1, content = 4 (raw), float_val = 5, double_val = 6 (both may be packed)."""
    dtype = _FLOAT
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            dtype = value
        elif number in (4, 5, 6) and isinstance(value, bytes):
            double = number == 6 or (number == 4 and dtype == _DOUBLE)
            if len(value) == (8 if double else 4):
                return float(struct.unpack("<d" if double else "<f", value)[0])
    return None


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Fields of a protobuf message: varints as int, all else as bytes.

    Raises:
        IndexError, ValueError: the message is cut off or has a wire type that does not exist.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(message):
            raise IndexError("field is cut off")
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint is too long")


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_TABLE: Final = _crc_table()


def _masked_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
