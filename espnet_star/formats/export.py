"""A student's directory in Hugging Face format, with a model card, proved before it appears."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from espnet_star.errors import StarError
from espnet_star.files.staging import staged
from espnet_star.formats.fairseq.authors import Imported, import_student
from espnet_star.formats.model_card import CARD, Card, StudentFacts, is_foreign, model_card
from espnet_star.formats.target import check_target
from espnet_star.formats.training_facts import training_facts
from espnet_star.students import StarEncoder
from espnet_star.students.experiment import load_experiment
from espnet_star.students.hugging_face import FILES, check_saved, need_hubert, write_student


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        params: Parameters of the student.
        gap: Largest difference of its features in plain transformers.
        card: Whether a model card was written; somebody else's README is left alone.
    """

    params: int
    gap: float
    card: bool


def export_student(
    expdir: str | Path,
    outdir: str | Path,
    card: Card | None = None,
    *,
    model_file: str | None = None,
    random_seed: int | None = None,
    base_model: str | None = None,
    cost: Callable[[StarEncoder], dict[str, Any]] | None = None,
    force: bool = False,
) -> Exported:
    """Load a distilled student, write it, compare what transformers reads, put it in place.

    Args:
        expdir: Folder of a distillation.
        outdir: Directory to write.
        card: What the model card tells besides; by default the directory's name.
        model_file: Model in ``expdir``; the averaged best by default.
        random_seed: Draw the weights with this seed instead: the undistilled baseline.
        base_model: The teacher's name on the hub, where the training's was a directory.
        cost: Returns ``macs_per_second`` and ``speed`` for the card; None leaves them out.
        force: Replace a student that is there already.

    Raises:
        StarError: If the folder is none, the directory is taken, or features differ.
    """
    outdir = Path(outdir)
    with_card = not is_foreign(outdir)
    check_target(outdir, [*FILES, CARD] if with_card else FILES, force)
    training = training_facts(expdir)
    if base_model is not None:
        training = replace(training, teacher=base_model, base_model=base_model)
    student = need_hubert(load_experiment(expdir, model_file), expdir)
    if random_seed is not None:
        student = _drawn(student.options(), random_seed)
    facts = StudentFacts(
        config=student.config,
        params=sum(parameter.numel() for parameter in student.parameters()),
        training=training,
        random_seed=random_seed,
        **(cost(student) if cost else {}),
    )
    text = model_card(card or Card(outdir.resolve().name), facts)
    gap = _write(student, outdir, text if with_card else None)
    return Exported(facts.params, gap, with_card)


def export_baseline(
    student: str | Path, outdir: str | Path, random_seed: int | None, force: bool = False
) -> float:
    """A ready student's architecture with random weights, without a model card.

    Returns:
        Largest difference of its features in plain transformers.

    Raises:
        StarError: Without a seed: the student is in this format already.
    """
    if random_seed is None:
        raise StarError(f"{student} is exported already; --upstream is for --random_init true")
    check_target(Path(outdir), FILES, force)
    return _write(_drawn(StarEncoder.from_pretrained(student).options(), random_seed), Path(outdir))


def import_released(
    checkpoint: str | Path, architecture: str | Path, outdir: str | Path, force: bool = False
) -> tuple[Imported, float]:
    """Turn a student that the paper's authors released into a Hugging Face directory.

    Args:
        checkpoint: Their ``.ckpt``.
        architecture: Their YAML.
        outdir: Directory to write.
        force: Replace a student that is there already.

    Returns:
        The student with what was left out, and the largest difference in plain transformers.

    Raises:
        StarError: If a file cannot be used, the directory is taken, or features differ.
    """
    check_target(outdir, FILES, force)
    imported = import_student(checkpoint, architecture)
    return imported, _write(imported.student, Path(outdir))


def _drawn(options: dict[str, Any], seed: int) -> StarEncoder:
    torch.manual_seed(seed)
    return StarEncoder(**options).eval()


def _write(student: StarEncoder, outdir: Path, card: str | None = None) -> float:
    with staged(outdir) as scratch:
        write_student(student, scratch)
        gap = check_saved(student, scratch)
        if card is not None:
            (scratch / CARD).write_text(card, encoding="utf-8")
    return gap
