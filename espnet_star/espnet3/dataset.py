"""Speech of a Kaldi-style directory as ESPnet3 reads datasets.

Named in a configuration as ``data_src: espnet_star.espnet3.dataset``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, KeysView
from pathlib import Path
from typing import Any, ClassVar

import soundfile
from espnet2.train.dataset import ESPnetDataset
from espnet3.components.data.base_dataset import BaseDataset
from espnet3.components.data.dataset_builder import DatasetBuilder as AbsBuilder
from espnet3.contract import Field

from espnet_star.data.checks import check_datadir
from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_table, read_wav_scp
from espnet_star.outputs import SAMPLE_RATE
from espnet_star.views import VIEWS


class KaldiDataset(BaseDataset):
    """Waveforms by utterance, read as ESPnet2 reads them.

    Utterances keep their names, so that ``utt2num_samples`` serves as shape file and there
    is no pass over the audio for statistics.

    Args:
        data_dir: Holds ``wav.scp`` (16 kHz, mono) and ``utt2num_samples``, as
            ``star_data prepare`` writes them.
        labels: File of frame labels for views that read them, ``KEY 17 17 4 ...`` a line; None
            for none.

    Raises:
        DataError: If the directory is not prepared, or utterances have no labels.
    """

    fields: ClassVar[tuple[Field, ...]] = (Field("speech", "audio"),)

    def __init__(self, data_dir: str | Path, labels: str | Path | None = None):
        table = Path(data_dir) / "wav.scp"
        self.paths = read_wav_scp(table)
        if not self.paths:
            raise DataError(f"{table} is empty; run the stage create_dataset")
        if not table.with_name("utt2num_samples").is_file():
            raise DataError(f"{data_dir} has no utt2num_samples; star_data prepare writes it")
        self._check(next(iter(self.paths)))
        lists = [(str(table), "speech", "sound")]
        if labels is not None:
            missing = sorted(self.paths.keys() - read_table(labels).keys())
            if missing:
                raise DataError(f"{labels} has no labels for {some(missing, 3)} of {table}")
            lists.append((str(labels), "labels", "text_int"))
        self.data = ESPnetDataset(lists)

    def _check(self, key: str) -> None:
        path = self.paths[key]
        try:
            info = soundfile.info(path)
        except (OSError, soundfile.SoundFileError) as error:
            raise DataError(f"utterance {key}: {path} cannot be read ({error})") from error
        if (info.samplerate, info.channels) != (SAMPLE_RATE, 1):
            raise DataError(
                f"utterance {key}: {path} has {info.channels} channels at {info.samplerate} Hz; "
                f"expected mono at {SAMPLE_RATE} Hz. star_data prepare makes it so"
            )

    def keys(self) -> KeysView[str]:
        """Names of the utterances, by which ESPnet3 then asks for them."""
        return self.paths.keys()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: str) -> dict[str, Any]:
        """The waveform ``(T,)`` of an utterance, and its labels.

        Raises:
            KeyError: For anything but the name of an utterance.
        """
        if key not in self.paths:
            raise KeyError(key)
        return self.data[key][1]


def collate_fn(view: str = "plain") -> Callable[..., Any]:
    """Named in a configuration: what the model's view makes of utterances."""
    return VIEWS.find(view).collate_fn(train=True)


class CheckOnly(AbsBuilder):
    """Stage ``create_dataset`` for directories that are there already: a look at them."""

    def is_source_prepared(self, **_: Any) -> bool:
        """Nothing to fetch."""
        return True

    def prepare_source(self, **_: Any) -> None:
        """Nothing to fetch."""

    def is_built(self, **_: Any) -> bool:
        """The check costs little and is made each time."""
        return False

    def build(self, data_dir: str | Path, **_: Any) -> None:
        """Check ``train`` and ``valid`` before hours are spent on them.

        Raises:
            DataError: Listing everything that was found wrong.
        """
        for name in ("train", "valid"):
            report = check_datadir(Path(data_dir) / name)
            logging.info("%s: %d utterances, %.2f h", name, report.utterances, report.hours)


Dataset = KaldiDataset
DatasetBuilder = CheckOnly
