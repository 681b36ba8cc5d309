"""What an experiment's folder tells about how its student was trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from espnet_star.data.kaldi import split_lines
from espnet_star.encoders import NoTeacher
from espnet_star.errors import StarError
from espnet_star.losses import LOSSES, Objective
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.students.experiment import read_experiment_config

# Keys of ESPnet's config.yaml that decide what is learned. None of them names a path.
_OPTIONS = (
    "teacher_conf", "losses", "view", "batch_type", "batch_size", "batch_bins", "accum_grad",
    "ngpu",
    "dist_world_size", "max_epoch", "num_iters_per_epoch", "optim", "optim_conf",
    "exclude_weight_decay", "exclude_weight_decay_conf", "scheduler", "scheduler_conf",
    "grad_clip", "use_amp", "train_dtype", "best_model_criterion",
    "keep_nbest_models", "seed",
)  # fmt: skip
_DROPOUTS = ("feat_proj_dropout", "hidden_dropout", "attention_dropout", "activation_dropout")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class TrainingFacts:
    """Where a student comes from.

    Attributes:
        teacher: Hub name, or the last part of a directory's path; empty if unknown.
        base_model: The teacher's name on the hub, None where it is not known to have one.
        train_sets: Names of the data directories.
        hours: Audio of the train set, None where its lengths are not here any more.
        utterances: Number of them, None likewise.
        options: What decided the training, by ESPnet's names.
        sources: What its objectives are, see :class:`Objective`.
        bibtex: What to cite for them.
    """

    teacher: str
    base_model: str | None
    train_sets: tuple[str, ...]
    hours: float | None
    utterances: int | None
    options: dict[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    bibtex: tuple[str, ...] = ()


def training_facts(directory: str | Path) -> TrainingFacts:
    """Read the facts out of ``config.yaml`` and the lengths that it names.

    Args:
        directory: Folder of a distillation.

    Raises:
        StarError: If it is none.
    """
    directory = Path(directory)
    config = read_experiment_config(directory)
    # Relative paths start at the recipe, which is a folder above the experiment.
    roots = (Path(), *directory.resolve().parents)
    teacher, base_model = _teacher(_named(config), roots)
    shapes = config.get("train_shape_file") or []
    lengths = _lengths([str(path) for path in shapes], roots)
    options = {key: config[key] for key in _OPTIONS if config.get(key) not in (None, {}, [])}
    by_size = config.get("batch_type") in {"length", "numel"}
    options.pop("batch_size" if by_size else "batch_bins", None)
    encoder = config.get("encoder_conf") or {}
    if dropouts := {key: encoder[key] for key in _DROPOUTS if key in encoder}:
        options["encoder_conf"] = dropouts
    names = [str(entry["name"]) for entry in options.get("losses", ())]
    objectives = {name: _objective(name) for name in names}
    return TrainingFacts(
        teacher=teacher,
        base_model=base_model,
        train_sets=_train_sets(config.get("train_data_path_and_name_and_type") or []),
        hours=None if lengths is None else sum(lengths) / SAMPLE_RATE / 3600,
        utterances=None if lengths is None else len(lengths),
        options=options,
        sources=tuple(found.source if found else name for name, found in objectives.items()),
        bibtex=tuple(found.bibtex for found in objectives.values() if found and found.bibtex),
    )


def _objective(name: str) -> type[Objective] | None:
    """Class of an objective that says where it is from; None where it is not to be had here."""
    try:
        found = LOSSES.find(name)
    except StarError:
        return None
    return found if found.source else None


def _find(path: str, roots: Sequence[Path]) -> Path | None:
    return next((root / path for root in roots if (root / path).exists()), None)


def _named(config: Mapping[str, Any]) -> str:
    """The teacher's name, empty where there was none."""
    name = str(config.get("teacher") or "")
    return "" if name == NoTeacher.name else name


def _teacher(name: str, roots: Sequence[Path]) -> tuple[str, str | None]:
    """Name to show, and the name on the hub where the hub's cache knows it."""
    directory = _find(name, roots) if name else None
    if directory is not None:
        return directory.resolve().name, None
    if not _HUB_NAME.fullmatch(name):
        return Path(name).name, None
    # A directory that is gone by now would look the same; training has filled the cache.
    cached = try_to_load_from_cache(name, "config.json")
    return name, name if isinstance(cached, str) else None


def _train_sets(sources: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Names of the directories that the training's waveforms stand in."""
    paths = [Path(str(source[0])) for source in sources if list(source[1:2]) == ["speech"]]
    return tuple(dict.fromkeys(path.parent.name or path.name for path in paths))


def _lengths(files: Sequence[str], roots: Sequence[Path]) -> list[int] | None:
    """Samples of every utterance, None unless every file is there and readable."""
    lengths: list[int] = []
    for name in files:
        path = _find(name, roots)
        try:
            rows = [] if path is None else split_lines(path.read_text(encoding="utf-8"))
            lengths += [int(row.split()[1].split(",")[0]) for row in rows]
        except (OSError, ValueError, IndexError):
            return None
        if not rows:
            return None
    return lengths or None
