"""The ESPnet task that distills a teacher into a student."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import Any

import torch
import yaml
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.tasks.abs_task import AbsTask, IteratorOptions
from espnet2.train.distributed_utils import DistributedOption
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import float_or_none, int_or_none

from espnet_star.data.kaldi import read_counts
from espnet_star.data.lengths import bins_of, build_batches, drop_longer, long_clips
from espnet_star.distillation import StarDistillation
from espnet_star.errors import unknown_name
from espnet_star.losses import DEFAULT
from espnet_star.tasks.guarded import Guarded
from espnet_star.tasks.optimizers import WithOptimizers
from espnet_star.tasks.parts import (
    build_student,
    build_target,
    check_mapping,
    describe_choices,
    describe_sizes,
    keep_choices,
    warn_of_ranks,
)
from espnet_star.tasks.preflight.frame_labels import check_frame_labels
from espnet_star.tasks.preflight.lists import DataList
from espnet_star.tasks.preflight.views import check_view_data
from espnet_star.tasks.reported import Reported
from espnet_star.tasks.student_choices import StudentChoices
from espnet_star.training.distillation_trainer import DistillationTrainer
from espnet_star.training.shard_options import add_shard_arguments, shard_iter_factory, shards_of
from espnet_star.views import VIEWS

encoder_choices = StudentChoices()
DEFAULT_LOSSES = [{"name": DEFAULT, "weight": 1.0, "conf": {}}]
MODEL_OPTIONS = ("cache_dir", "cpu_dtype")
# A second waveform, and labels of frames; others with --allow_variable_data_keys true.
OPTIONAL_DATA = ("speech2", "labels")


class StarTask(Reported, Guarded, WithOptimizers, AbsTask):
    """Distill a speech self-supervised model into a light student.

    Takes every training option of ESPnet, and of its own ``--teacher``,
    ``--teacher_conf``, ``--losses``, ``--encoder_conf`` and ``--model_conf``. Lengths
    come from ``utt2num_samples`` as shape file, so no statistics pass is needed.
    """

    num_optimizers: int = 1
    class_choices_list = [encoder_choices]  # noqa: RUF012 (ESPnet's declaration)
    trainer = DistillationTrainer

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options of distillation."""
        required = parser.get_default("required")
        required += ["teacher"]
        group = parser.add_argument_group("Task related")
        group.add_argument(
            "--teacher",
            type=str,  # ESPnet's str_or_none would leave a teacher named none out
            default=None,
            help="Model to distill: Hugging Face hub name or directory; ESPnet's SSL or HuBERT "
            "experiment (folder, .pth, pack or zoo name); .pt of fairseq or WavLM; s3prl:NAME; "
            "none where losses read labels only",
        )
        group.add_argument(
            "--teacher_conf",
            action=NestedDictAction,
            default={},
            help="Keyword arguments of the teacher, e.g. dtype=bfloat16. What was left "
            "open (kind, model_file, do_normalize) is written into config.yaml",
        )
        group.add_argument(
            "--losses",
            type=yaml_value,
            default=[dict(entry) for entry in DEFAULT_LOSSES],
            help="Objectives: a list of {name, weight, conf}. What is left open and chosen by the "
            "teacher's layers (target_norm) is written into config.yaml",
        )
        group.add_argument(
            "--view",
            default="plain",
            help=f"What is fed to whom: one of {', '.join(VIEWS)} (plain: both hear whole "
            "utterances), or package.module:Class of a view of your own",
        )
        group.add_argument(
            "--view_conf",
            action=NestedDictAction,
            default={},
            help="Keyword arguments of the view",
        )
        group.add_argument(
            "--model_conf",
            action=NestedDictAction,
            default={},
            help="Keyword arguments of the distillation model, e.g. cache_dir=DIR",
        )
        group.add_argument(
            "--max_duration",
            type=float_or_none,
            default=None,
            help="Leave out longer utterances, in seconds; those of shards beyond 30 by default",
        )
        group.add_argument(
            "--expected_batch",
            type=float_or_none,
            default=None,
            help="Utterances an update that the learning rate is meant for, all ranks and "
            "accum_grad together; a training that is far off is refused",
        )
        group.add_argument(
            "--expected_updates",
            type=int_or_none,
            default=None,
            help="Updates that the schedule is meant for; a training that is far off warns",
        )
        add_shard_arguments(group)
        # A distillation has no attention plots; ESPnet would run a batch for them.
        parser.set_defaults(num_att_plot=0)
        for choices in cls.class_choices_list:
            choices.add_arguments(group)

    @classmethod
    def build_collate_fn(cls, args: argparse.Namespace, train: bool) -> Callable[..., Any]:
        """What the view has done in data loading processes; zero padding as a rule."""
        return VIEWS.find(str(args.view)).collate_fn(train)

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> None:
        """Whole utterances as they are."""
        return None

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Speech alone."""
        return ("speech",)

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """What a view may read besides."""
        return OPTIONAL_DATA

    @classmethod
    def build_sequence_iter_factory(
        cls, args: argparse.Namespace, iter_options: IteratorOptions, mode: str
    ) -> AbsIterFactory:
        """ESPnet's batches, of utterances that fit.

        Raises:
            DataError: If ESPnet cannot deal batches of them out to all ranks.
        """
        ranks = torch.distributed.get_world_size() if iter_options.distributed else 1
        with drop_longer(iter_options.shape_files, args.max_duration) as files:
            place = f"{iter_options.shape_files[0]} ({mode})"
            build_batches(args, iter_options, files, ranks, place)
            note = long_clips(read_counts(files[0]), bins_of(iter_options))
            if note:
                logging.warning("%s: %s", place, note)
            iter_options.shape_files = files
            return super().build_sequence_iter_factory(args, iter_options, mode)

    @classmethod
    def build_iter_factory(
        cls,
        args: argparse.Namespace,
        distributed_option: DistributedOption,
        mode: str,
        kwargs: dict[str, Any] | None = None,
    ) -> AbsIterFactory:
        """Shards where they are given, else ESPnet's own lists of files, split or not.

        Raises:
            StarError: If shards are unusable, or there is no data.
        """
        places = shards_of(args, mode)
        if not places:
            return super().build_iter_factory(args, distributed_option, mode, kwargs)
        options = cls.build_iter_options(args, distributed_option, mode)
        return shard_iter_factory(args, options, mode, places)

    @classmethod
    def build_multiple_iter_factory(
        cls, args: argparse.Namespace, distributed_option: DistributedOption, mode: str
    ) -> AbsIterFactory:
        """ESPnet's split lists of files.

        Raises:
            StarError: If shards are given as well.
        """
        shards_of(args, mode)
        return super().build_multiple_iter_factory(args, distributed_option, mode)

    @classmethod
    def check_labels(
        cls, args: argparse.Namespace, mode: str, lists: list[DataList], tokens: list[str] | None
    ) -> None:
        """See :func:`check_frame_labels`."""
        check_frame_labels(args, mode, lists)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> StarDistillation:
        """Build teacher, student and objectives; write every choice into ``args``.

        Raises:
            StarError: On a misspelled name or key, or a teacher that cannot be loaded.
        """
        check_mapping("teacher_conf", args.teacher_conf)
        for key in check_mapping("model_conf", args.model_conf):
            if key not in MODEL_OPTIONS:
                raise unknown_name("key of model_conf", key, MODEL_OPTIONS)
        encoder = build_student(args)
        teacher = build_target(args, encoder)
        args.teacher_conf = teacher.conf
        check_view_data(args)
        view_conf = check_mapping("view_conf", args.view_conf)
        model = StarDistillation(
            encoder, teacher, args.losses, args.view, view_conf, **args.model_conf
        )
        args.losses = [entry.entry for entry in model.losses]
        if getattr(args, "distributed", False):
            warn_of_ranks(model.losses)
        args.encoder_conf = encoder.options()
        keep_choices(model, args)
        for line in [*describe_choices(model.losses, teacher), *describe_sizes(encoder, teacher)]:
            logging.info(line)
        return model


def yaml_value(text: str) -> Any:
    """Value of an option that is a list or a mapping, which NestedDictAction refuses."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"must be YAML, got {text!r}") from error
