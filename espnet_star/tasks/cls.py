"""ESPnet's classification task with the student registered."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from espnet2.tasks.cls import CLSTask as BaseCLSTask
from espnet2.utils.types import float_or_none

from espnet_star.downstream.excerpts import Excerpts
from espnet_star.errors import StarError
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.tasks.plugin import StandAlone, register_in
from espnet_star.tasks.preflight.lists import DataList
from espnet_star.tasks.preflight.symbols import check_labels

register_in("cls")


class CLSTask(StandAlone, BaseCLSTask):
    """ESPnet's task; ``--frontend star`` is the student.

    ``--excerpt_seconds`` trains on random excerpts, as SUPERB identifies speakers.
    """

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add our option to ESPnet's."""
        super().add_task_arguments(parser)
        parser.add_argument(
            "--excerpt_seconds",
            type=float_or_none,
            default=None,
            help="Train on random excerpts of at most so many seconds (at 16 kHz); whole "
            "utterances by default, and always in validation",
        )

    @classmethod
    def build_preprocess_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[str, dict[str, Any]], dict[str, Any]] | None:
        """ESPnet's preprocessing, of an excerpt in training.

        Raises:
            StarError: If ``--excerpt_seconds`` is not positive.
        """
        preprocess = super().build_preprocess_fn(args, train)
        # Configurations of models trained elsewhere do not have the option.
        seconds = getattr(args, "excerpt_seconds", None)
        if not train or seconds is None:
            return preprocess
        if seconds <= 0:
            raise StarError(f"--excerpt_seconds must be above 0, got {seconds}")
        return Excerpts(preprocess, round(seconds * SAMPLE_RATE))

    @classmethod
    def check_labels(
        cls, args: argparse.Namespace, mode: str, lists: list[DataList], tokens: list[str] | None
    ) -> None:
        """Labels that the list lacks would be a class that the model does not have.

        Raises:
            DataError: Naming them.
        """
        if args.use_preprocessor and tokens is not None:
            check_labels(lists, "label", tokens, str(args.token_list)[:200])
