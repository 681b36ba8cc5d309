"""How the processes of a training are started: ESPnet's launcher, torchrun or Slurm."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from espnet_star.errors import StarError

LAUNCHERS = ("espnet", "torchrun", "slurm")


@dataclass(frozen=True)
class Launch:
    """Processes of a training.

    Attributes:
        launcher: One of ``LAUNCHERS`` and options of its own: ``espnet --cmd slurm.pl``,
            ``torchrun --rdzv_endpoint node1:29500`` (on every node), ``slurm --partition x``.
        num_nodes: Nodes.
        ngpu: GPUs a node; 0 is the CPU.
        cpu_ranks: Processes a node where there is no GPU; they talk through gloo.
    """

    launcher: str = "espnet"
    num_nodes: int = 1
    ngpu: int = 0
    cpu_ranks: int = 1

    def start(self, command: Sequence[str], log: Path) -> tuple[list[str], Path]:
        """The command that starts every process, and the log of this node.

        Args:
            command: ``PYTHON -m espnet_star TOOL OPTIONS`` of one process.
            log: The training's log; files of the launcher lie beside it.

        Raises:
            StarError: If the launcher is unknown, or can't start so many.
        """
        name, *options = shlex.split(self.launcher) or [""]
        self._check(name, options)
        if "-m" not in command[:-2]:
            found = " ".join(command[:4])
            raise StarError(f"--launcher starts PYTHON -m espnet_star star_train ..., got {found}")
        at = command.index("-m")
        python, tool, rest = command[:at], command[at : at + 3], command[at + 3 :]
        each = self.ngpu or self.cpu_ranks
        one = ["--multiprocessing_distributed", "false", "--ngpu", str(min(self.ngpu, 1))]
        one += [] if self.ngpu else ["--dist_backend", "gloo"]
        nodes = str(self.num_nodes)
        if name == "slurm":
            # A port for this job among those that nobody reserves.
            port = 20000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20000
            srun = ["srun", "--nodes", nodes, "--ntasks-per-node", str(each)]
            dist = ["--dist_launcher", "slurm", "--dist_master_port", str(port)]
            srun += ["--kill-on-bad-exit=1", *options]
            return [*srun, *python, *tool, *dist, *one, *rest], log
        if name == "torchrun" or (self.num_nodes == 1 and not self.ngpu and each > 1):
            run = [*python, "-m", "torch.distributed.run", "--nnodes", nodes]
            run += ["--nproc_per_node", str(each)]
            if self.num_nodes == 1:
                run.append("--standalone")
            else:  # Started on every node, each with its log.
                host = socket.gethostname().partition(".")[0]
                log = log.with_name(f"{log.stem}.{host}{log.suffix}")
            return [*run, *options, *tool, *one, *rest], log
        several = ["--multiprocessing_distributed", "true"] if each * self.num_nodes > 1 else []
        here = [*python, *tool]
        gpus = ["--ngpu", str(self.ngpu)]
        if self.num_nodes == 1:
            return [*here, *gpus, *several, *rest], log
        files = ["--log", str(log.with_name("node.log"))]
        files += ["--init_file_prefix", str(log.with_name(".dist_init_"))]
        launch = [*python, "-m", "espnet2.bin.launch", *options, *gpus, "--num_nodes", nodes]
        return [*launch, *files, *several, "--", *here, *rest], log

    def _check(self, name: str, options: Sequence[str]) -> None:
        if name not in LAUNCHERS:
            raise StarError(f"--launcher {name}: unknown; choose from {' '.join(LAUNCHERS)}")
        if name == "espnet" and self.num_nodes > 1:
            if not options:
                raise StarError(
                    f"--num_nodes {self.num_nodes} needs --launcher torchrun, slurm or, with a "
                    "script of an ESPnet checkout, 'espnet --cmd slurm.pl'"
                )
            if not self.ngpu and self.cpu_ranks > 1:
                raise StarError(
                    f"--cpu_ranks {self.cpu_ranks} on several nodes: ESPnet's launcher starts one "
                    "a node; give --launcher torchrun or slurm"
                )
