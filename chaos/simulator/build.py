"""Builds the C library on first use; no binary is shipped.

In a checkout it goes to `build/sim/<target>/`, else to the user's cache; the folder remembers the hash of what it
was built from, so an old build is never used. Two targets:

- "simulator": the node is simulated; symbols that NVML has and the simulator lacks are absent.
- "overlay": calls go to a real library, which the build must be shown: the overlay exports exactly its symbols.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from agent.base.errors import ConfigError, VigilError

SOURCES: Final = Path(__file__).parent / "csrc"
LIBRARY: Final = "libnvidia-ml.so.1"
CONTROL: Final = "libgpuvigil-control.so"
TARGETS: Final = ("simulator", "overlay")

_FLAGS: Final = ("-std=gnu11", "-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror")
_SYMBOL: Final = re.compile(r"^(nvml[A-Za-z0-9_]+|gpuvigil_sim)$")
_FIX: Final = "apt install gcc libc6-dev (or dnf install gcc glibc-devel)"


def build(
    target: str = "simulator", *, real: Path | None = None, flags: Sequence[str] = (), into: Path | None = None
) -> Path:
    """The directory that holds a current `libnvidia-ml.so.1` of `target`, built if need be.

    Args:
        target: "simulator" or "overlay".
        real: for the overlay, the library it shall forward to.
        flags: further compiler flags (a sanitizer, say); with them, name a folder of its own in `into`.
        into: where to build, instead of the checkout's or the user's folder.

    Raises:
        ConfigError: unknown target, or the real library is missing or none.
        VigilError: no compiler, or it failed; the text carries the fix or the compiler's words.
    """
    if target not in TARGETS:
        raise ConfigError(f"build target {target!r} is unknown; there are: {', '.join(TARGETS)}")
    if (target == "overlay") != (real is not None):
        raise ConfigError("the overlay, and it alone, is built for a real library: name it (--real FILE)")
    symbols = _symbols(real) if real is not None else []
    wanted = _hash(target, symbols, flags)
    folder = (into or _home()) / target
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = folder / "stamp"
        if stamp.exists() and stamp.read_text(encoding="ascii") == wanted and (folder / LIBRARY).exists():
            return folder
        stamp.unlink(missing_ok=True)
        files = sources(target)
        # Bsymbolic: calls from the library to itself stay in it, whatever else the process has loaded.
        further = [f"-Wl,-soname,{LIBRARY}", "-Wl,-Bsymbolic", *flags]
        if real is not None:
            files.append(_forwarding(folder, symbols))
            further.append(f"-Wl,--version-script={_exports(folder, symbols)}")
        if not any("sanitize" in flag for flag in flags):  # those symbols come with the program
            further.append("-Wl,-z,defs")
        _compile(folder / LIBRARY, files, further)
        _compile(folder / CONTROL, sources("control"), flags)
        stamp.write_text(wanted, encoding="ascii")
    return folder


def sources(target: str) -> list[Path]:
    """The C files of "simulator", "overlay" or "control"; the folder says where each belongs."""
    folders = (target, "core") if target == "control" else (target, "common", "core")
    return [file for folder in folders for file in sorted((SOURCES / folder).glob("*.c"))]


def _home() -> Path:
    checkout = Path(__file__).parents[2]
    if (checkout / "build").is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout / "build" / "sim"
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "gpuvigil" / "sim"


def _hash(target: str, symbols: Sequence[str], flags: Sequence[str]) -> str:
    digest = hashlib.sha256(repr((_FLAGS, target, list(symbols), list(flags))).encode())
    for source in sorted(SOURCES.rglob("*.*")):
        digest.update(str(source.relative_to(SOURCES)).encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _symbols(real: Path) -> list[str]:
    """What the real library exports.

    Raises:
        ConfigError: it is not there, or no NVML.
    """
    nm = shutil.which("nm")
    if nm is None:
        raise VigilError(f"the overlay needs nm to read {real}: apt install binutils")
    result = subprocess.run([nm, "-D", "--defined-only", str(real)], capture_output=True, text=True, check=False)
    words = (line.split()[-1].partition("@")[0] for line in result.stdout.splitlines() if line.strip())
    symbols = sorted({word for word in words if _SYMBOL.match(word)})
    if "nvmlInit_v2" not in symbols:
        raise ConfigError(f"{real}: not an NVML library {result.stderr.strip()}".rstrip())
    return symbols


def _forwarding(folder: Path, symbols: Sequence[str]) -> Path:
    """A source with one jump per symbol of the real library; weak, so that our wrappers take their place."""
    names = [name for name in symbols if name != "gpuvigil_sim"]
    quoted = "".join(f'"{name}", ' for name in names)
    lines = [
        f"const char *const gpuvigil_forward_names[] = {{{quoted} 0}};",
        f'__attribute__((visibility("hidden"))) void *gpuvigil_forward[{len(names)}];',
        "#if defined __x86_64__",
        '#define JUMP(offset) "jmp *gpuvigil_forward+" #offset "(%rip)\\n"',
        "#elif defined __aarch64__",
        '#define JUMP(offset) "adrp x16, gpuvigil_forward\\n add x16, x16, :lo12:gpuvigil_forward\\n" \\',
        '    "ldr x16, [x16, #" #offset "]\\n br x16\\n"',
        "#else",
        '#error "the overlay forwards on x86-64 and aarch64 only"',
        "#endif",
        "#define FORWARD(name, offset) \\",
        '    __asm__(".text\\n .weak " #name "\\n .type " #name ", %function\\n" #name ":\\n" JUMP(offset));',
        *(f"FORWARD({name}, {8 * place})" for place, name in enumerate(names)),
    ]
    if "gpuvigil_sim" in symbols:
        lines.append('__attribute__((visibility("default"))) const char gpuvigil_sim[] = "simulated beneath";')
    source = folder / "forward.c"
    source.write_text("\n".join(lines) + "\n", encoding="ascii")
    return source


def _exports(folder: Path, symbols: Sequence[str]) -> Path:
    """A linker script: what the real library lacks, the overlay lacks too."""
    script = folder / "exports.map"
    script.write_text(f"{{ global: {'; '.join(symbols)}; local: *; }};\n", encoding="ascii")
    return script


def _compile(output: Path, files: Sequence[Path], flags: Sequence[str]) -> None:
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise VigilError(f"the simulator is built from C on first use and no compiler is here: {_FIX}")
    handle, temporary = tempfile.mkstemp(dir=output.parent, prefix=output.name)
    os.close(handle)
    try:
        command = [compiler, *_FLAGS, f"-I{SOURCES}", *flags, "-o", temporary, *map(str, files)]
        result = subprocess.run(
            [*command, "-lm", "-lpthread", "-ldl"], capture_output=True, text=True, check=False, cwd=output.parent
        )
        if result.returncode != 0:
            raise VigilError(f"building {output.name} failed (if a header is missing: {_FIX}):\n{result.stderr}")
        os.chmod(temporary, 0o755)  # noqa: S103 - a library is for all to load
        os.replace(temporary, output)
    except OSError as error:
        raise VigilError(f"cannot run the compiler {compiler}: {error}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)
