"""What the agent knows between two messages of the child: a description and its values are one picture."""

from __future__ import annotations

import json
import time
from array import array
from types import SimpleNamespace
from typing import Any

import pytest

from agent.gpu import client as module
from agent.gpu import wire
from agent.gpu.client import Client
from agent.gpu.view import Settings


class Talk:
    """A client that hears what a child says."""

    def __init__(self) -> None:
        self.client = Client(Settings())
        self.child: Any = SimpleNamespace(heard=0.0, started=0.0)
        self.client._main = self.child
        self.say(wire.STATE, {"up": True, "code": 0, "synthetic": True, "driver": "1", "nvml": "1", "cuda": "1"})

    def say(self, kind: int, body: Any) -> None:
        self.client._hear(self.child, kind, json.dumps(body).encode())

    def describe(self, generation: int, *uuids: str) -> None:
        gpus = [{"uuid": uuid, "keys": ["power"]} for uuid in uuids]
        self.say(wire.DESCRIBE, {"generation": generation, "gpus": gpus, "lost": [], "blind": [], "skipped": []})

    def values(self, generation: int, *watts: float) -> None:
        sent = wire.pack_values(generation, time.monotonic_ns(), time.time(), [array("d", watts)])
        ((kind, body),) = wire.Stream().feed(sent)
        self.client._hear(self.child, kind, body)

    def power(self) -> dict[str, float]:
        return {gpu["uuid"]: found["power"] for gpu, found in self.client.view().readings()}


def test_a_new_description_counts_with_its_first_values() -> None:
    """A GPU is lost: between the two messages the others' readings do not vanish from the page."""
    talk = Talk()
    talk.describe(1, "a", "b")
    assert talk.power() == {}
    assert talk.client.view().described is not None, "there is nothing older to hold on to"
    talk.values(1, 1.0, 2.0)
    assert talk.power() == {"a": 1.0, "b": 2.0}
    talk.describe(2, "b")
    assert talk.power() == {"a": 1.0, "b": 2.0}
    talk.values(2, 3.0)
    assert talk.power() == {"b": 3.0}


def test_a_description_whose_values_do_not_come_counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep that should follow hangs: who is there is known all the same."""
    talk = Talk()
    talk.describe(1, "a", "b")
    talk.values(1, 1.0, 2.0)
    talk.describe(2, "b")
    monkeypatch.setattr(module, "TOGETHER_S", 0.0)
    assert talk.power() == {}
    described = talk.client.view().described
    assert described is not None
    assert described["generation"] == 2


def test_another_childs_values_are_not_held_on_to() -> None:
    """Its predecessor was killed over a GPU that hangs: that one is not up because of what was read before."""
    talk, old, new = Talk(), wire.first_generation(7), wire.first_generation(8)
    talk.describe(old, "a", "b")
    talk.values(old, 1.0, 2.0)
    talk.describe(new, "b")
    described = talk.client.view().described
    assert described is not None
    assert described["generation"] == new
    assert talk.power() == {}
