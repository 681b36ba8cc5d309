"""What kind of teacher a name stands for, by its files."""

from __future__ import annotations

from pathlib import Path

from espnet_star.errors import StarError
from espnet_star.teachers.espnet_files import ARCHIVES, CONFIG, CONFIG_SUFFIXES, META, task_of
from espnet_star.teachers.loading import read_model_type
from espnet_star.teachers.s3prl_upstream import PREFIX
from espnet_star.teachers.zoo import is_in_zoo, looks_like_path

FAIRSEQ_SUFFIXES = (".pt", ".ckpt", ".bin")
ESPNET_SUFFIXES = (".pth", *CONFIG_SUFFIXES, *ARCHIVES)


def kind_by_files(name: str) -> str | None:
    """Kind of a teacher other than a checkpoint of Transformers, without a network.

    Returns:
        ``"s3prl"``, ``"fairseq"``, ``"espnet_ssl"`` or ``"espnet_hubert"``; None for a
        directory with ``config.json`` or none of ESPnet's files, and for other names.

    Raises:
        StarError: If it is a file that is missing or of no known kind, or ESPnet's
            experiment of another task.
    """
    if name.startswith(PREFIX):
        return "s3prl"
    path = Path(name)
    if path.is_dir():
        if (path / "config.json").is_file():
            return None
        ours = (path / CONFIG).is_file() or (path / META).is_file() or any(path.glob("*.pth"))
        return f"espnet_{task_of(name)}" if ours else None
    if path.is_file():
        if path.suffix in FAIRSEQ_SUFFIXES:
            return "fairseq"
        if path.suffix in ESPNET_SUFFIXES:
            return f"espnet_{task_of(name)}"
        raise StarError(
            f"teacher {name!r}: a file must end in {', '.join(FAIRSEQ_SUFFIXES)} (fairseq) or "
            f"{', '.join(ESPNET_SUFFIXES)} (ESPnet); of Transformers, give the directory"
        )
    # No repository is called so; Transformers would blame the hub.
    if path.suffix in {".pt", ".ckpt", ".pth", *CONFIG_SUFFIXES, *ARCHIVES}:
        raise StarError(f"teacher {name!r}: no such file; check the path")
    return None


def kind_by_name(name: str) -> str | None:
    """Kind of a hub or zoo name without ``config.json``; None where there is no such pack."""
    if Path(name).exists() or looks_like_path(name) or not is_in_zoo(name):
        return None
    return f"espnet_{task_of(name)}"


def find_kind(name: str, by_model_type: dict[str, str]) -> tuple[str | None, str]:
    """Kind of a teacher and, of a checkpoint of Transformers, its model type.

    Args:
        name: What the user gave.
        by_model_type: Kind that reads a model type.

    Raises:
        StarError: If nothing is found under that name, locally or on the hub.
    """
    kind = kind_by_files(name)
    if kind is not None:
        return kind, ""
    try:
        model_type = read_model_type(name)
    except StarError:
        kind = kind_by_name(name)
        if kind is None:
            raise
        return kind, ""
    return by_model_type.get(model_type), model_type
