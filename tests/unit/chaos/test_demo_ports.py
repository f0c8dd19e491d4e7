"""Ports are chosen as asked, and a port in use names its holder."""

import os
import socket

import pytest

from agent.base.errors import ConfigError
from chaos.demo import __main__ as demo
from chaos.demo import ports


def test_default_base_and_names() -> None:
    assert ports.choose(None) == ports.DEFAULT
    assert ports.choose("20000")["agent"] == 20000
    assert ports.choose("20000")["sink"] == 20003
    assert len(set(ports.choose("20000").values())) == len(ports.DEFAULT)
    assert ports.choose("sink=1234,agent=99") == {**ports.DEFAULT, "sink": 1234, "agent": 99}


def test_auto_gives_free_and_different_ports() -> None:
    chosen = ports.choose("auto")
    assert chosen.keys() == ports.DEFAULT.keys()
    assert len(set(chosen.values())) == len(chosen)
    ports.check_free(chosen)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("bogus=1", "bogus=1"),
        ("agent", "agent"),
        ("agent=x", "agent=x"),
        ("65534", "65535"),
        ("agent=0", "1 to 65535"),
        ("agent=9841", "both"),
        ("", "''"),
    ],
)
def test_bad_choices_are_named(text: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        ports.choose(text)


def test_a_port_in_use_names_its_holder(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        number = held.getsockname()[1]
        assert demo.main(["--once", "--ports", f"sink={number}"]) == 2
        said = capsys.readouterr().err
        assert f"port {number} (sink)" in said
        assert f"held by process {os.getpid()}: " in said
        assert "--ports auto" in said
