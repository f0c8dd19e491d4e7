"""An error about a configuration is read in logs: it may not carry a secret there."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import AfterValidator

from agent.base.config import Model, loads
from agent.base.errors import ConfigError


def refuse(value: str) -> str:
    raise ValueError(f"must be something else, got {value!r}")


class Channel(Model):
    url: Annotated[str, AfterValidator(refuse)] = ""
    port: int = 1
    routing_key: Annotated[str, AfterValidator(refuse)] = ""
    password: int = 0


@pytest.mark.parametrize(
    ("text", "secret", "still_says"),
    [
        ("url: https://user:hunter2@example.org/x", "hunter2", "example.org/x"),
        ("routing_key: hunter2", "hunter2", "routing_key: must be something else"),
        ("password: hunter2", "hunter2", "password: input should be a valid integer"),
    ],
)
def test_no_secret_is_repeated(text: str, secret: str, still_says: str) -> None:
    with pytest.raises(ConfigError) as error:
        loads(Channel, text, name="x.yaml", environ={})
    assert secret not in str(error.value)
    assert still_says in str(error.value)
    assert str(error.value).startswith("x.yaml:1: ")


def test_an_ordinary_value_is_shown() -> None:
    with pytest.raises(ConfigError, match="got 'many'"):
        loads(Channel, "port: many", environ={})
