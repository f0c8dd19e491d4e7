"""Streamed answers of engines: what is asked, by the path that is asked, and when each token came.

| path ends in | protocol |
|---|---|
| `/completions` | OpenAI's: vLLM, SGLang, TGI, llama.cpp, TensorRT-LLM, NIM |
| `/chat/completions` | OpenAI's, for models that are served with a chat template alone; thoughts are tokens, too |
| `/generate_stream` | Triton's generate extension |
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

EVENT_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Stream:
    """What one stream showed, in seconds since the request.

    `tokens` are the times of its chunks, `count` the tokens that the engine says it generated (else the chunks:
    a chunk is one token, except where an engine holds back half a character), `model` the name it answers by, or "".
    """

    tokens: tuple[float, ...]
    count: int
    end: float
    finished: bool
    model: str = ""


def events(body: Iterable[bytes]) -> Iterator[str]:
    """The `data:` payloads of a server-sent event stream, as they arrive.

    Raises:
        ValueError: an event longer than `EVENT_LIMIT` bytes.
    """
    rest = b""
    for chunk in body:
        lines = (rest + chunk).split(b"\n")
        rest = lines.pop()
        if len(rest) > EVENT_LIMIT:
            raise ValueError("event too long")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode("utf-8", "replace")


def read_stream(body: Iterable[bytes], started: float, clock: Callable[[], float] = time.monotonic) -> Stream:
    """Time the tokens of a completion stream; a chunk with a choice is a token, an empty last one is not.

    Raises:
        ValueError: an event that is not JSON or that reports an error.
    """
    tokens: list[float] = []
    finished, count, model = False, 0, ""
    for event in events(body):
        now = clock() - started
        if event == "[DONE]":
            finished = True
            break
        data: Any = json.loads(event)
        if not isinstance(data, dict) or "error" in data:
            raise ValueError("the stream reports an error")
        named = data.get("model") or data.get("model_name")  # OpenAI's and Triton's
        model = named if isinstance(named, str) else model
        if "text_output" in data:  # Triton's stream just ends; one that breaks off is an EOFError
            tokens.append(now)
            finished = True
        choices = data.get("choices") or []
        if not isinstance(choices, list):
            raise ValueError("the stream's choices are not a list")
        usage = data.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            count = usage["completion_tokens"]
        for choice in choices:
            ended = choice.get("finish_reason")
            if _is_token(choice, bool(ended)):
                tokens.append(now)
            finished = finished or bool(ended)
    return Stream(tuple(tokens), count or len(tokens), clock() - started, finished, model)


def _is_token(choice: dict[str, Any], ended: bool) -> bool:
    """Whether a chunk is a token: an empty one within is (half a character), the last and a chat's first are not."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return bool(choice.get("text")) or not ended
    said = any(delta.get(name) for name in ("content", "reasoning_content", "reasoning"))
    return said or not (ended or delta.get("role"))


def question(path: str, model: str, prompt: str, max_tokens: int) -> dict[str, object]:
    """The body that asks for a streamed answer at `path`; `model` may be empty."""
    if path.endswith("/generate_stream"):
        return {"text_input": prompt, "max_tokens": max_tokens, "temperature": 0, "stream": True}
    chat = path.endswith("/chat/completions")
    asked: dict[str, object] = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    return {
        **asked,
        **({"model": model} if model else {}),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
