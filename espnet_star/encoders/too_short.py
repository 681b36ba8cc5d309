"""The error for an utterance without a single frame, which ESPnet's decoders expect."""

from __future__ import annotations

from espnet2.asr.encoder.linear_encoder import TooShortUttError
from espnet2.asr_transducer.utils import TooShortUttError as TransducerTooShortUttError

from espnet_star.errors import StarError


class TooShort(StarError, TooShortUttError, TransducerTooShortUttError):
    """An utterance is shorter than one frame.

    ESPnet's decoders write an empty hypothesis for it and go on, as they do where their own
    subsampling finds too little. Training stops.
    """

    def __init__(self, message: str, actual_size: int = 0, limit: int = 0) -> None:
        Exception.__init__(self, message)
        self.actual_size, self.limit = actual_size, limit
