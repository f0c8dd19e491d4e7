"""Witnesses and marks: who saw the fault when, all on one monotonic clock.

Agent, Prometheus and sink are asked in turn, over and over. A mark is the time the witness itself
gives (page rendered, rule evaluated, delivery received), else the time at which it was first seen.
"""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from agent.base.errors import CannotTell

ROUND = 0.1
"""Seconds between two rounds of questions."""


class Stopped(Exception):
    """The drill was told to end early; `str` is the reason."""


def fetch(url: str, timeout: float = 3.0) -> str:
    """The body of a GET.

    Raises:
        CannotTell: no answer, or one that is not 2xx.
    """
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return str(answer.read().decode("utf-8", "replace"))
    except (OSError, ValueError) as error:
        raise CannotTell(f"{url}: {error}") from None


def fetch_json(url: str, timeout: float = 3.0) -> Any:
    text = fetch(url, timeout)
    try:
        return json.loads(text)
    except ValueError:
        raise CannotTell(f"{url}: not JSON: {text[:80]!r}") from None


def on_monotonic(wall: float) -> float:
    """A recent time of this machine's wall clock on its monotonic clock; never later than now."""
    now = time.monotonic()
    return min(now, wall - time.time() + now)


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent's own page."""

    url: str

    def page(self) -> str:
        return fetch(self.url + "/metrics")

    def value(self, metric: str, labels: Mapping[str, str], page: str | None = None) -> float | None:
        """The sample of `metric` with these labels; None if there is none.

        Raises:
            CannotTell: no answer, or a page cut in half.
        """
        lines = (self.page() if page is None else page).splitlines()
        text = "\n".join(line for line in lines if line.startswith((metric + "{", metric + " ")))
        try:
            families = list(text_string_to_metric_families(text + "\n"))
        except ValueError as error:
            raise CannotTell(f"{self.url}: its page cannot be read: {error}") from None
        found = (sample.value for family in families for sample in family.samples if _has(sample.labels, labels))
        return next((float(value) for value in found), None)

    def series(self) -> int:
        """Samples on the page."""
        return sum(1 for line in self.page().splitlines() if line and not line.startswith("#"))


@dataclass(frozen=True, slots=True)
class Prometheus:
    """Rules and stored samples, through the HTTP API."""

    url: str

    def alerts(self, name: str | None = None, labels: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        """Firing alerts, of one name and with these labels if given."""
        found = fetch_json(self.url + "/api/v1/alerts")["data"]["alerts"]
        return [
            alert
            for alert in found
            if alert["state"] == "firing"
            and name in (None, alert["labels"]["alertname"])
            and _has(alert["labels"], labels or {})
        ]

    def paging(self) -> list[str]:
        """Names of the alerts that page now, save what a drill or a simulator provoked: nobody is called for those."""
        firing = [alert["labels"] for alert in self.alerts(labels={"severity": "page"})]
        return sorted({one["alertname"] for one in firing if not one.get("drill") and one.get("synthetic") != "true"})

    def fired_since(self, began: float, name: str, labels: Mapping[str, str]) -> float | None:
        """Unix time of the first rule evaluation after `began` at which such an alert fired."""
        matchers = {"alertname": name, "alertstate": "firing", **labels}
        inside = ",".join(f"{key}={json.dumps(value)}" for key, value in matchers.items())
        window = math.ceil(time.time() - began) + 1
        found = self.query(f"ALERTS{{{inside}}}[{window}s]")
        return min((float(at) for row in found for at, _ in row["values"] if at >= began), default=None)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What the API gives for an instant: a vector, or a matrix for a range selector."""
        asked = urllib.parse.urlencode({"query": expression})
        found: list[dict[str, Any]] = fetch_json(f"{self.url}/api/v1/query?{asked}")["data"]["result"]
        return found

    def has_alertmanager(self) -> bool:
        """Whether it knows where to send alerts."""
        return bool(fetch_json(self.url + "/api/v1/alertmanagers")["data"]["activeAlertmanagers"])


@dataclass(frozen=True, slots=True)
class Sink:
    """What people would have received."""

    url: str

    def pages(self, since: int = 0, path: str | None = None) -> list[dict[str, Any]]:
        """Deliveries after number `since`."""
        query = {"since": str(since), **({"path": path} if path else {})}
        found: list[dict[str, Any]] = fetch_json(f"{self.url}/api/pages?{urllib.parse.urlencode(query)}")["pages"]
        return found

    def last(self) -> int:
        """Number of the newest delivery, 0 if there is none."""
        return max((int(page["id"]) for page in self.pages()), default=0)


def find_alert(
    pages: list[dict[str, Any]], name: str, labels: Mapping[str, str], status: str
) -> tuple[float, dict[str, Any]] | None:
    """The first alert of that name, labels and status in deliveries: (monotonic time received, alert)."""
    for page in pages:
        for alert in page["body"].get("alerts", []):
            if alert.get("status") == status and _has(alert.get("labels", {}), {**labels, "alertname": name}):
                return float(page["monotonic"]), alert
    return None


Look = Callable[[], "float | bool"]
"""Says whether it happened; or, as a float, the monotonic time at which it did (NaN: not yet)."""


def _time_of(seen: float | bool) -> float | None:
    if isinstance(seen, bool):
        return time.monotonic() if seen else None
    return None if math.isnan(seen) else seen


def watch(
    looks: Mapping[str, Look],
    timeout: float,
    stopped: Callable[[], str | None],
    seen: Callable[[str, float], None] = lambda name, at: None,
) -> dict[str, float]:
    """Ask until every look has seen its mark or `timeout` seconds are over; marks seen, by name.

    A witness that does not answer has not seen anything: it is asked again in the next round. `seen`
    is told each mark at once.

    Raises:
        Stopped: `stopped` gave a reason.
    """
    marks: dict[str, float] = {}
    deadline = time.monotonic() + timeout
    while True:
        for name, look in looks.items():
            if name in marks:
                continue
            try:
                at = _time_of(look())
            except CannotTell:
                continue
            if at is not None:
                marks[name] = at
                seen(name, at)
        if len(marks) == len(looks) or time.monotonic() >= deadline:
            return marks
        if reason := stopped():
            raise Stopped(reason)
        time.sleep(ROUND)
