"""For all tests: a busy machine is no reason to fail, a missing tool is one in CI; and lanes for two workers."""

import os
import re

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


class Lanes(LoadScopeScheduling):
    """End-to-end tests share the machine (mounts, ports, its load), so they go one after another, in one worker.

    They mostly wait; the other files go, each as a whole, to whichever worker is free.
    """

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return "e2e" if file.startswith("tests/e2e/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return Lanes(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """In CI a tool that is missing fails the test that wanted it: `./dev test` is to bring them all."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[-1])
        if re.search(r"\b(is|are) not (here|installed)\b", reason):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid}: {reason.removeprefix('Skipped: ')} (a skip elsewhere, a failure in CI)"
    return report
