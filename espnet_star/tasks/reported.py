"""How the processes of a training end that do not succeed."""

from __future__ import annotations

import argparse

from espnet_star.terminal.failures import note_folder, one_line


class Reported:
    """Mixin for an ESPnet task, the outermost: no process of a run ends in a traceback."""

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """See ESPnet's; called in every process of a run.

        Raises:
            SystemExit: In a process that ESPnet has started for a GPU, instead of what went
                wrong, which the process has then said itself.
        """
        if not (args.distributed and args.multiprocessing_distributed):
            note_folder(args.output_dir)
            super().main_worker(args)  # type: ignore[misc]
            return
        with one_line(f"rank {args.dist_rank}", worker=True):
            note_folder(args.output_dir)
            super().main_worker(args)  # type: ignore[misc]
