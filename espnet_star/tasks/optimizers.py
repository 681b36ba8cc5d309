"""Optimizers of published methods that ESPnet lacks, for the tasks that offer them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import torch
from espnet2.utils.config_argparse import ArgumentParser

from espnet_star.errors import StarError
from espnet_star.training.s3prl_adamw import S3prlAdamW

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {"s3prl_adamw": S3prlAdamW}
# What they do themselves, and the options of ESPnet that would do it once more.
OWN = {"scheduler": None, "exclude_weight_decay": False, "sharded_ddp": False}


class WithOptimizers:
    """Mixin for an ESPnet task: ``--optim`` knows ours besides ESPnet's."""

    @classmethod
    def get_parser(cls) -> ArgumentParser:
        """ESPnet's options, of which ``--optim`` has more choices."""
        parser = super().get_parser()  # type: ignore[misc]
        for action in parser._actions:
            if action.dest == "optim":
                action.choices = [*action.choices, *OPTIMIZERS]
        return parser

    @classmethod
    def build_optimizers(
        cls, args: argparse.Namespace, model: torch.nn.Module
    ) -> list[torch.optim.Optimizer]:
        """ESPnet's, or one of ours, which is given the names of parameters.

        Raises:
            StarError: If an option would do what ours does itself.
        """
        if args.optim not in OPTIMIZERS:
            return super().build_optimizers(args, model)  # type: ignore[misc]
        for option, off in OWN.items():
            if getattr(args, option, off) != off:
                raise StarError(
                    f"optim {args.optim} has a schedule and a choice of what decays of its own; "
                    f"set {option} to {'null' if off is None else 'false'}"
                )
        return [OPTIMIZERS[args.optim](model.named_parameters(), **args.optim_conf)]
