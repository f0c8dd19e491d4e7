"""What the tests of training logs share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timezone

import pytest

from agent.base.trainlog import Progress, open_format


@pytest.fixture(scope="session")
def read() -> Callable[..., list[Progress]]:
    """Reads lines, all of which must be understood, by the format of that name."""

    def read(name: str, *lines: str) -> list[Progress]:
        parser = open_format(name, timezone.utc)
        records = list(parser.feed_all(lines))
        assert parser.unparsed == 0
        return records

    return read
