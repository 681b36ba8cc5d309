"""Finding an ESPnet model's configuration and weights: experiments, packs and the zoo."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from espnet_star.data.errors import some
from espnet_star.errors import StarError, first_line
from espnet_star.files.model_file import read_model
from espnet_star.files.yaml_files import parse_yaml, read_yaml
from espnet_star.formats.packs.archive import Member, open_members
from espnet_star.formats.packs.unpack import META, unpack
from espnet_star.teachers.zoo import local_copy

CONFIG = "config.yaml"
CONFIG_SUFFIXES = (".yaml", ".yml")
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz")
# Options that only one of ESPnet's tasks has; config.yaml does not name the task.
_SIGNS = {
    "ssl": {"loss", "util"},
    "hubert": {"pred_masked_weight", "pred_nomask_weight"},
}
_OTHERS = {
    "a distillation": {"teacher", "losses"},
    "speech recognition": {"ctc_conf", "decoder_conf"},
    "text to speech": {"tts", "tts_conf"},
    "speaker recognition": {"spk_num", "projector"},
}
_WHERE = "an experiment's folder, its config.yaml or a .pth in it, a pack (.zip) or a zoo name"


@dataclass(frozen=True)
class EspnetModel:
    """A trained model as ESPnet left it.

    Attributes:
        config: Content of ``config.yaml``.
        config_path: For messages.
        state: Weights by name.
        model_file: Name of the file they came from; what a link points to.
        is_pack: Whether it came out of a pack.
    """

    config: dict[str, Any]
    config_path: str
    state: dict[str, torch.Tensor]
    model_file: str
    is_pack: bool = False


def task_of(name: str) -> str:
    """``"ssl"`` or ``"hubert"``, by what ``config.yaml`` holds.

    Raises:
        StarError: If there is no configuration, or it is another task's.
    """
    path = local_copy(name)
    if _is_pack(path):
        config, shown = _packed_config(path), f"{name}: its configuration"
    else:
        config_path, _ = _experiment(path)
        config, shown = read_yaml(config_path, str(config_path)), str(config_path)
    for task, signs in _SIGNS.items():
        if signs <= config.keys():
            return task
    other = next((what for what, signs in _OTHERS.items() if signs <= config.keys()), None)
    found = f"is that of {other}" if other else "is not that of self-supervised training"
    raise StarError(f"{shown} {found}; as a teacher it must be of ESPnet's SSLTask or HubertTask")


@contextmanager
def open_model(name: str, task: str, model_file: str | None = None) -> Iterator[EspnetModel]:
    """A model's configuration and weights; what a pack holds is there until the end.

    Args:
        name: An experiment's folder, its ``config.yaml``, a ``.pth`` beside one, or a pack.
        task: ``"ssl"`` or ``"hubert"``, what it has to be.
        model_file: Name of a file in the experiment's folder.

    Raises:
        StarError: If anything is missing, damaged, or another task's.
    """
    found = task_of(name)
    if found != task:
        raise StarError(
            f"teacher {name!r} is an experiment of ESPnet's {found} task, not {task}; give "
            f"kind=espnet_{found}, or none"
        )
    path = local_copy(name)
    if not _is_pack(path):
        config_path, given = _experiment(path)
        config = read_yaml(config_path, str(config_path))
        yield _read(config, config_path, _weights(config, config_path.parent, given, model_file))
        return
    if model_file is not None:
        raise StarError(f"teacher {name!r} is a pack, which holds one model; omit model_file")
    with tempfile.TemporaryDirectory() as scratch:
        named = unpack(path, Path(scratch) / "pack")
        config_path = Path(_pick(named, "train_config", name))
        config = read_yaml(config_path, f"{name}: {config_path.name}")
        weights = Path(_pick(named, "model_file", name))
        yield replace(_read(config, config_path, weights), is_pack=True)


def namespace(config: Mapping[str, Any], task: Any) -> argparse.Namespace:
    """Arguments of ESPnet's ``build_model``, with this version's defaults for what is new.

    ESPnet keeps every option in ``config.yaml``; one written by another version lacks those
    that it did not have.
    """
    values = vars(task.get_parser().parse_args([])) | dict(config)
    values["init"] = None  # every weight is filled in, and names of old methods are gone
    return argparse.Namespace(**values)


def build(name: str, task: Any, model: EspnetModel) -> Any:
    """ESPnet's own model with its weights, in eval mode.

    Args:
        name: Teacher, for messages.
        task: ESPnet's task class.
        model: From :func:`open_model`.

    Raises:
        StarError: If ESPnet cannot build it, or weights are missing or left over.
    """
    try:
        built = task.build_model(namespace(model.config, task))
    except Exception as error:  # of ESPnet, typeguard, torchaudio or a file that is not there
        raise StarError(
            f"teacher {name!r}: ESPnet's {task.__name__} cannot build the model of "
            f"{model.config_path} ({first_line(error)})"
        ) from error
    try:
        missing, unexpected = built.load_state_dict(model.state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise StarError(
            f"teacher {name!r}: {model.model_file} does not fit {model.config_path} ({lines[-1]})"
        ) from error
    # The step counter is younger than many checkpoints; heads give no hidden state.
    missing = [key for key in missing if _matters(key)]
    unexpected = [key for key in unexpected if _matters(key)]
    if missing or unexpected:
        parts = [f"it lacks {some(missing, 3)}"] if missing else []
        parts += [f"it also holds {some(unexpected, 3)}"] if unexpected else []
        raise StarError(
            f"teacher {name!r}: {model.model_file} does not fit {model.config_path}: "
            f"{'; '.join(parts)}"
        )
    return built.eval()


def _matters(key: str) -> bool:
    return not key.startswith(("losses.", "util_modules.")) and "global_step" not in key


def _read(config: dict[str, Any], config_path: Path, weights: Path) -> EspnetModel:
    state = read_model(weights, "; copy it again, or give another model_file")
    # As trainers wrap it: ESPnet's checkpoint.pth, DeepSpeed, Lightning.
    for key in ("model", "module", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise StarError(f"{weights} holds no weights by name; give a .pth of ESPnet's trainer")
    return EspnetModel(config, str(config_path), state, weights.resolve().name)


def _experiment(path: Path) -> tuple[Path, Path | None]:
    """Configuration of an experiment, and the model file that was named with it."""
    if not path.exists():
        raise StarError(f"{path}: no such file or folder; give {_WHERE}")
    if path.suffix in CONFIG_SUFFIXES and path.is_file():
        return path, None
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG).is_file():
        raise StarError(
            f"{folder} has no {CONFIG}; ESPnet writes it beside the .pth files, and the model "
            "cannot be built without: copy both"
        )
    return folder / CONFIG, None if path.is_dir() else path


def _weights(
    config: Mapping[str, Any], folder: Path, given: Path | None, model_file: str | None
) -> Path:
    """File of the weights: the one named, else the best by the experiment's own criterion."""
    if given is not None and model_file not in {None, given.name}:
        raise StarError(f"{given} and model_file={model_file} name two files; give one of them")
    if given is not None:
        return given
    if model_file is not None:
        candidates = [folder / model_file]
    else:
        candidates = [folder / name for name in _usual_names(config)]
    for path in candidates:
        if path.is_file():
            return path
    there = some(sorted(path.name for path in folder.glob("*.pth"))) or "no .pth"
    expected = ", ".join(path.name for path in candidates)
    raise StarError(f"{folder} has none of {expected}; it has {there}: give one as model_file")


def _usual_names(config: Mapping[str, Any]) -> Sequence[str]:
    """Averaged, best and last model, those of the validation set first."""
    criteria = config.get("best_model_criterion") or [["valid", "loss", "min"]]
    names = [
        f"{criterion[0]}.{criterion[1]}.{part}.pth"
        for valid in (True, False)
        for part in ("ave", "best")
        for criterion in criteria
        if (criterion[0] == "valid") is valid
    ]
    return [*names, "latest.pth"]


def _is_pack(path: Path) -> bool:
    return (path.is_file() and path.suffix in ARCHIVES) or (path / META).is_file()


def _packed_config(path: Path) -> dict[str, Any]:
    """Training configuration in a pack, without writing anything."""
    with open_members(path) as members:
        files = {str(member.path): member for member in members}
        if META not in files:
            raise StarError(
                f"{path} has no {META}, so it is not a pack (espnet2.bin.pack makes one)"
            )
        meta = _member_yaml(files[META], f"{path}: {META}")
        named = meta.get("yaml_files")
        config = _pick(named if isinstance(named, dict) else {}, "train_config", str(path))
        if config not in files:
            raise StarError(f"{path}: {META} names {config!r}, which is not in the pack")
        return _member_yaml(files[config], f"{path}: {config}")


def _member_yaml(member: Member, shown: str) -> dict[str, Any]:
    with member.open() as file:
        return parse_yaml(file.read(), shown)


def _pick(named: Mapping[str, Any], ending: str, source: str) -> str:
    """The only entry of a pack whose option ends so, e.g. ``ssl_train_config``."""
    found = [str(value) for key, value in named.items() if str(key).endswith(ending)]
    if len(found) != 1:
        raise StarError(
            f"{source}: its {META} must name one {ending}, found {some(map(str, named)) or 'none'}"
        )
    return found[0]
