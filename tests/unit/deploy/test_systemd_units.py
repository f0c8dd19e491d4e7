"""The units: as closed as systemd-analyze asks, every directive known and explained, paths as agreed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[3] / "deploy/systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
DROP_INS = sorted((SYSTEMD / "drop-ins").glob("*.conf"))
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here (apt: systemd)"
)
SELF_EXPLAINING = {"Description", "After", "Wants", "WantedBy", "ExecStart", "Group"}


def score(root: Path, *drop_ins: Path) -> float:
    """The exposure of the agent's unit below `root` with `drop_ins`, 0 to 10."""
    folder = root / "etc/systemd/system/gpuvigil-agent.service.d"
    folder.mkdir(parents=True)
    shutil.copy(SYSTEMD / "gpuvigil-agent.service", folder.parent)
    for drop_in in drop_ins:
        shutil.copy(drop_in, folder)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--root={root}", "gpuvigil-agent.service"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for .*: (\d+\.\d)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


def settings(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+)=(.*)$", text, flags=re.MULTILINE)


@needs_analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_exposure_is_at_most_two(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr


@needs_analyze
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_knows_every_directive(unit: Path, tmp_path: Path) -> None:
    """`verify` with the programs replaced by one that exists: what it says then is about the unit."""
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text(encoding="utf-8").replace("/opt/gpuvigil/bin/gpuvigil", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    about_us = [line for line in done.stderr.splitlines() if unit.name in line]
    assert about_us == []
    assert done.returncode == 0, done.stderr


@needs_analyze
@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.stem)
def test_each_drop_in_says_its_own_score(drop_in: Path, tmp_path: Path) -> None:
    found = re.search(r"Score with this drop-in: (\d\.\d)\.", drop_in.read_text(encoding="utf-8"))
    assert found, "it does not say its score"
    assert float(found[1]) == score(tmp_path, drop_in)


@needs_analyze
def test_the_agents_unit_says_its_score(tmp_path: Path) -> None:
    assert f"gives {score(tmp_path)} (OK)" in (SYSTEMD / "gpuvigil-agent.service").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", UNITS + DROP_INS, ids=lambda path: path.stem)
def test_directives_stand_under_a_comment(path: Path) -> None:
    """In every run of lines a comment stands before the first directive that does not explain itself."""
    for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
        explained = False
        for line in block.splitlines():
            explained = explained or line.startswith("#")
            name = line.partition("=")[0]
            if not line.startswith(("#", "[")) and name not in SELF_EXPLAINING:
                assert explained, f"nothing explains {line}"


@pytest.mark.parametrize("name", ["gpuvigil-agent", "gpuvigil-central"])
def test_readiness_watchdog_and_paths(name: str) -> None:
    given = dict(settings((SYSTEMD / f"{name}.service").read_text(encoding="utf-8")))
    assert given["Type"] == "notify"
    assert float(given["WatchdogSec"].removesuffix("s")) >= 10
    assert given["StateDirectory"] == name
    assert given["User"] == name
    assert given["ExecStart"].startswith("/opt/gpuvigil/bin/gpuvigil ")
    assert f"/etc/gpuvigil/{name.removeprefix('gpuvigil-')}.yaml" in given["ExecStart"]
    assert "CPUQuota" not in given, "a quota stalls the short bursts in which a snapshot is made"
    assert "RuntimeDirectory" not in given, "drill.json must outlive a restart of the agent"
    assert f"u {name} " in (SYSTEMD / "sysusers.conf").read_text(encoding="utf-8")


def test_the_commands_that_the_units_start_exist() -> None:
    from agent import cli

    for unit in UNITS:
        for name, command in settings(unit.read_text(encoding="utf-8")):
            if name == "ExecStart":
                noun, *rest = command.split()[1:]
                with pytest.raises(SystemExit) as ended:
                    cli.main([noun, rest[0], "--help"])
                assert ended.value.code == 0, command


def test_the_run_directory_is_made_by_tmpfiles() -> None:
    lines = (SYSTEMD / "tmpfiles.conf").read_text(encoding="utf-8").splitlines()
    assert "d /run/gpuvigil 0755 root root -" in lines


@pytest.mark.parametrize("kind", ["agent", "central"])
def test_a_bad_file_ends_the_start_for_good_and_the_example_is_good(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from agent import cli

    given = dict(settings((SYSTEMD / f"gpuvigil-{kind}.service").read_text(encoding="utf-8")))
    assert given["RestartPreventExitStatus"] == "2"
    assert "ExecStartPre" not in given, "its failure is started again for ever: RestartPreventExitStatus= ignores it"
    *words, path = given["ExecStart"].split()[1:]
    bad = tmp_path / "bad.yaml"
    bad.write_text("no_such_key: 1\n")
    assert cli.main([*words, str(bad)]) == 2
    assert f"{bad}:1: no_such_key" in capsys.readouterr().err
    assert cli.main(["config", "check", "--kind", kind, str(SYSTEMD.parent / Path(path).name)]) == 0
