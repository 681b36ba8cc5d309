"""Random excerpts of utterances in training, for tasks about the whole utterance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from espnet2.train.preprocessor import SpkPreprocessor

Preprocess = Callable[[str, dict[str, Any]], dict[str, Any]]


def random_excerpt(samples: np.ndarray, length: int) -> np.ndarray:
    """At most ``length`` samples ``(T,)``, or ``(T, C)``, from a random place.

    ESPnet seeds NumPy in each worker of the data loader, so a run can be repeated.
    """
    spare = len(samples) - length
    if spare <= 0:
        return samples
    start = np.random.randint(spare + 1)
    return samples[start : start + length]


class Excerpts:
    """A preprocessing that cuts the speech first.

    Args:
        preprocess: What is done with the excerpt; None for nothing.
        length: Its longest length in samples.
    """

    def __init__(self, preprocess: Preprocess | None, length: int):
        self.preprocess = preprocess
        self.length = length

    def __call__(self, uid: str, data: dict[str, Any]) -> dict[str, Any]:
        """Cut ``speech`` of an utterance, then preprocess it."""
        cut = {**data, "speech": random_excerpt(data["speech"], self.length)}
        return cut if self.preprocess is None else self.preprocess(uid, cut)


class SpeakerPreprocessor(SpkPreprocessor):
    """ESPnet's preparation of speakers, whose training fails with NumPy 2.4 and later.

    There the start of an excerpt is an array of one element, which NumPy no longer turns
    into a number. Validation is ESPnet's own.
    """

    def _speech_process(self, data: dict[str, Any]) -> dict[str, Any]:
        if not self.train:
            return super()._speech_process(data)
        speech = data["speech"]
        if len(speech) < self.target_duration:
            # As ESPnet does: a short utterance is said again until it is long enough.
            speech = np.pad(speech, (0, self.target_duration - len(speech)), "wrap")
        data["speech"] = random_excerpt(speech, self.target_duration)
        if self.noise_apply_prob > 0 or self.rir_apply_prob > 0:
            data["speech"] = self._apply_data_augmentation(data["speech"])
        return data
