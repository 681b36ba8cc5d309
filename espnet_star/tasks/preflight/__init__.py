"""What a training or decoding is asked before ESPnet starts it: one line a mistake."""

from espnet_star.tasks.preflight.decoding import check_decoding, explained, run_decoding
from espnet_star.tasks.preflight.training import check_training

__all__ = ["check_decoding", "check_training", "explained", "run_decoding"]
