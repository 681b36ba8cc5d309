"""The folders of runs: no mixture of students or settings, no torn checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from espnet_star.data.errors import DataError
from espnet_star.evaluate.superb.commands import CONFIG, Run
from espnet_star.evaluate.superb.results import RESULT, identity
from espnet_star.evaluate.superb.student import Upstream
from espnet_star.evaluate.table import read_json, write_json

IDENTITY = "student.json"
# s3prl/problem/base.py, _save_ckpts_to_dir, writes these in this order.
_FIRST, _LAST = "optimizer.pt", "config.yaml"


def check_identity(run: Run, upstream: Upstream) -> None:
    """Refuse a folder in which another student, or other settings, have been at work.

    Raises:
        DataError: Naming the folder and what differs.
    """
    path = run.folder / IDENTITY
    if not path.exists():
        return
    content = read_json(path)
    wanted = identity(run, upstream)
    for key, what in (("student", "another student"), ("settings_digest", "other settings")):
        if not isinstance(content, Mapping) or content.get(key) != wanted[key]:
            raise DataError(
                f"{run.folder}: was begun with {what}; give another --output_dir, or --force true "
                "to begin anew"
            )


def prepare(run: Run, upstream: Upstream) -> list[str]:
    """Make a run's folder ready for s3prl, which continues from what it finds there.

    Returns:
        What has been put aside, as text.

    Raises:
        DataError: If something cannot be written.
    """
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        write_json(run.folder / IDENTITY, identity(run, upstream))
        text = yaml.safe_dump(_plain(run.config), sort_keys=False)
        (run.folder / CONFIG).write_text(text, encoding="utf-8")
        return [put_aside(path) for path in torn_checkpoints(run.folder / "train")]
    except OSError as error:
        raise DataError(f"{run.folder}: cannot be written ({error.strerror})") from error


def link_scorer(run: Run, dscore: str | None) -> None:
    """Put a clone of dscore where s3prl's ``SuperbSD`` would clone it.

    Raises:
        DataError: If the clone has no score.py.
    """
    if dscore is None:
        return
    clone = Path(dscore).expanduser().absolute()
    if not (clone / "score.py").is_file():
        raise DataError(
            f"dscore: {clone} has no score.py; git clone https://github.com/nryant/dscore"
        )
    place = run.folder / "evaluate" / "valid_best" / "test" / "score" / "dscore"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(clone, target_is_directory=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def torn_checkpoints(train: Path) -> list[Path]:
    """Checkpoints that a kill has left half written; s3prl would stop at the newest."""
    found = [*train.glob("step_*"), train / "valid_best"]
    return sorted(path for path in found if path.is_dir() and not _whole(path))


def _whole(path: Path) -> bool:
    try:
        return (path / _LAST).stat().st_mtime_ns >= (path / _FIRST).stat().st_mtime_ns
    except OSError:
        return False


def put_aside(path: Path) -> str:
    """Rename a checkpoint so that s3prl does not see it; one put aside before is deleted."""
    aside = path.with_name(f"torn_{path.name}")
    if aside.exists():
        shutil.rmtree(aside)
    path.rename(aside)
    return f"{path}: only half written, put aside as {aside.name}"


def forget(folder: Path) -> None:
    """Delete a task's runs and result, and nothing that `prepare` has not made.

    Raises:
        DataError: If something cannot be deleted.
    """
    try:
        for child in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (child / IDENTITY).is_file():
                shutil.rmtree(child)
        (folder / RESULT).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be deleted ({error.strerror})") from error
