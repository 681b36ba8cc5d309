"""Score speaker verification: cosine of embeddings, equal error rate, minimum detection cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from espnet_star.data.errors import DataError, some
from espnet_star.data.kaldi import read_table, write_lines
from espnet_star.data.trials import Trial, check_named, read_trials

# Prior of a target and costs of a miss and of a false alarm, as in ESPnet's validation and the
# VoxCeleb speaker recognition challenge.
P_TARGET, C_MISS, C_FALSE_ALARM = 0.05, 1.0, 1.0
CHUNK = 65536


def score_sv(
    trials_file: str | Path, embeddings: str | Path, scores_file: str | Path | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Equal error rate and minimum detection cost of a list of trials.

    Args:
        trials_file: Lines ``1 utterance utterance``.
        embeddings: ``embed.scp`` of ``spk_inference``: a NumPy file of each utterance.
        scores_file: Where to write ``utterance utterance score`` of each trial, if anywhere.

    Returns:
        Result (``eer`` as a fraction, ``mindcf`` and its threshold) and warnings, none so far.

    Raises:
        DataError: If lists and embeddings do not fit, or an embedding is not usable.
    """
    trials = read_trials(trials_file)
    table = read_table(embeddings)
    check_named(trials, table, trials_file, str(embeddings))
    scores = cosines(trials, table)
    labels = [trial.label for trial in trials]
    if scores_file is not None:
        write_lines(
            scores_file,
            (f"{t.first} {t.second} {s:.6f}" for t, s in zip(trials, scores, strict=True)),
        )
    result = {
        "task": "sv",
        "trials": len(trials),
        "targets": sum(labels),
        "utterances": len({name for trial in trials for name in trial[1:]}),
        **error_rates(scores.tolist(), labels),
        "p_target": P_TARGET,
    }
    return result, []


def cosines(trials: Sequence[Trial], table: dict[str, str]) -> np.ndarray:
    """Cosine similarity of the two embeddings of each trial, ``(trials,)`` in float64.

    Args:
        trials: Pairs of utterances.
        table: NumPy file of each utterance.
    """
    names = sorted({name for trial in trials for name in trial[1:]})
    index = {name: row for row, name in enumerate(names)}
    rows = [_embedding(name, table[name]) for name in names]
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise DataError(
            f"embeddings have {some(map(str, sorted(widths)))} numbers; they are not of one model, "
            "extract all of them again"
        )
    matrix = np.stack(rows)
    first = np.array([index[trial.first] for trial in trials])
    second = np.array([index[trial.second] for trial in trials])
    # In parts: half a million trials (VoxCeleb1-H) would take gigabytes at once.
    parts = [
        np.einsum("td,td->t", matrix[first[i : i + CHUNK]], matrix[second[i : i + CHUNK]])
        for i in range(0, len(trials), CHUNK)
    ]
    return np.concatenate(parts)


def _embedding(name: str, path: str) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False).astype(np.float64).reshape(-1)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{name}: {path} is no embedding ({error}); extract it again") from error
    length = float(np.linalg.norm(values))
    if not np.isfinite(length) or length == 0:
        raise DataError(
            f"{name}: the embedding in {path} has length {length}, so its angle means nothing; is "
            "the model trained?"
        )
    return values / length


def error_rates(scores: Sequence[float], labels: Sequence[int]) -> dict[str, float]:
    """Equal error rate (a fraction) and minimum detection cost by ESPnet's functions."""
    try:
        from espnet2.utils.eer import ComputeErrorRates, ComputeMinDcf, tuneThresholdfromScore
    except ImportError as error:
        raise DataError(
            f"{error.name} is needed for equal error rates; install it with: "
            "pip install espnet_star[recipes]"
        ) from None
    percent = tuneThresholdfromScore(scores, labels, [1, 0.1])[1]
    rates = ComputeErrorRates(scores, labels)
    mindcf, threshold = ComputeMinDcf(*rates, P_TARGET, C_MISS, C_FALSE_ALARM)
    return {
        "eer": float(percent) / 100,
        "mindcf": float(mindcf),
        "mindcf_threshold": float(threshold),
    }
