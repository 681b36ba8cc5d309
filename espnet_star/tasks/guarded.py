"""What every training of ours does around ESPnet's: one run a folder, no silent deaths."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from espnet2.train.distributed_utils import get_rank, get_world_size
from espnet2.utils.config_argparse import ArgumentParser

from espnet_star.files.run_lock import exclusive
from espnet_star.tasks.preflight import check_training
from espnet_star.tasks.preflight.explain import explain
from espnet_star.tasks.preflight.lists import DataList
from espnet_star.tasks.preflight.reading import name_failures
from espnet_star.terminal.quiet import logging_left_alone
from espnet_star.training.heartbeat import Heartbeat
from espnet_star.training.layered_config import LayeredParser
from espnet_star.training.mismatch import OtherModel


class Guarded:
    """Mixin for an ESPnet task: a user's mistake is one line, before or while it runs.

    Looks at options, lists and recordings first, holds the experiment folder, and names a
    rank that died.
    """

    @classmethod
    def get_parser(cls) -> ArgumentParser:
        """ESPnet's options; a configuration file may begin from another one."""
        parser = super().get_parser()  # type: ignore[misc]
        # ESPnet makes the parser itself and takes no class for it.
        parser.__class__ = LayeredParser
        return parser

    @classmethod
    def main(cls, args: argparse.Namespace | None = None, cmd: Sequence[str] | None = None) -> None:
        """See ESPnet's; called once on a machine, or by a launcher in every process.

        Raises:
            StarError: If options or data cannot be meant so.
        """
        parser = cls.get_parser()
        if args is None:
            args = parser.parse_args(cmd)
        if not args.print_config:
            with logging_left_alone():
                check_training(cls, args, parser)
        super().main(args=args, cmd=cmd)  # type: ignore[misc]

    @classmethod
    def check_labels(
        cls, args: argparse.Namespace, mode: str, lists: list[DataList], tokens: list[str] | None
    ) -> None:
        """Hold the labels of a set against what the model knows; by default nothing.

        Args:
            args: Options of the task.
            mode: ``train`` or ``valid``.
            lists: Data of the set.
            tokens: Content of ``--token_list``.
        """

    @classmethod
    def build_iter_factory(cls, *args: Any, **kwargs: Any) -> Any:
        """ESPnet's, whose failures name list, utterance and file."""
        return name_failures(super().build_iter_factory(*args, **kwargs))  # type: ignore[misc]

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """See ESPnet's; called in every process of a run.

        Raises:
            StarError: If another run holds ``--output_dir``, another rank has died, or a
                user's mistake shows only now.
        """
        with ExitStack() as stack:
            rank = 0
            if args.distributed:
                rank = get_rank(args.dist_rank, args.dist_launcher) or 0
                world = get_world_size(args.dist_world_size, args.dist_launcher)
            if rank == 0:
                stack.enter_context(exclusive(args.output_dir))
            if args.distributed:
                stack.enter_context(Heartbeat(args.output_dir, rank, world))
            config = Path(args.output_dir) / "config.yaml"
            former = config.read_bytes() if rank == 0 and config.is_file() else None
            try:
                super().main_worker(args)  # type: ignore[misc]
            except Exception as error:
                told = explain(error, args)
                if isinstance(told, OtherModel) and former is not None:
                    # ESPnet has written that of the model that does not fit.
                    config.write_bytes(former)
                if told is None or told is error:
                    raise
                raise told from error
