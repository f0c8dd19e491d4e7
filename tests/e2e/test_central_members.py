"""Several centrals that share one real Prometheus: every series has its owners, and outlives the death of one."""

import contextlib
import http.server
import shutil
import sys
import threading
import time
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from alerts.central.shard import Shard
from bench.harness.processes import eventually, free_port, get, running

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")]

SERIES = 48
MEMBERS = 3
REPLICATION = 2


class Page(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        now = int(time.time() * 7)
        body = "".join(f'load{{n="{n}"}} {n + 0.1 * ((now + n) % 5)}\n' for n in range(SERIES)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Member:
    """One central process of the three."""

    def __init__(self, folder, number, prometheus):
        self.number, port = number, free_port()
        self.url, self.log = f"http://127.0.0.1:{port}", folder / f"member{number}.log"
        config = folder / f"member{number}.yaml"
        config.write_text(
            f"listen: 127.0.0.1:{port}\n"
            f"state_dir: {folder / f'state{number}'}\n"
            f"member: {number}\nmembers: {MEMBERS}\nreplication: {REPLICATION}\n"
            f"prometheus: {{url: 'http://127.0.0.1:{prometheus}', timeout: 5s}}\n"
            "training: {enabled: false}\n"
            "monitors:\n"
            "- {name: load, query: load, model: ewma, step: 1s, fit_window: 5m, fit_every: 1h, min_history: 8s}\n"
        )
        self.command = [sys.executable, "-m", "agent.cli", "central", "run", "--config", str(config)]

    def scored(self):
        """The series that have a score on its page, by their label n."""
        families = text_string_to_metric_families(get(self.url + "/metrics"))
        samples = [s for family in families for s in family.samples if s.name == "gpuvigil_anomaly_score"]
        return Counter(int(sample.labels["n"]) for sample in samples)


@pytest.fixture
def target():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def owners(target):
    """Members that must watch each series, by the hash of its labels alone."""
    shards = [Shard(number, MEMBERS, REPLICATION) for number in range(MEMBERS)]
    labels = {n: (("instance", target), ("job", "load"), ("n", str(n))) for n in range(SERIES)}
    return {n: {shard.member for shard in shards if shard.mine(key)} for n, key in labels.items()}


def test_each_series_is_scored_by_its_owners_and_by_the_one_left_when_one_dies(target, tmp_path):
    port, log = free_port(), tmp_path / "prometheus.log"
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: load, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    prometheus = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    members = [Member(tmp_path, number, port) for number in range(MEMBERS)]
    wanted = owners(target)
    assert {len(each) for each in wanted.values()} == {REPLICATION}

    def shown(alive):
        """Members that have a score of each series now."""
        by_series = {n: set() for n in range(SERIES)}
        for member in alive:
            for n, times in member.scored().items():
                assert times == 1, f"member {member.number} says series {n} {times} times"
                by_series[n].add(member.number)
        return by_series

    with running(prometheus, log), contextlib.ExitStack() as stack:
        processes = [stack.enter_context(running(member.command, member.log)) for member in members]
        seen = {}

        def all_by_their_owners():
            seen.update(shown(members))
            for n in range(SERIES):
                assert seen[n] <= wanted[n], f"series {n} is scored by a member that it is not of"
            return seen == wanted

        eventually(all_by_their_owners)
        processes[1].kill()
        processes[1].wait()
        left = [members[0], members[2]]
        for _ in range(5):  # no series is without a score for one turn, and none is taken over twice
            now = shown(left)
            assert all(now[n] == wanted[n] - {1} for n in range(SERIES)), now
            time.sleep(1.0)
        with running(members[1].command, members[1].log):
            eventually(all_by_their_owners)
    for member in members:
        assert "Traceback" not in member.log.read_text()
