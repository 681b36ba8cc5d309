"""Facts about the machine that numbers were measured on."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "espnet", "transformers", "espnet_star")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    # ARM's cpuinfo has no such line, and macOS has no cpuinfo.
    return names[0] if names else platform.processor() or platform.machine()


def _cores() -> int:
    # What this process may use, which a container or taskset limits.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def load_average() -> float | None:
    """Processes that wanted to run during the last minute, None where nobody counts."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def machine_facts() -> dict[str, Any]:
    """Processor, cores, GPUs, versions, date and command line.

    Returns:
        ``{"cpu", "cores", "gpus", "python", "torch", "espnet", "transformers",
        "espnet_star", "date", "command"}``; versions as text.
    """
    # The name alone: where the program is installed is nobody's business.
    command = f"{Path(sys.argv[0]).name} {shlex.join(sys.argv[1:])}"
    return {
        "cpu": _cpu_model(),
        "cores": _cores(),
        "gpus": _gpus(),
        "python": platform.python_version(),
        **{package: _version(package) for package in PACKAGES},
        "date": time.strftime("%Y-%m-%d"),
        "command": command,
    }
