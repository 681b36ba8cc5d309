"""What every training of ours does around ESPnet's: one run a folder, no silent deaths."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from espnet2.train.distributed_utils import get_rank, get_world_size

from espnet_star.heartbeat import Heartbeat
from espnet_star.run_lock import exclusive


class Guarded:
    """Mixin for an ESPnet task: holds the experiment folder, and names a rank that died."""

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """See ESPnet's; called in every process of a run.

        Raises:
            StarError: If another run holds ``--output_dir``, or another rank has died.
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
            super().main_worker(args)  # type: ignore[misc]
