"""Size and cost of encoders: parameters, bytes on disk, multiply-accumulates (MACs).

MACs are half of what torch's own FLOP counter counts: convolutions, linear maps and the two
products of attention. Norms, activations, softmax, biases and sums are not counted. The
network runs on torch's meta device: every shape, no arithmetic, no weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from espnet_star.data.errors import DataError
from espnet_star.data.kaldi import split_lines
from espnet_star.errors import StarError
from espnet_star.evaluate.cost.subjects import Subject, run
from espnet_star.outputs import RECEPTIVE_FIELD, SAMPLE_RATE

# Samples of 32 utterances of LibriSpeech test-clean, 224.86 s in all. The published MACs of
# STaRHuBERT, HuBERT Base and their rivals are sums over these, one utterance at a time.
LIBRISPEECH_LENGTHS = (
    20560, 34560, 38480, 42560, 45600, 48720, 52000, 55120, 59120, 62720, 66400,
    71200, 75200, 78640, 82800, 87520, 92720, 98560, 104400, 111120, 118480, 125040,
    132720, 142640, 154000, 166720, 180880, 197920, 217920, 239280, 268160, 326000,
)  # fmt: skip

# torch's operations, as they remain after decomposition, by what they are in an encoder.
_KINDS = {
    "convolution": "convolutions",
    "mm": "linear",
    "addmm": "linear",
    "bmm": "attention",
    "baddbmm": "attention",
}
COUNTED = (
    "convolutions, linear maps and attention products, half of torch's FLOP count; norms, "
    "activations, softmax, sums and Whisper's log-mel spectrogram are not counted"
)


def count_macs(model: nn.Module, samples: int, device: str = "meta") -> dict[str, int]:
    """Multiply-accumulates of one utterance.

    Args:
        model: See :attr:`Subject.build`.
        samples: Length at 16 kHz.
        device: Where the model is; on torch's meta device nothing is computed.

    Returns:
        MACs of ``convolutions``, ``linear`` maps and ``attention`` products; whatever
        else torch counted stands under its own name.
    """
    speech = torch.zeros(1, samples, device=device)
    counter = FlopCounterMode(display=False)
    # The plain form of attention is matrix products, which every torch counts alike.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        run(model, speech)
    macs: Counter[str] = Counter()
    for operation, flops in counter.get_flop_counts()["Global"].items():
        name = str(operation).rpartition(".")[2]
        macs[_KINDS.get(name, name)] += int(flops) // 2
    return dict(macs)


def profile(subject: Subject, lengths: Sequence[int] = LIBRISPEECH_LENGTHS) -> dict[str, Any]:
    """Size and cost of one model.

    Args:
        subject: The model.
        lengths: Samples of each utterance, taken one at a time.

    Returns:
        ``{"model", "params", "bytes", "macs", "macs_by_kind", "macs_per_second"}``: name,
        parameters, bytes on disk or None, MACs of all utterances, the same split as in
        :func:`count_macs`, and MACs divided by the seconds of all utterances; and
        ``"source"``, what the model was found by.

    Raises:
        StarError: If an utterance is longer than the model reads.
    """
    check_duration(subject, max(lengths))
    with torch.device(subject.counts_on):
        model = subject.build()
        by_kind: Counter[str] = Counter()
        for samples, times in Counter(lengths).items():
            for kind, macs in count_macs(model, samples, subject.counts_on).items():
                by_kind[kind] += times * macs
    return {
        "model": subject.name,
        "source": subject.source,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": subject.bytes,
        "macs": by_kind.total(),
        "macs_by_kind": dict(by_kind),
        "macs_per_second": by_kind.total() / seconds(lengths),
    }


def check_duration(subject: Subject, samples: int) -> None:
    """Refuse an utterance that is longer than a model reads.

    Raises:
        StarError: Naming the model and both lengths.
    """
    limit = subject.max_samples
    if limit is not None and samples > limit:
        raise StarError(
            f"{subject.name} reads at most {limit / SAMPLE_RATE:g} s, got an utterance of "
            f"{samples / SAMPLE_RATE:.2f} s; give shorter --lengths or --seconds"
        )


def seconds(lengths: Iterable[int]) -> float:
    """Seconds of audio of all lengths together."""
    return sum(lengths) / SAMPLE_RATE


def read_lengths(path: str | Path) -> tuple[int, ...]:
    """Lengths of utterances from a file.

    Args:
        path: A number of samples a line, alone or behind a key as in ``utt2num_samples``.

    Raises:
        DataError: Naming the line that is neither, or shorter than one frame.
    """
    try:
        lines = split_lines(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    lengths = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        if len(words) > 2 or not (words[-1].isascii() and words[-1].isdigit()):
            raise DataError(
                f"{path}:{number}: expected a number of samples, alone or behind a key, got "
                f"{line!r}"
            )
        if int(words[-1]) < RECEPTIVE_FIELD:
            raise DataError(
                f"{path}:{number}: must be at least {RECEPTIVE_FIELD} samples (one frame), got "
                f"{words[-1]}"
            )
        lengths.append(int(words[-1]))
    if not lengths:
        raise DataError(f"{path}: holds no length")
    return tuple(lengths)
