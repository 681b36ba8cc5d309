#!/usr/bin/env python3
"""Export a distilled student as a Hugging Face directory with a model card, and prove it.

The directory appears once plain transformers has given the student's own features from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espnet_star.bin.command import run_tool, str2bool
from espnet_star.errors import StarError
from espnet_star.formats.experiment import load_experiment
from espnet_star.formats.hugging_face import FILES, check_saved, need_hubert, write_student
from espnet_star.formats.model_card import CARD, Card, check_licence, is_foreign, model_card
from espnet_star.formats.staging import staged
from espnet_star.formats.target import check_target
from espnet_star.formats.training_facts import training_facts
from espnet_star.students import StarEncoder

if TYPE_CHECKING:
    from espnet_star.analysis.subjects import Subject


def get_parser() -> argparse.ArgumentParser:
    """Options of ``star_export``."""
    parser = argparse.ArgumentParser(prog="star_export", description=__doc__)
    parser.add_argument("--expdir", help="Folder of a distillation")
    parser.add_argument(
        "--student",
        help="A ready student instead (directory or hub name), with --random_init true: the "
        "baseline for a student that was distilled elsewhere",
    )
    parser.add_argument("--model_file", help="Model in it; the averaged best by default")
    parser.add_argument("--outdir", required=True, help="Directory to write")
    parser.add_argument(
        "--random_init",
        type=str2bool,
        default=False,
        help="Keep the architecture, not the weights: the undistilled baseline",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed of --random_init")
    parser.add_argument(
        "--force", type=str2bool, default=False, help="Replace a student already there"
    )
    card = parser.add_argument_group("model card")
    card.add_argument("--name", help="Hub name it will have; the directory's name by default")
    card.add_argument("--base_model", help="Hub name of the teacher, where --teacher was none")
    card.add_argument(
        "--license",
        help="The hub's identifier, e.g. apache-2.0; by default the card says that the weights "
        "follow the terms of teacher and data",
    )
    card.add_argument(
        "--speed", type=str2bool, default=True, help="Measure the real-time factor, some seconds"
    )
    card.add_argument("--results", metavar="FILE", help="JSON that star_score table has written")
    return parser


def export(args: argparse.Namespace) -> None:
    """Load, write, load again with plain transformers, compare, put in place."""
    if (args.expdir is None) == (args.student is None):
        raise StarError("give one of --expdir and --student")
    outdir = Path(args.outdir)
    if args.student is not None:
        export_baseline(args, outdir)
        return
    # A README of somebody else's is left alone, with --force or without.
    card_file = None if is_foreign(outdir) else CARD
    check_target(outdir, [*FILES, CARD] if card_file else FILES, args.force)
    facts = _card_facts(args)
    student = need_hubert(load_experiment(args.expdir, args.model_file), args.expdir)
    if args.random_init:
        torch.manual_seed(args.seed)
        student = StarEncoder(**student.options()).eval()
    card = Card(**facts, **_size(student, args.speed))
    with staged(outdir) as scratch:
        write_student(student, scratch)
        gap = check_saved(student, scratch)
        if card_file:
            (scratch / card_file).write_text(model_card(card), encoding="utf-8")
    kind = " with random weights" if args.random_init else ""
    print(f"{outdir}: student of {card.params / 1e6:.2f} M parameters{kind}, {_checked(gap)}")
    if not card_file:
        print(f"  {outdir / CARD} is not star_export's and was left as it is: no model card")


def _checked(gap: float) -> str:
    return f"the same in transformers.HubertModel (to {gap:.0e})"


def export_baseline(args: argparse.Namespace, outdir: Path) -> None:
    """A ready student's architecture with random weights, without a model card.

    Raises:
        StarError: Without ``--random_init``: the student is in this format already.
    """
    if not args.random_init:
        raise StarError(f"{args.student} is exported already; --student is for --random_init true")
    check_target(outdir, FILES, args.force)
    options = StarEncoder.from_pretrained(args.student).options()
    torch.manual_seed(args.seed)
    student = StarEncoder(**options).eval()
    with staged(outdir) as scratch:
        write_student(student, scratch)
        gap = check_saved(student, scratch)
    print(f"{outdir}: {args.student} with random weights, {_checked(gap)}")


def _card_facts(args: argparse.Namespace) -> dict[str, Any]:
    """What the card tells, all but the student's size; before anything takes long."""
    training = training_facts(args.expdir)
    if args.base_model is not None:
        training = replace(training, teacher=args.base_model, base_model=args.base_model)
    return {
        "name": args.name or Path(args.outdir).resolve().name,
        "training": training,
        "random_seed": args.seed if args.random_init else None,
        "licence": None if args.license is None else check_licence(args.license),
        "results": "" if args.results is None else _results(args.results),
    }


def _results(path: str) -> str:
    from espnet_star.analysis.table import markdown, read_merged

    return markdown(read_merged(path))


def _size(student: StarEncoder, timed: bool) -> dict[str, Any]:
    """Parameters and cost, as star_profile counts and times them."""
    from espnet_star.analysis.profile import LIBRISPEECH_LENGTHS, profile
    from espnet_star.analysis.subjects import student_subject

    subject = student_subject("student", student)
    row = profile(subject, LIBRISPEECH_LENGTHS)
    return {
        "config": student.config,
        "params": row["params"],
        "macs_per_second": row["macs_per_second"],
        "speed": _speed(subject) if timed else "",
    }


def _speed(subject: Subject) -> str:
    from espnet_star.analysis.machine import machine_facts
    from espnet_star.analysis.speed import measure_speed, rtf_key

    seconds, threads = 5, 1
    row = measure_speed([subject], [seconds], [threads], repeats=3)[0]
    facts = machine_facts()
    return (
        f"{row[rtf_key(seconds, threads)]:.4f} with espnet_star: a clip of {seconds} s, float32, "
        f"one thread of {facts['cpu']}, torch {facts['torch']}, {facts['date']}"
    )


def main(cmd: Sequence[str] | None = None) -> None:
    """Run the command."""
    args = get_parser().parse_args(cmd)
    run_tool("star_export", lambda: export(args))


if __name__ == "__main__":
    main()
