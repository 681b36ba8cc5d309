"""The commands that make s3prl run SUPERB's tasks, and the configurations they read."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from espnet_star.evaluate.superb.config import Settings, TaskSettings
from espnet_star.evaluate.superb.student import Upstream, digest_of
from espnet_star.evaluate.superb.tasks import TASKS
from espnet_star.files.yaml_files import merge

UPSTREAM_NAME = "hf_hubert_custom"
CONFIG = "s3prl.yaml"


@dataclass(frozen=True)
class Run:
    """One process of s3prl: a task with one seed, on one fold or one layer.

    Attributes:
        task: Key of ``TASKS``.
        name: What displays call it, ``er_fold2_seed0``.
        folder: Where s3prl writes.
        command: Program and arguments.
        config: What ``s3prl.yaml`` in the folder is to hold.
        facts: Seed, and fold or layer and split, where there is one.
        settings: What else decides the result, as the configuration says it.
    """

    task: str
    name: str
    folder: Path
    command: tuple[str, ...]
    config: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Digest of what decides the result; where data and student lie is no part of it."""
        return digest_of([self.task, dict(self.facts), dict(self.settings)])


@dataclass(frozen=True)
class CommandBuilder:
    """Makes the runs of every task for one student.

    Attributes:
        settings: The configuration.
        upstream: The student.
        outdir: Root of all folders.
        python: Interpreter with s3prl.
        gpu: Whether to compute on a GPU.
    """

    settings: Settings
    upstream: Upstream
    outdir: Path
    python: str
    gpu: bool

    def runs(self, task: str) -> list[Run]:
        """Runs of a task that depend on no other run."""
        if not TASKS[task].problem:
            layers = self.settings.tasks[task].layers
            chosen = range(self.upstream.layers) if layers is None else layers
            return [self.query_run(task, layer, "dev") for layer in chosen]
        return list(self._problem_runs(task))

    def _problem_runs(self, task: str) -> Iterator[Run]:
        own = self.settings.tasks[task]
        for seed in self.settings.seeds:
            for fold in own.folds or (None,):
                name = f"seed{seed}" if fold is None else f"fold{fold}_seed{seed}"
                facts = {"seed": seed} | ({} if fold is None else {"fold": fold})
                yield self._problem_run(task, own, name, facts)

    def _problem_run(
        self, task: str, own: TaskSettings, name: str, facts: Mapping[str, Any]
    ) -> Run:
        folder = self.outdir / task / name
        data: dict[str, Any] = {
            key: str(self.settings.source[corpus] or f"<{corpus}>")
            for key, corpus in TASKS[task].data.items()
        }
        if "fold" in facts:
            data["test_fold"] = facts["fold"]
        config: dict[str, Any] = {
            "prepare_data": data,
            "build_upstream": {
                "name": UPSTREAM_NAME,
                "path_or_url": str(self.upstream.directory),
            },
            "build_optimizer": {"conf": {"lr": own.lr}},
            "train": {"total_steps": own.steps, "seed": facts["seed"]},
            "device": "cuda:0" if self.gpu else "cpu",
            "num_workers": self.settings.num_workers,
        }
        if self.settings.cache_dir is not None:
            config["cache_dir"] = str(Path(self.settings.cache_dir).expanduser().absolute())
        command = [
            self.python,
            *("-m", "s3prl.main", TASKS[task].problem),
            *("--config", str(folder / CONFIG), "--target_dir", str(folder)),
        ]
        if own.warmup_steps is not None:
            # s3prl's default has a key that its own build_scheduler refuses. Set to null in
            # the file, it is made anew by the command line, which is merged later.
            config["train"]["use_scheduler"] = True
            config["build_scheduler"] = None
            command += ["--build_scheduler", repr(_schedule(own))]
        config = merge(config, own.overrides)
        return Run(task, f"{task}_{name}", folder, tuple(command), config, facts, _said(own))

    def query_run(self, task: str, layer: int, split: str) -> Run:
        """Query by example on one hidden state: features, alignment, the corpus's own scorer.

        Args:
            task: Key of the task.
            layer: Index of the hidden state.
            split: ``dev`` or ``test``.
        """
        own = self.settings.tasks[task]
        folder = self.outdir / task / f"layer{layer}_{split}"
        root = self.settings.source["quesst14"] or Path("<quesst14>")
        # The settings of s3prl's downstream/quesst14_dtw/config.yaml.
        config: dict[str, Any] = {
            "runner": {},
            "downstream_expert": {
                "max_workers": None,
                "feature_normalization": own.dist_method != "cosine_neg_log",
                "silence_frame": None,
                "datarc": {
                    "dataset_root": str(root),
                    "num_workers": self.settings.num_workers,
                    "batch_size": 1,
                },
                "dtwrc": {
                    "dist_method": own.dist_method,
                    "minmax_norm": True,
                    "step_pattern": "asymmetric",
                    "subsequence": True,
                },
            },
        }
        extract = [
            self.python,
            *("-m", "s3prl.run_downstream", "-m", "evaluate", "-t", split),
            *("-u", UPSTREAM_NAME, "-k", str(self.upstream.directory), "-l", str(layer)),
            *("-d", "quesst14_dtw", "-c", str(folder / CONFIG), "-p", str(folder)),
            *("--device", "cuda" if self.gpu else "cpu"),
        ]
        truth = f"groundtruth_quesst14_{'dev' if split == 'dev' else 'eval'}"
        score = ["./score-TWV-Cnxe.sh", str(folder), truth, "-10"]
        text = (
            f"{shlex.join(extract)} && cd {shlex.quote(str(root / 'scoring'))} && "
            f"{shlex.join(score)}"
        )
        return Run(
            task,
            f"{task}_layer{layer}_{split}",
            folder,
            ("bash", "-ec", text),
            merge(config, own.overrides),
            {"layer": layer, "split": split},
            _said(own),
        )


def _said(own: TaskSettings) -> dict[str, Any]:
    """What a configuration says of a task, but for the folds and layers, which are runs."""
    return {k: v for k, v in asdict(own).items() if k not in ("folds", "layers")}


def _schedule(own: TaskSettings) -> dict[str, Any]:
    """The scheduler of torch that is s3prl's ``linear_schedule_with_warmup``.

    ``s3prl.problem`` takes only torch's. With these numbers OneCycleLR rises linearly from 0
    to the learning rate over the warm-up and falls linearly to 0 at the last update.
    """
    steps, warmup = own.steps or 1, own.warmup_steps or 1
    return {
        "name": "OneCycleLR",
        "conf": {
            "max_lr": own.lr,
            "total_steps": steps + 1,
            "pct_start": (warmup + 1) / (steps + 1),
            "anneal_strategy": "linear",
            "cycle_momentum": False,
            "div_factor": 1e9,
            "final_div_factor": 1.0,
        },
    }
