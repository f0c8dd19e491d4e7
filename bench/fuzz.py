"""Coverage-guided fuzzing (atheris) of whatever others feed the agent: log lines, pages, files, requests, answers.

Each target of bench/harness/targets.py has a process of its own for its share of `--seconds`. Prints how often it ran,
`fuzz_TARGET_executions value runs`; exit code 1, with the input that did it, where one raised or hung.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.remove(str(Path(__file__).parent))  # a script's folder comes first: `agent` would be the file there

INPUT_SECONDS = 20
"""An input that takes longer is a defect too."""
MOST_BYTES = 8192


def drive(name: str, arguments: list[str]) -> None:
    """Become the fuzzer of one target: does not return."""
    import atheris

    with atheris.instrument_imports(include=["agent", "h11"]):
        from bench.harness.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name].run)
    atheris.Fuzz()


def fuzz(name: str, seconds: int) -> bool:
    """Whether the target held for so long."""
    from bench.harness.targets import TARGETS

    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a file for each input
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-", dir=memory) as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(TARGETS[name].seeds):
            (corpus / str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={seconds}",
            f"-timeout={INPUT_SECONDS}",
            f"-max_len={MOST_BYTES}",
            f"-artifact_prefix={folder}/",
            "-print_final_stats=1",
        ]
        done = subprocess.run(
            [sys.executable, __file__, "--drive", name, *options, str(corpus)],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "TMPDIR": folder},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        said = done.stdout + done.stderr
        runs = re.search(r"stat::number_of_executed_units: *(\d+)", said)
        print(f"fuzz_{name}_executions {runs[1] if runs else 0} runs", flush=True)
        if done.returncode == 0 and runs:
            return True
        print(said[-4000:], flush=True)
        for file in Path(folder).iterdir():
            if file.name.startswith(("crash-", "timeout-", "oom-")):
                print(f"# {name}: this input did it: {file.read_bytes()!r}", flush=True)
        return False


def main() -> int:
    if sys.argv[1:2] == ["--drive"]:
        drive(sys.argv[2], sys.argv[3:])
    from bench.harness.targets import TARGETS

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=300, help="for all targets together")
    parser.add_argument("--only", action="append", choices=list(TARGETS), help="only these")
    args = parser.parse_args()
    chosen = args.only or list(TARGETS)
    good = [fuzz(name, max(1, args.seconds // len(chosen))) for name in chosen]
    print(f"fuzz_targets_held {sum(good)} of {len(good)}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
