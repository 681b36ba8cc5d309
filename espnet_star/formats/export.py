"""A student's directory, with a model card, proved before it appears.

In Hugging Face format where a HubertModel can hold the student, else in our own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import HubertConfig

from espnet_star.errors import StarError
from espnet_star.files.staging import staged
from espnet_star.formats.fairseq.authors import Imported, import_student
from espnet_star.formats.model_card import CARD, Card, StudentFacts, is_foreign, model_card
from espnet_star.formats.target import check_target
from espnet_star.formats.training_facts import TrainingFacts, training_facts
from espnet_star.students import Student
from espnet_star.students.directory import check_own, load_student, write_own
from espnet_star.students.experiment import load_experiment
from espnet_star.students.hugging_face import FILES, check_saved, need_hubert, write_student


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        params: Parameters of the student.
        gap: Largest difference of its features in plain transformers; None where that has no
            such model.
        card: Whether a model card was written; somebody else's README is left alone.
    """

    params: int
    gap: float | None
    card: bool


def export_student(
    expdir: str | Path,
    outdir: str | Path,
    card: Card | None = None,
    *,
    model_file: str | None = None,
    random_seed: int | None = None,
    base_model: str | None = None,
    cost: Callable[[Student], dict[str, Any]] | None = None,
    force: bool = False,
    own: bool = False,
) -> Exported:
    """Load a distilled student, write it, compare what is read back, put it in place.

    Args:
        expdir: Folder of a distillation.
        outdir: Directory to write.
        card: What the model card tells besides; by default the directory's name.
        model_file: Model in ``expdir``; the averaged best by default.
        random_seed: Draw the weights with this seed instead: the undistilled baseline.
        base_model: The teacher's name on the hub, where the training's was a directory.
        cost: Returns ``macs_per_second`` and ``speed`` for the card; None leaves them out.
        force: Replace a student that is there already.
        own: Write a directory that espnet_star alone reads, where no HubertModel can hold the
            student, instead of refusing it.

    Raises:
        StarError: If the folder is none, no HubertModel can hold the student, the directory
            is taken, or features differ.
    """
    outdir = Path(outdir)
    with_card = not is_foreign(outdir)
    check_target(outdir, [*FILES, CARD] if with_card else FILES, force)
    training = training_facts(expdir)
    if base_model is not None:
        training = replace(training, teacher=base_model, base_model=base_model)
    student = load_experiment(expdir, model_file)
    if not own:
        need_hubert(student, expdir, "; star_export transformers --own true writes one of ours")
    if random_seed is not None:
        student = _drawn(student, random_seed)
    facts = student_facts(
        student,
        training,
        random_seed=random_seed,
        **(cost(student) if cost else {}),
    )
    text = model_card(card or Card(outdir.resolve().name), facts)
    gap = _write(student, outdir, text if with_card else None)
    return Exported(facts.params, gap, with_card)


def export_baseline(
    student: str | Path, outdir: str | Path, random_seed: int | None, force: bool = False
) -> float | None:
    """A ready student's architecture with random weights, without a model card.

    Returns:
        Largest difference of its features in plain transformers; None where that has no such
        model.

    Raises:
        StarError: Without a seed: the student is in this format already.
    """
    if random_seed is None:
        raise StarError(f"{student} is exported already; --upstream is for --random_init true")
    check_target(Path(outdir), FILES, force)
    return _write(_drawn(load_student(student), random_seed), Path(outdir))


def import_released(
    checkpoint: str | Path,
    architecture: str | Path | None,
    outdir: str | Path,
    force: bool = False,
    heads: str = "none",
) -> tuple[Imported, float | None]:
    """Turn a student that its authors released into a directory.

    Args:
        checkpoint: Their ``.ckpt``.
        architecture: Their YAML; None for s3prl's, whose checkpoint holds it.
        outdir: Directory to write.
        force: Replace a student that is there already.
        heads: Which prediction heads to keep, see :func:`.fairseq.released.plan`.

    Returns:
        The student with what was left out, and the largest difference in plain transformers,
        None where that has no such model.

    Raises:
        StarError: If a file cannot be used, the directory is taken, or features differ.
    """
    check_target(outdir, FILES, force)
    imported = import_student(checkpoint, architecture, heads)
    return imported, _write(imported.student, Path(outdir))


def student_facts(student: Student, training: TrainingFacts, **more: Any) -> StudentFacts:
    """What the card says of a student at hand."""
    return StudentFacts(
        config=getattr(student, "config", HubertConfig()),
        params=sum(parameter.numel() for parameter in student.parameters()),
        training=training,
        shape=student.shape,
        beyond_hubert=student.beyond_hubert,
        **more,
    )


def _drawn(student: Student, seed: int) -> Student:
    """The same architecture with fresh weights; statistics of data stay."""
    torch.manual_seed(seed)
    fresh = type(student)(**student.options()).eval()
    fresh.load_state_dict(dict(student.named_buffers()), strict=False)
    return fresh


def _write(student: Student, outdir: Path, card: str | None = None) -> float | None:
    with staged(outdir) as scratch:
        gap = _write_proved(student, scratch)
        if card is not None:
            (scratch / CARD).write_text(card, encoding="utf-8")
    return gap


def _write_proved(student: Student, scratch: Path) -> float | None:
    if student.beyond_hubert:
        write_own(student, scratch)
        check_own(student, scratch)
        return None
    hubert = need_hubert(student, scratch)
    write_student(hubert, scratch)
    return check_saved(hubert, scratch)
