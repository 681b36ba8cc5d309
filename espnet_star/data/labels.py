"""Labels of frames: a line ``utterance 3 3 17 ...`` each, 50 labels a second, -1 for none.

ESPnet reads such a file as data of type ``text_int``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_table, write_lines
from espnet_star.outputs import HOP, frame_count

# Frames by which labels and audio may differ: front ends count the last ones differently.
TOLERANCE = 2
SEPARATOR = {"text_int": " ", "csv_int": ","}


def write_labels(path: str | Path, labels: Mapping[str, np.ndarray]) -> None:
    """Write labels, sorted by utterance, complete or not at all.

    Raises:
        OSError: If the file cannot be written.
    """
    write_lines(
        path, (f"{key} {' '.join(map(str, labels[key].tolist()))}" for key in sorted(labels))
    )


def read_labels(path: str | Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_labels` wrote.

    Raises:
        DataError: As `read_table`, or if a line holds anything but whole numbers.
    """
    return {key: _numbers(path, key, text) for key, text in read_table(path).items()}


def check_labels(
    path: str | Path,
    table: Mapping[str, str],
    samples: Mapping[str, int],
    clusters: int | None = None,
    kind: str = "text_int",
) -> None:
    """Refuse labels that are not those of the audio, before a training runs into them.

    Args:
        path: Their file, for messages.
        table: Its lines.
        samples: Length of each utterance at 16 kHz; those without a line are passed over.
        clusters: Labels lie below it; None for any.
        kind: ESPnet's type of the file, of :data:`SEPARATOR`.

    Raises:
        DataError: Naming utterances with other numbers of labels than of frames, or the first
            with an unknown label.
    """
    strange = []
    for key, count in samples.items():
        if key not in table:
            continue
        labels = _numbers(path, key, table[key], SEPARATOR[kind])
        frames = int(frame_count(torch.tensor(count)))
        if abs(len(labels) - frames) > TOLERANCE:
            strange.append(f"{key} ({len(labels)} for {frames})")
        wrong = labels[(labels < -1) | (labels >= (np.inf if clusters is None else clusters))]
        if wrong.size:
            raise DataError(
                f"{path}: utterance {key} has label {wrong[0]}, expected 0 to "
                f"{'any' if clusters is None else clusters - 1}, or -1 for none; give the number "
                "of clusters that the labels were made with"
            )
    if strange:
        raise DataError(
            f"{path}: {len(strange)} utterances have other numbers of labels than of frames, 50 a "
            f"second: {some(strange)}; make them of the same audio with star_clusters"
        )


def on_frames(labels: torch.Tensor, frames: int, hop: int) -> torch.Tensor:
    """Labels of an encoder's frames: of frame f the entry at ``floor(f * hop / 320)``.

    Args:
        labels: 50 a second, ``(B, M)``.
        frames: Frames N of the encoder.
        hop: Samples at 16 kHz from one to the next.

    Returns:
        ``(B, N)``; -1 where the labels have ended.
    """
    at = torch.arange(frames, device=labels.device) * hop // HOP
    inside = at < labels.shape[1]
    return torch.where(inside, labels[:, at.clamp(max=labels.shape[1] - 1)], -1)


def _numbers(path: str | Path, key: str, text: str, separator: str = " ") -> np.ndarray:
    try:
        return np.array(text.split(separator), dtype=np.int64)
    except ValueError:
        raise DataError(
            f"{path}: utterance {key} must be followed by whole numbers, one a frame with one "
            f"{'blank' if separator == ' ' else 'comma'} between them, got {text[:40]!r}"
        ) from None
