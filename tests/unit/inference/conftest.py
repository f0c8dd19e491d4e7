import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    """The fake engine beside this file: with importlib mode a test folder is no package."""
    spec = importlib.util.spec_from_file_location("fake_engine", Path(__file__).with_name("fake_engine.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_engine"] = module
    spec.loader.exec_module(module)
    return module


_fake = _load()


@pytest.fixture
def fake() -> Iterator[object]:
    with _fake.running() as engine:
        yield engine


@pytest.fixture
def other() -> Iterator[object]:
    with _fake.running() as engine:
        yield engine
