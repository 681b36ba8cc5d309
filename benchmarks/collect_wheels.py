"""Wheels that gpu.py needs on a machine that reaches no index, for that machine's Python.

python benchmarks/collect_wheels.py --dest wheels --python_version 3.12 [--full]

Run it where an index is reached. ESPnet comes without what it depends on: the distillation
model needs its base classes alone. On the other machine:

python -m pip install --no-index --no-deps --target site wheels/*.whl
PYTHONPATH=site python benchmarks/gpu.py --json gpu.json --markdown gpu.md
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Sequence

# What images with PyTorch and Transformers lack, and what those with PyTorch alone lack.
ALONE = ("espnet", "humanfriendly", "typeguard")
FULL = ("transformers", "scipy", "PyYAML", "safetensors")
GLIBC = ("2_28", "2_27", "2_24", "2_17", "2_12", "2_5")
OLD = ("manylinux2014", "manylinux2010", "manylinux1")


def pip_commands(dest: str, python_version: str, arch: str, full: bool) -> list[list[str]]:
    """Command lines of pip that fetch everything.

    Args:
        dest: Folder to be filled.
        python_version: Of the other machine, as ``3.12``.
        arch: Its processor, as ``platform.machine()`` calls it.
        full: Whether the other machine has torch and NumPy alone.
    """
    tags = [f"manylinux_{version}_{arch}" for version in GLIBC] + [f"{t}_{arch}" for t in OLD]
    common = [sys.executable, "-m", "pip", "download", "--only-binary=:all:", "--dest", dest]
    common += ["--python-version", python_version, "--implementation", "cp"]
    for tag in tags:
        common += ["--platform", tag]
    commands = [[*common, "--no-deps", *ALONE]]
    return [*commands, [*common, *FULL]] if full else commands


def main(command: Sequence[str] | None = None) -> int:
    """Fetch them; pip's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dest", default="wheels", help="Folder to be filled (%(default)s)")
    here = ".".join(map(str, sys.version_info[:2]))
    parser.add_argument("--python_version", default=here, help="Of the other machine (%(default)s)")
    parser.add_argument("--arch", default=platform.machine(), help="Its processor (%(default)s)")
    parser.add_argument(
        "--full", action="store_true", help="Also Transformers, SciPy and what they need"
    )
    args = parser.parse_args(command)
    for line in pip_commands(args.dest, args.python_version, args.arch, args.full):
        code = subprocess.run(line, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
