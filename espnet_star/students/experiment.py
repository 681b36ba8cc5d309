"""Student out of a distillation experiment's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from espnet_star.errors import StarError
from espnet_star.files.model_file import read_model
from espnet_star.files.yaml_files import read_yaml
from espnet_star.students import STUDENTS, Student

# What ESPnet's trainer leaves, the most averaged first.
MODEL_FILES = ("valid.loss.ave.pth", "valid.loss.best.pth", "latest.pth")


def is_experiment(directory: str | Path) -> bool:
    """Whether a folder is an ESPnet experiment rather than a Hugging Face directory."""
    return (Path(directory) / "config.yaml").is_file()


def is_distillation(directory: str | Path) -> bool:
    """Whether a folder is a distillation's experiment, not another ESPnet task's.

    A configuration that cannot be read counts as one: its own reader says what is wrong.
    """
    if not is_experiment(directory):
        return False
    try:
        config = read_yaml(Path(directory) / "config.yaml")
    except StarError:
        return True
    # Those of self-supervised training name their objective so.
    return not {"loss", "pred_masked_weight"} & config.keys()


def load_experiment(directory: str | Path, model_file: str | Path | None = None) -> Student:
    """Student of a distillation experiment, in eval mode.

    Args:
        directory: Holds ``config.yaml`` and the models of ESPnet's trainer.
        model_file: A file in it, or a path; the averaged model by default.

    Raises:
        StarError: If the experiment has no finished epoch or is not a distillation.
    """
    directory = Path(directory)
    config = read_experiment_config(directory)
    path = _model_path(directory, model_file)
    state = read_model(path, "; resume the training, or give another model_file")
    if not isinstance(state, dict):
        raise StarError(f"{path} must hold a model's weights by name, got {type(state).__name__}")
    prefix = "encoder."
    weights = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    encoder = _build(config, directory)
    encoder.load_weights(weights, str(path))
    return encoder.eval()


def _build(config: dict[str, Any], directory: Path) -> Student:
    options = config.get("encoder_conf") or {}
    try:
        return STUDENTS.build(config["encoder"], options)
    except (StarError, TypeError) as error:
        raise StarError(
            f"{directory / 'config.yaml'}: encoder_conf cannot be used ({error}); if another "
            "version of espnet_star wrote it, use that version"
        ) from error


def read_experiment_config(directory: str | Path) -> dict[str, Any]:
    """Content of a distillation's ``config.yaml``.

    Raises:
        StarError: If it is missing, no YAML, or another training's.
    """
    path = Path(directory) / "config.yaml"
    if not path.is_file():
        raise StarError(
            f"{directory} has no config.yaml; expected the folder of a distillation, as "
            "star_train writes it"
        )
    config = read_yaml(path)
    if "losses" not in config or not _is_student(config):
        raise StarError(f"{path} is not a distillation's (espnet_star star_train writes one)")
    return config


def _is_student(config: dict[str, Any]) -> bool:
    name = config.get("encoder")
    return isinstance(name, str) and (name in STUDENTS or ":" in name)


def _model_path(directory: Path, model_file: str | Path | None) -> Path:
    if model_file is not None:
        candidates = [Path(model_file), directory / Path(model_file).name]
    else:
        candidates = [directory / name for name in MODEL_FILES]
    for path in candidates:
        if path.is_file():
            return path
    names = ", ".join(path.name for path in candidates)
    raise StarError(
        f"{directory} has none of {names}: no epoch has finished yet, or the training was "
        "stopped before; run the same command again to resume it"
    )
