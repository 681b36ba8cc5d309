"""Where a tool may write a model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from espnet_star.errors import StarError
from espnet_star.students.experiment import is_experiment


def check_target(directory: str | Path, files: Collection[str], force: bool) -> None:
    """Refuse a directory that cannot be written, or holds what would be overwritten.

    Args:
        directory: Where a tool is going to write.
        files: Names of the files that it is going to write.
        force: Whether files of these names may be replaced.

    Raises:
        StarError: If it is a file or an experiment, or holds one of ``files``.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise StarError(f"{directory} is a file; --output_dir must name a directory")
    if is_experiment(directory):
        raise StarError(
            f"{directory} has a config.yaml and would be read as a distillation experiment; give "
            "another --output_dir"
        )
    there = [name for name in files if (directory / name).exists()]
    if there and not force:
        raise StarError(f"{directory} already holds {there[0]}; give --force true to replace it")
