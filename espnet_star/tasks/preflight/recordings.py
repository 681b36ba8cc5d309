"""A first look at the recordings of a list: sampling rate, channels, files that are there."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from espnet2.train.dataset import kaldi_loader

from espnet_star.data.errors import DataError
from espnet_star.errors import first_line
from espnet_star.tasks.preflight.lists import ARK, SOUND, DataList

PROBES = 5
ARCHIVED = re.compile(r"(.+):\d+")

logger = logging.getLogger(__name__)


class Expected(NamedTuple):
    """Sampling rate that a model is made for.

    Attributes:
        rate: In Hz.
        who: What works at that rate, for messages.
        strict: Whether another rate cannot be meant, as with a student's frontend.
        mono: Whether it takes one channel only.
    """

    rate: int
    who: str
    strict: bool = False
    mono: bool = False


class Sound(NamedTuple):
    """Of one recording: rate in Hz (None where unknown), channels and how it is stored."""

    rate: int | None
    channels: int
    dtype: str = "float32"


def check_recordings(
    entry: DataList, keys: Iterable[str], expected: Expected | None, multi_rates: bool = False
) -> list[Sound]:
    """Look into the headers of a handful of recordings.

    Args:
        entry: The list; of other types than sound nothing is asked.
        keys: Utterances that will be read.
        expected: The model's sampling rate, None where it is not known.
        multi_rates: Whether rates may differ.

    Returns:
        What was seen.

    Raises:
        DataError: Naming list, utterance, file and what was found, if a file is missing, a
            command or no audio, or rates or channels are not those of the others.
    """
    if entry.type not in (*SOUND, ARK):
        return []
    look = _archived if entry.type == ARK else _stored
    chosen = _some_of([key for key in keys if key in entry.table])
    seen: dict[str, Sound] = {}
    for key, sound in look(entry, chosen):
        where = f"{entry.path}: {key} ({entry.table[key]})"
        if expected is not None and sound.rate not in (None, expected.rate):
            _report_rate(f"{where} has {sound.rate} Hz", expected)
            expected = expected._replace(rate=sound.rate or 0)  # said once
        if expected is not None and expected.mono and sound.channels > 1:
            raise DataError(
                f"{where} has {sound.channels} channels, {expected.who} takes one; mix them down "
                "with star_data prepare"
            )
        seen[key] = sound
        other, first = next(iter(seen.items()))
        if sound.channels != first.channels or (sound.rate != first.rate and not multi_rates):
            raise DataError(
                f"{where} has {sound.rate} Hz and {sound.channels} channels, {other} has "
                f"{first.rate} Hz and {first.channels}; bring all to one rate and one channel "
                "with star_data prepare"
            )
    return list(seen.values())


def _report_rate(found: str, expected: Expected) -> None:
    message = f"{found}, {expected.who} works at {expected.rate} Hz"
    if expected.strict:
        raise DataError(f"{message}; resample with star_data prepare --fs {expected.rate}")
    logger.warning("%s", message)


def _some_of(keys: Sequence[str]) -> list[str]:
    """The first, the last, and some between them."""
    if len(keys) <= PROBES:
        return list(keys)
    places = np.linspace(0, len(keys) - 1, PROBES).astype(int)
    return [keys[place] for place in places]


def _stored(entry: DataList, keys: Sequence[str]) -> Iterable[tuple[str, Sound]]:
    for key in keys:
        value = entry.table[key]
        files = [value] if entry.type == "sound" else value.split()
        infos = [_info(entry, key, file) for file in files]
        rates = {info.samplerate for info in infos}
        if len(rates) > 1:
            raise DataError(f"{entry.path}: {key} ({value}) has files of {sorted(rates)} Hz")
        # Of variable columns the number of files may differ from utterance to utterance.
        channels = 1 if entry.type == "variable_columns_sound" else sum(i.channels for i in infos)
        yield key, Sound(infos[0].samplerate, channels)


def _info(entry: DataList, key: str, file: str) -> soundfile._SoundFileInfo:
    where = f"{entry.path}: {key} ({file})"
    if file.rstrip().endswith("|"):
        raise DataError(
            f"{where} is a command, which ESPnet's type {entry.type} does not run; write its "
            "output to files with star_data prepare --run_pipes true"
        )
    if not Path(file).is_file():
        archive = ARCHIVED.fullmatch(file)
        if archive is not None and Path(archive[1]).is_file():
            raise DataError(
                f"{where} is an entry of a Kaldi archive, not a file; give the list the type "
                f"{ARK}: {entry.path},{entry.name},{ARK}"
            )
        raise DataError(f"{where}: no such file, seen from {Path.cwd()}")
    try:
        return soundfile.info(file)
    except (soundfile.SoundFileError, OSError) as error:
        raise DataError(f"{where} cannot be read as audio ({reason(error)})") from error


def _archived(entry: DataList, keys: Sequence[str]) -> Iterable[tuple[str, Sound]]:
    try:
        loader = kaldi_loader(entry.path, allow_multi_rates=True)
    except Exception as error:  # Kaldi's readers raise what they stumble over
        raise DataError(f"{entry.path} is no list of Kaldi archives ({reason(error)})") from error
    for key in keys:
        loader.rate = None
        try:
            array = loader[key]
        except Exception as error:
            raise DataError(
                f"{entry.path}: {key} ({entry.table[key]}) cannot be read ({reason(error)})"
            ) from error
        # Without a rate it is a matrix of features, whose width ESPnet knows.
        channels = array.shape[1] if loader.rate is not None and array.ndim == 2 else 1
        yield key, Sound(loader.rate, channels, str(array.dtype))


def reason(error: BaseException) -> str:
    """What a reader says, without the path that the message names anyway."""
    text = getattr(error, "error_string", None) or first_line(error)
    return str(text).split(": ")[-1].strip().rstrip(".")
