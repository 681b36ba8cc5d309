"""What a distillation is built from, by its options, and what the log says of it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from typing import Any

from espnet2.optimizers.optim_groups import add_optimizer_hooks

from espnet_star import catalog
from espnet_star.distillation import StarDistillation
from espnet_star.encoders import Encoder, NoTeacher
from espnet_star.errors import StarError
from espnet_star.losses import WeightedLoss
from espnet_star.students import STUDENTS, Student
from espnet_star.students.experiment import is_distillation
from espnet_star.teachers import build_teacher


def check_mapping(name: str, value: Any) -> dict[str, Any]:
    """Refuse anything but key and value pairs.

    Raises:
        StarError: Naming the option.
    """
    if not isinstance(value, dict):
        raise StarError(f"--{name} must be a mapping such as key=value, got {value!r}")
    return value


def build_student(args: argparse.Namespace) -> Student:
    """Student of ``--encoder`` and ``--encoder_conf``."""
    options = dict(check_mapping("encoder_conf", args.encoder_conf))
    for key in STUDENTS.find(args.encoder).from_teacher:
        if options.get(key) == "teacher":
            options[key] = args.teacher
    return STUDENTS.build(args.encoder, options)


def build_target(args: argparse.Namespace, student: Student) -> Encoder:
    """Teacher of ``--teacher`` and ``--teacher_conf``, or what stands in its place."""
    if args.teacher == NoTeacher.name:
        return NoTeacher(student.shape)
    conf = dict(args.teacher_conf)
    if conf.get("kind") == "student" or ("kind" not in conf and is_distillation(args.teacher)):
        conf.pop("kind", None)
        if conf:
            raise StarError(f"teacher {args.teacher} is a student and has no option {min(conf)}")
        teacher = catalog.load(args.teacher, "student")
        teacher.conf = {"kind": "student"}
        return teacher
    return build_teacher(args.teacher, **conf)


def describe_choices(losses: Sequence[WeightedLoss], teacher: Encoder) -> list[str]:
    """What objectives have decided themselves, a line each."""
    layers = "pre" if teacher.shape.pre_norm else "post"
    return [
        f"{entry.entry['name']}: {key} {value} (teacher with {layers}-norm layers)"
        for entry in losses
        for key, value in entry.loss.chosen().items()
    ]


def keep_choices(model: StarDistillation, args: argparse.Namespace) -> None:
    """Leave with the model what ESPnet3, which drops ``args`` after building, asks for later."""
    model.choices = {"losses": args.losses, "encoder_conf": args.encoder_conf}
    if getattr(args, "exclude_weight_decay", False):
        # ESPnet2 marks the same parameters again when it makes the optimizer.
        add_optimizer_hooks(model, **args.exclude_weight_decay_conf)


def warn_of_ranks(losses: Sequence[WeightedLoss]) -> None:
    """Say what objectives over a whole batch mean where ranks share the batch."""
    for entry in losses:
        if entry.loss.across_ranks:
            logging.warning(entry.loss.across_ranks)


def describe_sizes(encoder: Encoder, teacher: Encoder) -> list[str]:
    """What is distilled into what, a line each."""
    sizes = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (teacher, encoder)]
    lines = [
        f"Teacher {teacher.name}: {sizes[0]:.2f} M parameters, {teacher.shape.layers} layers of "
        f"width {teacher.shape.width}",
        f"Student: {sizes[1]:.2f} M parameters, {encoder.shape.layers} layers of width "
        f"{encoder.shape.width}",
    ]
    return lines[1:] if teacher.name == NoTeacher.name else lines
