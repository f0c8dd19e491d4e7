"""What the driver says of itself, as one JSON object. Run as a process of its own: a driver may hang.

Imports pynvml alone.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def look() -> dict[str, Any]:
    """Keys: `library` (path or null), `error` (text or null), `simulated`, `driver`, `gpus`."""
    try:
        import pynvml
    except ImportError as error:
        return {"library": None, "error": f"pynvml is not installed: {error}", "gpus": []}
    found: dict[str, Any] = {"library": None, "error": None, "simulated": False, "driver": "", "gpus": []}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        found["error"] = str(error)
        found["library"] = _library()
        return found
    found["library"] = _library()
    found["simulated"] = hasattr(pynvml.nvmlLib, "gpuvigil_sim")
    found["driver"] = pynvml.nvmlSystemGetDriverVersion()
    for index in range(pynvml.nvmlDeviceGetCount()):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            found["gpus"].append({"index": index, "uuid": pynvml.nvmlDeviceGetUUID(handle), "error": None})
        except pynvml.NVMLError as error:
            found["gpus"].append({"index": index, "uuid": None, "error": str(error)})
    return found


def _library() -> str | None:
    """The file that is loaded as libnvidia-ml.so.1."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            path = line.rstrip().rpartition(" ")[2]
            if os.path.basename(path).startswith("libnvidia-ml.so"):
                return path
    return None


if __name__ == "__main__":
    json.dump(look(), sys.stdout)
