"""Builds the C library on first use; no binary is shipped.

In a checkout it goes to `build/sim/<target>/`, else to the user's cache; the folder remembers the hash of what it
was built from, so an old build is never used.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.base.errors import VigilError

SOURCES: Final = Path(__file__).parent / "csrc"
LIBRARY: Final = "libnvidia-ml.so.1"
CONTROL: Final = "libgpuvigil-control.so"

_FLAGS: Final = ("-std=gnu11", "-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")
_CORE: Final = ("state.c", "model.c")
_LIBRARY: Final = (
    "entry.c",
    "device.c",
    "getters.c",
    "structures.c",
    "processes.c",
    "quantity.c",
    "layer.c",
    "field_table.c",
    "fields.c",
    "gpm.c",
    "watch.c",
    "events.c",
)
_CONTROL: Final = ("control.c",)


def build(target: str = "simulator", *, flags: Sequence[str] = (), into: Path | None = None) -> Path:
    """The directory that holds a current `libnvidia-ml.so.1` of `target`, built if need be.

    Args:
        target: "simulator".
        flags: further compiler flags (a sanitizer, say); with them, name a folder of its own in `into`.
        into: where to build, instead of the checkout's or the user's folder.

    Raises:
        VigilError: no compiler, or it failed; the text carries the fix or the compiler's words.
    """
    folder = (into or _home()) / target
    folder.mkdir(parents=True, exist_ok=True)
    wanted = _hash(flags)
    with open(folder / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "stamp"
        if not (stamp.exists() and stamp.read_text(encoding="ascii") == wanted and (folder / LIBRARY).exists()):
            stamp.unlink(missing_ok=True)
            _compile(folder / LIBRARY, (*_LIBRARY, *_CORE), (f"-Wl,-soname,{LIBRARY}", *flags))
            _compile(folder / CONTROL, (*_CONTROL, *_CORE), flags)
            stamp.write_text(wanted, encoding="ascii")
    return folder


def _home() -> Path:
    checkout = Path(__file__).parents[2]
    if (checkout / "build").is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / "build" / "sim"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "gpuvigil" / "sim"


def _hash(flags: Sequence[str]) -> str:
    digest = hashlib.sha256(repr((_FLAGS, _CORE, _LIBRARY, _CONTROL, tuple(flags))).encode())
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _compile(output: Path, sources: Sequence[str], flags: Sequence[str]) -> None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise VigilError(
            "the simulator is built from C on first use and no compiler is here: "
            "apt install gcc libc6-dev (or dnf install gcc glibc-devel)"
        )
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=output.name)
    os.close(handle)
    try:
        command = [compiler, *_FLAGS, *flags, "-o", temporary, *(str(SOURCES / name) for name in sources)]
        result = subprocess.run([*command, "-lm", "-lpthread"], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise VigilError(
                f"building {output.name} failed (apt install gcc libc6-dev, if a header is missing):\n{result.stderr}"
            )
        os.chmod(temporary, 0o755)  # noqa: S103 - a library is for all to load
        os.replace(temporary, output)
    except OSError as error:
        raise VigilError(f"cannot run the compiler {compiler}: {error}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
