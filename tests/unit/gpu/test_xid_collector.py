"""The xid collector without any GPU collector beside it: the kernel log alone, on a real driver's terms."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base.catalogue import Sample
from agent.base.collector import Context, PartialFailure
from agent.collectors import xid
from agent.collectors.xid import XidCollector, XidSettings
from agent.health.kmsg import Record
from agent.intake import Intake


@pytest.fixture
def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[XidCollector]:
    monkeypatch.setattr(xid, "FIRST_WAIT_S", 0.0)  # nobody will say which backend this is
    monkeypatch.setattr(xid, "PATIENCE_S", 0.0)
    (tmp_path / "kmsg").touch()
    settings = XidSettings(source="kmsg", kmsg=tmp_path / "kmsg")  # never this machine's own journal
    made = XidCollector(settings, Context(str(tmp_path / "state"), str(tmp_path)))
    yield made
    made.close()


def page(collector: XidCollector) -> dict[str, float]:
    intake = Intake(strict=True)
    intake.begin()
    intake.take(collector.collect())
    return {start.strip(): value for family in intake.end().values() for start, value in family.lines.items()}


def write(path: Path, text: str, facility: int = 0) -> None:
    usec = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    with path.open("a") as file:
        file.write(f"{facility * 8 + 3},1,{usec},-;{text}\n")


def test_an_xid_on_an_unknown_bus_id_is_counted(collector: XidCollector, tmp_path: Path) -> None:
    write(tmp_path / "kmsg", "NVRM: Xid (PCI:0000:41:00): 79, GPU has fallen off the bus.")
    assert page(collector)['gpuvigil_gpu_xid_events_total{uuid="PCI-0000:41:00",action="RESTART_BM"}'] == 1


def test_the_drivers_own_line_says_which_gpu_sits_there(collector: XidCollector, tmp_path: Path) -> None:
    uuid = "GPU-509665ad-b600-ac93-3616-d754b23d636d"
    write(tmp_path / "kmsg", f"NVRM: GPU at PCI:0000:41:00: {uuid}")
    write(tmp_path / "kmsg", "NVRM: Xid (PCI:0000:41:00): 31, pid=1, name=a, MMU Fault")
    assert page(collector)[f'gpuvigil_gpu_xid_codes_total{{uuid="{uuid}",xid="31",action="RESTART_APP"}}'] == 1


def test_a_line_that_a_process_wrote_is_synthetic(collector: XidCollector, tmp_path: Path) -> None:
    write(tmp_path / "kmsg", "NVRM: Xid (PCI:0000:41:00): 79, drill", facility=1)
    found = {name: value for name, value in page(collector).items() if name.startswith("gpuvigil_gpu_xid_codes")}
    assert found == {
        'gpuvigil_gpu_xid_codes_total{uuid="PCI-0000:41:00",synthetic="true",xid="79",action="RESTART_BM"}': 1
    }


@pytest.mark.usefixtures("collector")
def test_no_kernel_log_is_a_failure_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "kmsg").unlink()
    context = Context(str(tmp_path / "state"), str(tmp_path))
    # not auto: on a machine with journalctl that starts it, and it fails in its own time
    collector = XidCollector(XidSettings(kmsg=tmp_path / "kmsg", source="kmsg"), context)
    samples: list[Sample] = []

    def collect() -> None:
        for sample in collector.collect():
            samples.append(sample)

    with pytest.raises(PartialFailure, match="kmsg"):
        collect()
    assert "gpuvigil_kernel_log_records_total" in [sample.metric.name for sample in samples]


def test_a_damaged_state_is_a_failure_once(collector: XidCollector, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "xids-nvml.json").write_text('{"actions": [[1]]}')
    with pytest.raises(PartialFailure, match="not a ledger"):
        list(collector.collect())
    write(tmp_path / "kmsg", "NVRM: Xid (PCI:0000:41:00): 31, MMU Fault")
    assert sum(value for name, value in page(collector).items() if name.startswith("gpuvigil_gpu_xid_events")) == 1


def test_a_flood_is_taken_in_a_little_at_a_time(collector: XidCollector, tmp_path: Path) -> None:
    """All of it in one list would be memory that the process keeps."""
    with (tmp_path / "kmsg").open("a") as file:
        file.writelines(f"6,{n},{n},-;usb 1-1: device {n} is gone\n" for n in range(xid.RECORDS_A_RUN + 5000))
    page(collector)
    log, pieces = collector._log, []
    assert log is not None
    assert log.records < xid.RECORDS_A_RUN + 2000, "the rest comes with the next run"
    read = log.read

    def watched(most: int) -> list[Record]:
        found = read(most)
        pieces.append(len(found))
        return found

    log.read = watched  # type: ignore[method-assign]
    page(collector)
    assert log.records == xid.RECORDS_A_RUN + 5000
    assert max(pieces) < 4000
